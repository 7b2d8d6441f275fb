"""The gRPC service: reads requests, lets a worker compute, writes replies, and gives every error its status."""

import asyncio
import logging
import os
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import TypeAlias

import grpc
import numpy as np
from pconv_api import PROTOCOL_VERSION, Box
from pconv_api.v1 import pconv_pb2 as pb
from pconv_api.v1 import pconv_pb2_grpc

from pconv_server import devices, errors, rasters
from pconv_server.engine import Engine
from pconv_server.fallbacks import is_out_of_memory
from pconv_server.info import log_file, memory_bytes, version
from pconv_server.jobs import Job, JobQueue
from pconv_server.models import ModelEntry
from pconv_server.requests import OPTIONS, Limits, Upload

STATUS = {
    errors.RequestError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.ModelNotFoundError: grpc.StatusCode.NOT_FOUND,
    errors.LimitError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.ProtocolError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.NotFiniteError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.TokenError: grpc.StatusCode.UNAUTHENTICATED,
    errors.SilenceError: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.StoppingError: grpc.StatusCode.UNAVAILABLE,
}
QUEUE_NEWS_SECONDS = 1.0

log = logging.getLogger(__name__)
Requests = AsyncIterator[pb.JobRequest]
Context: TypeAlias = grpc.aio.ServicerContext


class Service(pconv_pb2_grpc.PConvServicer):  # type: ignore[misc] # generated, untyped
    """What the proto says.

    Args:
        engines: One for each device; all have the same models.
        queue: Whose workers have these engines.
        limits: What is accepted.
    """

    def __init__(self, engines: Sequence[Engine], queue: JobQueue, limits: Limits) -> None:
        self.engines, self.queue, self.limits = engines, queue, limits
        self.models = engines[0].models
        self._born = time.monotonic()

    async def Inpaint(self, requests: Requests, context: Context) -> None:
        """Fill holes."""
        await self._job("inpaint", requests, context)

    async def Upscale(self, requests: Requests, context: Context) -> None:
        """Enlarge."""
        await self._job("upscale", requests, context)

    async def ListModels(self, request: pb.ListModelsRequest, context: Context) -> pb.ListModelsReply:
        """List models."""
        async with reporting(context, "models"):
            entries = await asyncio.to_thread(self.models.entries)
            return pb.ListModelsReply(models=[model_message(entry) for entry in entries])

    async def GetServerInfo(self, request: pb.GetServerInfoRequest, context: Context) -> pb.GetServerInfoReply:
        """Tell what this server is."""
        async with reporting(context, "info"):
            return pb.GetServerInfoReply(
                protocol_version=PROTOCOL_VERSION,
                version=version(),
                pid=os.getpid(),
                devices=[device_message(engine) for engine in self.engines],
                limits=self.limits.as_message(),
                options=sorted(OPTIONS),
                log_file=str(log_file()),
                jobs=self.queue.jobs,
                uptime_seconds=time.monotonic() - self._born,
            )

    async def _job(self, task: str, requests: Requests, context: Context) -> None:
        async with reporting(context, task):
            first = await self._next(requests)
            if first is None or first.WhichOneof("body") != "header":
                raise errors.RequestError("the first message must be a header, found none")
            with self.queue.admission():
                upload = Upload(first.header, self.limits, with_hole=task == "inpaint")
                if task == "upscale" and len(upload.boxes) > 1:
                    raise errors.RequestError(f"Upscale takes one box, got {len(upload.boxes)}")
                entry = await asyncio.to_thread(self.models.find, first.header.model, task)
                while (message := await self._next(requests)) is not None:
                    upload.add(message)
                upload.finish()
                work = Inpainting(upload, entry) if task == "inpaint" else Upscaling(upload, entry)
                job = Job(context.peer(), work, self.limits.idle_seconds)
                try:
                    async for reply in self._follow(job):
                        await self._write(context, reply)
                finally:
                    self.queue.withdraw(job)

    async def _next(self, requests: Requests) -> pb.JobRequest | None:
        """The client's next message; None at the end of its stream."""
        try:
            async with asyncio.timeout(self.limits.idle_seconds):  # wait_for of Python 3.11 can lose a cancellation
                return await anext(requests, None)
        except TimeoutError as error:
            raise errors.SilenceError(f"the client sent nothing for {self.limits.idle_seconds:g} seconds") from error

    async def _write(self, context: Context, reply: pb.JobReply) -> None:
        """Send a reply. Not by `yield`, which would wait for ever for a client that does not read."""
        try:
            async with asyncio.timeout(self.limits.idle_seconds):
                await context.write(reply)
        except TimeoutError as error:
            raise errors.SilenceError(f"the client read nothing for {self.limits.idle_seconds:g} seconds") from error

    async def _follow(self, job: Job) -> AsyncIterator[pb.JobReply]:
        """Submit a job and turn its events into replies, to the last."""
        self.queue.submit(job)
        waits = True
        while True:
            if waits:  # told again and again: a client may take silence for the server's end
                waits = job.started is None
                yield pb.JobReply(queued=pb.Queued(ahead=self.queue.ahead(job)))
            try:
                async with asyncio.timeout(QUEUE_NEWS_SECONDS if waits else None):
                    kind, value = await job.events.get()
            except TimeoutError:
                continue
            if kind == "error":
                raise value
            if kind == "part":
                index, samples = value
                for piece in rasters.split(rasters.encode_image(samples)):
                    yield pb.JobReply(band=pb.Band(box=index, image=piece))
                job.part_taken()
            elif kind == "notice":
                code, text = value
                yield pb.JobReply(notice=pb.Notice(code=code, text=text))
            elif kind == "progress":
                yield pb.JobReply(progress=pb.Progress(fraction=value))
            elif kind == "result":
                yield pb.JobReply(result=value)
            elif kind == "finished":
                queued, compute = value
                yield pb.JobReply(finished=pb.Finished(queued_seconds=queued, compute_seconds=compute))
                return


class Inpainting:
    """Fills the boxes of a request one after the other."""

    def __init__(self, upload: Upload, entry: ModelEntry) -> None:
        self.upload, self.entry = upload, entry

    def __call__(self, engine: Engine, job: Job) -> None:
        """Run on a worker. All is computed before the first row leaves, so a slow reader holds no worker."""
        upload, filled, done = self.upload, [], 0
        for index, box in enumerate(upload.boxes):
            hole = upload.hole(index)
            assert hole is not None  # finish() saw to it

            def progress(fraction: float, done: int = done, area: int = box.area) -> None:
                job.progress((done + fraction * area) / upload.pixels)

            filled.append(engine.inpaint(upload.image(index), hole, self.entry.name, progress, box, upload.texture))
            done += box.area
        job.send("result", result_message(engine, self.entry, upload.boxes, upload.picture))
        for index, samples in enumerate(filled):
            job.send("part", (index, samples))


class Upscaling:
    """Enlarges the box of a request; rows leave as they are done, so memory stays flat."""

    def __init__(self, upload: Upload, entry: ModelEntry) -> None:
        self.upload, self.entry = upload, entry

    def __call__(self, engine: Engine, job: Job) -> None:
        """Run on a worker."""
        upload, factor = self.upload, self.entry.factor
        picture = pb.Picture()
        picture.CopyFrom(upload.picture)
        picture.width, picture.height = picture.width * factor, picture.height * factor
        box = Box(*(factor * value for value in upload.boxes[0]))
        parts: Iterator[rasters.Array] = engine.upscale(upload.image(0), upload.hole(0), self.entry.name, job.progress)
        for index, samples in enumerate(parts):
            if index == 0:
                job.send("result", result_message(engine, self.entry, [box], picture))
            job.send_part("part", (0, np.ascontiguousarray(samples)))


@asynccontextmanager
async def reporting(context: Context, operation: str) -> AsyncIterator[None]:
    """Turn an error into its status, and log how the request ended. All statuses of the service are made here."""
    request_id, start, outcome = uuid.uuid4().hex[:12], time.monotonic(), "OK"
    context.set_trailing_metadata((("pconv-request-id", request_id),))
    try:
        yield
    except (asyncio.CancelledError, GeneratorExit):
        outcome = "CANCELLED"
        raise
    except Exception as caught:
        error = caught
        if is_out_of_memory(caught):  # outside of the network, which has its own fallbacks
            error = errors.LimitError(f"out of memory: close other programs, or send a smaller picture ({caught})")
        code = next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), grpc.StatusCode.INTERNAL)
        outcome, text = code.name, str(error)
        if code is grpc.StatusCode.INTERNAL:
            log.exception("bug", extra={"request": request_id})
            text = f"this is a bug of the server; please report it with request id {request_id} from {log_file()}"
        await context.abort(code, text)
    finally:
        log.info(
            operation,
            extra={
                "request": request_id,
                "client": context.peer(),
                "status": outcome,
                "seconds": round(time.monotonic() - start, 3),
            },
        )


def result_message(engine: Engine, entry: ModelEntry, boxes: Sequence[Box], picture: pb.Picture) -> pb.Result:
    """Say what comes, and who made it."""
    assert entry.info is not None
    return pb.Result(
        boxes=[pb.Box(x=box.x, y=box.y, width=box.width, height=box.height) for box in boxes],
        picture=picture,
        model=entry.name,
        sha256=entry.info.sha256,
        device=engine.device.name,
        precision=engine.device.precision,
    )


def model_message(entry: ModelEntry) -> pb.Model:
    """Describe a model."""
    message = pb.Model(name=entry.name, bytes=entry.size, problem=entry.problem, is_default=entry.is_default)
    if entry.info is not None:
        message.task, message.preset, message.sha256 = entry.info.task, entry.preset, entry.info.sha256
        message.parameters, message.provenance, message.factor = entry.info.parameters, entry.provenance, entry.factor
    return message


def device_message(engine: Engine) -> pb.Device:
    """Describe a device."""
    total, used = memory_bytes(engine.device.name)
    return pb.Device(
        name=engine.device.name,
        description=devices.describe(engine.device.name),
        precision=engine.device.precision,
        memory_bytes=total,
        memory_used_bytes=used,
    )
