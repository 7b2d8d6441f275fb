"""Each method in a process of its own: a crash takes only its picture along, and memory is measured apart."""

import multiprocessing
import signal
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from pconv_train.evaluation.methods import BUILDERS, Hole, Machine, Method, MethodError, Picture

_START_SECONDS = 300.0  # to import torch and read weights, on a busy machine


class UnavailableError(MethodError):
    """A method cannot run here at all: a package or a library is missing, or its weights are not readable."""


@dataclass(frozen=True)
class Answer:
    """A restored picture and what it took."""

    picture: Picture
    seconds: float
    peak_mib: float  # of the method's whole process so far; on a GPU its allocations there


class Worker:
    """Runs a method picture by picture in its own process, which is started at the first and again after a crash.

    Args:
        method: What to run.
        machine: Where, and how long it may take.
    """

    def __init__(self, method: Method, machine: Machine) -> None:
        self.method, self.machine = method, machine
        self._process: Any = None
        self._connection: Connection[Any, Any] | None = None

    def __enter__(self) -> Self:
        """Return itself; the process starts later."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the process."""
        self.close()

    def restore(self, picture: Picture, hole: Hole | None) -> Answer:
        """Run the method once.

        Raises:
            UnavailableError: It cannot be started.
            MethodError: It failed, died or took too long with this picture.
        """
        if self._connection is None:
            self._start()
        answer = self._receive(self.machine.timeout + 5, (picture, hole))
        if isinstance(answer, str):
            raise MethodError(answer)
        return Answer(*answer)

    def close(self) -> None:
        """End the process, whatever it does."""
        if self._connection is not None:
            self._process.kill()
            self._process.join()
            self._connection.close()
            self._connection = None

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self.method, self.machine), daemon=True)
        self._process.start()
        theirs.close()
        try:
            problem = self._receive(_START_SECONDS)
        except MethodError as error:
            raise UnavailableError(str(error)) from error
        if problem:
            self.close()
            raise UnavailableError(problem)

    def _receive(self, timeout: float, question: Any = None) -> Any:
        """Wait for an answer; to a question, if there is one, which is sent first."""
        assert self._connection is not None
        try:
            if question is not None:
                self._connection.send(question)
            if self._connection.poll(timeout):
                return self._connection.recv()
        except (EOFError, OSError):
            self._process.join()
            code = self._process.exitcode
            self.close()
            name = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
            raise MethodError(f"its process died ({name})") from None
        self.close()
        raise MethodError(f"it took longer than {timeout:g} s")


def _serve(connection: "Connection[Any, Any]", method: Method, machine: Machine) -> None:
    """Build the method, then answer pictures until the other end closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this process
    try:
        restore = BUILDERS[method.kind](method, machine)
    except Exception as error:
        connection.send(_describe(error))
        return
    connection.send("")
    while True:
        try:
            picture, hole = connection.recv()
        except EOFError:
            return
        start = time.perf_counter()
        try:
            restored = np.ascontiguousarray(restore(picture, hole))
            answer: Any = (restored, time.perf_counter() - start, _peak_mib(machine))
        except Exception as error:
            answer = _describe(error)
        connection.send(answer)


def _describe(error: Exception) -> str:
    text = str(error).strip() or "no message"
    if isinstance(error, MethodError):
        return text
    # An import that is tried two ways hides its reason, as a missing libvulkan.so.1, in the first error.
    first = f" (after {type(error.__context__).__name__}: {error.__context__})" if error.__context__ else ""
    return f"{type(error).__name__}: {text}{first}"


def _peak_mib(machine: Machine) -> float:
    if machine.device.startswith("cuda"):
        import sys

        if "torch" in sys.modules:
            import torch

            return torch.cuda.max_memory_allocated() / 2**20
    import resource

    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    status = Path("/proc/self/status")
    if not status.exists():
        return max(children, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    # Not ru_maxrss: Linux hands that of the parent down to a new process.
    (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
    return max(children, int(line.split()[1]) / 1024)
