"""A process that owns a device: images and texts come in over a socket, and vectors go back.

The supervisor starts it, nobody else does. Inside it an `Engine` works as in a server of one process.
"""

import asyncio
import hmac
import logging
import os
import secrets
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import zmq
import zmq.asyncio

from model.child_process import die_with
from model.errors import ModelError
from service import logs
from service.engine.client import JobResult
from service.engine.device import Device, device_of
from service.engine.engine import Engine
from service.engine.under_way import EngineWatch
from service.errors import EngineFault, ServiceError
from service.limits import Limits, ModelFacts
from service.loading import load_runner, warm_up
from service.metrics import Metrics, name_process
from service.processes import messages
from service.processes.channel import Channel
from service.processes.messages import (
    Cancel,
    Embed,
    EmbedDocument,
    EmbedText,
    EngineState,
    Hello,
    MalformedMessage,
    StartEngine,
    TellPacks,
)
from service.processes.wire import Head, job_tokens, read_job, reply_frames
from service.settings import Settings, SettingsError

if TYPE_CHECKING:
    from model.running.runner import Runner

_HEARTBEAT_S = 1.0
# The most that a message has beside an image's rows.
_HEAD_BYTES = 64 * 1024
# The longest that a pack may still run once the server has stopped.
_CLOSE_S = 10.0
_EXIT_LOST = 3

_log = logging.getLogger(__name__)

Loaded = tuple["Runner", ModelFacts]
EngineChannel = Channel[messages.ToEngine]


class _Record(EngineWatch):
    """Tells the parent of every pack before it is submitted. The system has the message when `begins` returns, so the
    parent knows what was on the device however the process ends."""

    def __init__(self, channel: EngineChannel) -> None:
        self._channel = channel

    def begins(self, number: int, names: Sequence[str], predicted_s: float | None) -> None:
        self._channel.send(messages.PackBegins(number, list(names), predicted_s))

    def ends(self, number: int, *, succeeded: bool) -> None:
        self._channel.send(messages.PackEnds(number, succeeded))

    def lost(self) -> None:
        # At once: images that this process leaves unanswered run again in the next one.
        os._exit(_EXIT_LOST)


class JobServer:
    """Takes jobs from every process that knows the secret, and answers each job once."""

    def __init__(self, engine: Engine, socket: zmq.asyncio.Socket, secret: str) -> None:
        self._engine, self._socket, self._secret = engine, socket, secret.encode()
        self._known: set[bytes] = set()
        self._tasks: dict[tuple[bytes, int], asyncio.Task[None]] = {}
        self._tokens: Counter[bytes] = Counter()

    async def serve(self) -> None:
        """Until cancelled."""
        while True:
            sender, head, *arrays = await self._socket.recv_multipart(copy=False)
            self._take(sender.bytes, head.buffer, arrays)

    async def send_news(self) -> None:
        """To all senders: without it, one that last heard of a busy engine would never use the engine again."""
        for sender in list(self._known):
            await self._socket.send_multipart([sender, messages.encode(messages.News(self._state_for(sender)))])

    def _take(self, sender: bytes, head: memoryview, arrays: Sequence[zmq.Frame]) -> None:
        if sender not in self._known:
            # A stranger may send anything.
            with suppress(MalformedMessage):
                self._greet(sender, messages.request(head))
            return
        match messages.request(head):
            case Embed() | EmbedText() | EmbedDocument() as job:
                tokens = job_tokens(job)
                self._tokens[sender] += tokens
                task = asyncio.get_running_loop().create_task(self._answer(sender, job, arrays))
                self._tasks[sender, job.number] = task
                # A callback, because a task that is cancelled before its first step runs no code of its own.
                task.add_done_callback(partial(self._forget, sender, job.number, tokens))
            case Cancel(number=number) if working := self._tasks.get((sender, number)):
                working.cancel()
            case TellPacks(ended_s=ended_s):
                packs = [pack for device in self._engine.packs for pack in device if pack.ended_s > ended_s]
                # Never waits, because nothing bounds the queue.
                self._socket.send_multipart([sender, messages.encode(messages.Packs(self._state_for(sender), packs))])

    def _greet(self, sender: bytes, message: messages.Request) -> None:
        if isinstance(message, Hello) and hmac.compare_digest(message.secret.encode(), self._secret):
            self._known.add(sender)

    async def _answer(self, sender: bytes, job: Head, arrays: Sequence[zmq.Frame]) -> None:
        outcome: JobResult | ServiceError
        try:
            outcome = await self._engine.submit(read_job(job, [array.buffer for array in arrays]))
        except ServiceError as error:
            outcome = error
        except Exception:
            _log.exception("a job failed in the engine")
            outcome = EngineFault("the engine failed; nothing was charged")
        frames = reply_frames(self._state_for(sender), job.number, outcome)
        await self._socket.send_multipart([sender, *frames], copy=False)

    def _forget(self, sender: bytes, number: int, tokens: int, task: "asyncio.Task[None]") -> None:
        del self._tasks[sender, number]
        self._tokens[sender] -= tokens

    def _state_for(self, sender: bytes) -> EngineState:
        others_tokens = self._tokens.total() - self._tokens[sender]
        return EngineState(self._engine.any_device_ready, self._engine.tokens_per_s, others_tokens, self._engine.cost)


def main(
    channel_fd: str,
    load: Callable[[Settings], Loaded] = load_runner,
    device: Callable[["Runner"], Device] = device_of,
) -> int:
    """Runs until the parent says stop, or is gone. channel_fd: of the inherited end of the channel. device: makes
    what runs the packs."""
    channel: EngineChannel = Channel.inherited(channel_fd, messages.to_engine)
    start = channel.receive()
    assert isinstance(start, StartEngine)  # no message: it would show the secret
    die_with(start.parent_pid)
    settings = Settings(**start.settings)
    logs.configure(settings.log_format, settings.log_level, process=start.name)
    name_process(start.name)
    try:
        runner, model = load(settings)
        limits = Limits.of(settings, model)
        cost = warm_up(runner, limits)
    except (ModelError, SettingsError) as error:
        channel.send(messages.StartFailed(str(error)))
        return 2
    metrics = Metrics()
    if start.replaces:
        metrics.engine_restarts.labels(start.replaces).inc()
    engine = Engine(
        device(runner), model, limits, metrics=metrics, max_wait_s=settings.max_wait_ms / 1000, cost=cost,
        watch=_Record(channel),
    )  # fmt: skip
    largest_bytes = limits.max_image_tokens * 3 * model.patch_size**2
    asyncio.run(_serve(engine, channel, start.secret, largest_bytes))
    return 0 if engine.close(timeout_s=_CLOSE_S) else 1


async def _serve(engine: Engine, channel: EngineChannel, secret: str, largest_bytes: int) -> None:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    channel.listen(lambda message: loop.call_soon_threadsafe(stop.set))
    with zmq.asyncio.Context() as context, context.socket(zmq.ROUTER) as socket:
        socket.set_hwm(0)
        socket.linger = 0
        # An abstract name has no file whose permissions would keep other users away.
        socket.setsockopt(zmq.IPC_FILTER_UID, os.getuid())
        socket.maxmsgsize = largest_bytes + _HEAD_BYTES
        # An abstract name leaves no file behind. A new name with every start: nothing that was meant for a process that
        # has died reaches its successor.
        address = f"ipc://@packlight-{secrets.token_hex(16)}"
        socket.bind(address)
        jobs = JobServer(engine, socket, secret)
        serving = asyncio.create_task(jobs.serve())
        channel.send(messages.Ready(engine.model, address))
        stopped = asyncio.create_task(stop.wait())
        while not stopped.done() and not serving.done():
            channel.send(messages.Alive(time.monotonic()))
            await jobs.send_news()
            await asyncio.wait([stopped, serving], timeout=_HEARTBEAT_S, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if serving.done():
            serving.result()
        serving.cancel()
