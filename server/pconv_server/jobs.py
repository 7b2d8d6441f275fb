"""The queue between the service, which waits, and one compute worker per device, which computes."""

import asyncio
import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pconv_server.engine import Engine
from pconv_server.errors import CancelledJobError, LimitError, SilenceError, StoppingError
from pconv_server.fallbacks import no_notice

ROWS_AHEAD = 2  # parts of a result that a slow reader may leave waiting in memory
PROGRESS_SECONDS = 0.1  # between two progress events

log = logging.getLogger(__name__)
Work = Callable[[Engine, "Job"], None]


class Job:
    """Work for one request, and the events that it sends back to the event loop of the service.

    Args:
        client: Whose turn it is to wait, where several do.
        work: Runs in a worker's thread with that worker's engine.
        silence: Seconds that the reader of a result may make a worker wait.
    """

    def __init__(self, client: str, work: Work, silence: float = 60.0) -> None:
        self.client, self.work, self.silence = client, work, silence
        self.events: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()
        self.created = time.monotonic()
        self.started: float | None = None
        self._loop = asyncio.get_running_loop()
        self._stop: Exception | None = None
        self._slots = threading.Semaphore(ROWS_AHEAD)
        self._last = 0.0

    def run(self, engine: Engine) -> None:
        """Do the work; whatever happens ends in a last event, "finished" or "error"."""
        self.started = time.monotonic()
        try:
            self.check()
            engine.notice = lambda code, text: self.send("notice", (code, text))
            self.work(engine, self)
            self.send("finished", (self.started - self.created, time.monotonic() - self.started))
        except CancelledJobError:
            log.info("cancelled", extra={"seconds": round(time.monotonic() - self.started, 3)})
        except Exception as error:
            self.send("error", error)
        finally:
            engine.notice = no_notice  # the other holds the request's rasters

    def progress(self, fraction: float) -> None:
        """Tell the fraction done; called by the worker between tiles and stages, it ends a job that was stopped."""
        self.check()
        now = time.monotonic()
        if fraction >= 1 or now - self._last >= PROGRESS_SECONDS:
            self._last = now
            self.send("progress", fraction)

    def check(self) -> None:
        """Raise if nobody waits for the job any more, or the server stops."""
        if self._stop is not None:
            raise self._stop

    def send(self, kind: str, value: Any) -> None:
        """Hand an event to the service, from any thread."""
        try:
            self._loop.call_soon_threadsafe(self.events.put_nowait, (kind, value))
        except RuntimeError as error:  # the loop is closed: the server is gone
            raise CancelledJobError from error

    def send_part(self, kind: str, value: Any) -> None:
        """Hand over a part of a large result; waits while the reader has not taken the parts before."""
        if not self._slots.acquire(timeout=self.silence):
            raise SilenceError(f"nobody read the result for {self.silence:g} seconds")
        self.check()
        self.send(kind, value)

    def part_taken(self) -> None:
        """Let the worker go on to the next part."""
        self._slots.release()

    def stop(self, reason: Exception) -> None:
        """End the job at its next check, and wake its worker if it waits for the reader."""
        self._stop = self._stop or reason
        self._slots.release()


class JobQueue:
    """Bounded and fair: clients take turns, however many jobs each of them has.

    Args:
        engines: One worker each.
        limit: Requests that may wait, those that still send their picture included.
        release_seconds: After so long without a job a worker gives its GPU's memory back.
    """

    def __init__(self, engines: Sequence[Engine], limit: int = 16, release_seconds: float = 600.0) -> None:
        self.engines, self.limit, self.release_seconds = list(engines), limit, release_seconds
        self._waiting: OrderedDict[str, deque[Job]] = OrderedDict()
        self._running: set[Job] = set()
        self._admitted = 0
        self._closed = False
        self._changed = threading.Condition()
        self._workers = [
            threading.Thread(target=self._work, args=(e,), name=e.device.name, daemon=True) for e in engines
        ]

    def start(self) -> None:
        """Start the workers."""
        for worker in self._workers:
            worker.start()

    @contextmanager
    def admission(self) -> Iterator[None]:
        """Hold a place for a request, from its header to its end.

        Raises:
            LimitError: All places are taken.
            StoppingError: The server stops.
        """
        with self._changed:
            if self._closed:
                raise StoppingError("the server stops")
            if self._admitted >= self.limit + len(self.engines):
                raise LimitError(f"{self._admitted} requests run or wait, the limit is {self.limit} waiting: try later")
            self._admitted += 1
        try:
            yield
        finally:
            with self._changed:
                self._admitted -= 1

    def submit(self, job: Job) -> None:
        """Let a job wait for its turn."""
        with self._changed:
            if self._closed:
                raise StoppingError("the server stops")
            self._waiting.setdefault(job.client, deque()).append(job)
            self._changed.notify()

    def withdraw(self, job: Job) -> None:
        """Forget a job that nobody waits for; if it runs, it ends between tiles."""
        job.stop(CancelledJobError())
        with self._changed:
            jobs = self._waiting.get(job.client)
            if jobs and job in jobs:
                jobs.remove(job)
                if not jobs:
                    del self._waiting[job.client]

    def ahead(self, job: Job) -> int:
        """How many jobs run or wait before a waiting job."""
        with self._changed:
            own = self._waiting.get(job.client)
            if own is None or job not in own:
                return 0
            turn = list(own).index(job)
            clients = list(self._waiting)
            before = clients.index(job.client)
            others = sum(
                min(len(jobs), turn + (clients.index(client) < before))
                for client, jobs in self._waiting.items()
                if client != job.client
            )
            return len(self._running) + turn + others

    @property
    def jobs(self) -> int:
        """Requests in hand: sending, waiting and running."""
        return self._admitted

    def close(self, grace: float) -> None:
        """Stop: waiting jobs end at once, running ones may finish for `grace` seconds, then end between tiles."""
        reason = StoppingError("the server stops; the job is not done")
        with self._changed:
            self._closed = True
            for job in [job for jobs in self._waiting.values() for job in jobs]:
                job.send("error", reason)
            self._waiting.clear()
            self._changed.notify_all()
        deadline = time.monotonic() + grace
        for worker in self._workers:
            worker.join(max(0.0, deadline - time.monotonic()))
        for job in list(self._running):
            job.stop(reason)
        for worker in self._workers:
            worker.join(30)

    def _take(self) -> Job | None:
        """The next job; None after `release_seconds` without one, or when closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed, self.release_seconds)
            if not self._waiting:
                return None
            client, jobs = next(iter(self._waiting.items()))
            job = jobs.popleft()
            if jobs:
                self._waiting.move_to_end(client)  # the next client's turn
            else:
                del self._waiting[client]
            self._running.add(job)
            return job

    def _work(self, engine: Engine) -> None:
        while not self._closed:
            job = self._take()
            if job is None:
                if engine.device.is_cuda and engine.loaded:
                    try:
                        engine.release()
                        log.info("released", extra={"device": engine.device.name})
                    except Exception:  # of a GPU that failed; without its worker all later jobs would wait for ever
                        log.exception("not released", extra={"device": engine.device.name})
                continue
            try:
                job.run(engine)
            except CancelledJobError:  # its event loop is gone
                pass
            finally:
                with self._changed:
                    self._running.discard(job)
                del job  # and with it the request's rasters, while nothing comes
