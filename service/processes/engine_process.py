"""A process that owns a device: images come in over a socket, vectors go back, and the parent knows what it is doing.

Started by the supervisor, never by hand. Within it an `Engine` works as it does in a server of one process.
"""

import asyncio
import hmac
import logging
import os
import secrets
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING

import zmq
import zmq.asyncio

from model.errors import ModelError
from service import logs
from service.engine.client import ImageJob, ImageResult
from service.engine.engine import Engine
from service.engine.executor import EngineWatch
from service.errors import EngineFault, ServiceError
from service.limits import Limits, ModelFacts
from service.loading import load_runner, warm_up
from service.metrics import Metrics, name_process
from service.processes.channel import Channel, die_with
from service.processes.wire import CANCEL, EMBED, HELLO, EngineState, read_job, result_frames, state_frame
from service.settings import Settings, SettingsError

if TYPE_CHECKING:
    from model.running.runner import Runner

_HEARTBEAT_S = 1.0
# Of a message beside an image's rows.
_HEAD_BYTES = 64 * 1024

# What a pack may still take once the server has stopped.
_CLOSE_S = 10.0
_EXIT_LOST = 3

_log = logging.getLogger(__name__)

Loaded = tuple["Runner", ModelFacts]


class _Record(EngineWatch):
    """Tells the parent of every forward before it begins. The line is in the system's hands when `begins` returns, so
    it is known what was on the device however the process ends."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def begins(self, names: Sequence[str], predicted_s: float | None) -> None:
        self._channel.send({"begins": names, "predicted_s": predicted_s})

    def ends(self, *, succeeded: bool) -> None:
        self._channel.send({"ends": succeeded})

    def lost(self) -> None:
        # At once: images that this process leaves unanswered run again in the next one.
        os._exit(_EXIT_LOST)


class Door:
    """Takes jobs from whoever knows the secret, and answers each once."""

    def __init__(self, engine: Engine, socket: zmq.asyncio.Socket, secret: bytes) -> None:
        self._engine, self._socket, self._secret = engine, socket, secret
        self._known: set[bytes] = set()
        self._tasks: dict[tuple[bytes, int], asyncio.Task[None]] = {}
        self._tokens: Counter[bytes] = Counter()

    async def serve(self) -> None:
        while True:
            sender, kind, *frames = await self._socket.recv_multipart(copy=False)
            self._take(sender.bytes, kind.bytes, frames)

    async def tell_state(self) -> None:
        """To all: an engine that was busy for others when it was last heard of would not be sent anything again."""
        for sender in self._known:
            await self._socket.send_multipart([sender, state_frame(self._state_for(sender))])

    def _take(self, sender: bytes, kind: bytes, frames: Sequence[zmq.Frame]) -> None:
        if sender not in self._known:
            # From a stranger anything may come, and nothing else is looked at.
            if kind == HELLO and len(frames) == 1 and hmac.compare_digest(frames[0].bytes, self._secret):
                self._known.add(sender)
        elif kind == EMBED:
            number, job = read_job(frames[0].bytes, frames[1].buffer)
            self._tokens[sender] += job.tokens
            task = asyncio.get_running_loop().create_task(self._answer(sender, number, job))
            self._tasks[sender, number] = task
            # Not by the task itself: one that is cancelled before its first step never gets to its end.
            task.add_done_callback(partial(self._leave, sender, number, job.tokens))
        elif kind == CANCEL and (working := self._tasks.get((sender, int(frames[0].bytes)))):
            working.cancel()

    async def _answer(self, sender: bytes, number: int, job: ImageJob) -> None:
        outcome: ImageResult | ServiceError
        try:
            outcome = await self._engine.submit(job)
        except ServiceError as error:
            outcome = error
        except Exception:
            _log.exception("an image failed in the engine")
            outcome = EngineFault("the engine failed; nothing was charged")
        frames = [sender, state_frame(self._state_for(sender)), *result_frames(number, outcome)]
        await self._socket.send_multipart(frames, copy=False)

    def _leave(self, sender: bytes, number: int, tokens: int, task: "asyncio.Task[None]") -> None:
        del self._tasks[sender, number]
        self._tokens[sender] -= tokens

    def _state_for(self, sender: bytes) -> EngineState:
        others_tokens = self._tokens.total() - self._tokens[sender]
        return EngineState(self._engine.any_device_ready, self._engine.tokens_per_s, others_tokens, self._engine.cost)


def main(descriptor: str, load: Callable[[Settings], Loaded] = load_runner) -> int:
    """Runs until the parent says stop, or is gone. `descriptor`: of the inherited channel."""
    channel = Channel.inherited(descriptor)
    config = channel.receive()
    die_with(config["parent"])
    settings = Settings(**config["settings"])
    logs.configure(settings.log_format, settings.log_level, process=config["name"])
    name_process(config["name"])
    try:
        runner, model = load(settings)
        limits = Limits.of(settings, model)
        cost = warm_up(runner, limits)
    except (ModelError, SettingsError) as error:
        channel.send({"failed": str(error)})
        return 2
    metrics = Metrics()
    if config["replaces"]:
        metrics.engine_restarts.labels(config["replaces"]).inc()
    engine = Engine(
        runner, model, limits, metrics=metrics, max_wait_s=settings.max_wait_ms / 1000, cost=cost,
        watch=_Record(channel),
    )  # fmt: skip
    largest_bytes = limits.max_image_tokens * 3 * model.patch_size**2
    asyncio.run(_serve(engine, channel, config["secret"].encode(), largest_bytes))
    return 0 if engine.close(timeout_s=_CLOSE_S) else 1


async def _serve(engine: Engine, channel: Channel, secret: bytes, largest_bytes: int) -> None:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    channel.listen(lambda message: loop.call_soon_threadsafe(stop.set))
    with zmq.asyncio.Context() as context, context.socket(zmq.ROUTER) as socket:
        socket.set_hwm(0)
        socket.linger = 0
        # A name in the abstract space has no file whose permissions would keep others away.
        socket.setsockopt(zmq.IPC_FILTER_UID, os.getuid())
        socket.maxmsgsize = largest_bytes + _HEAD_BYTES
        # A name in the abstract space leaves no file behind, however the process ends; a new one with every start means
        # that nothing meant for a process that has died ever reaches its successor.
        address = f"ipc://@packlight-{secrets.token_hex(16)}"
        socket.bind(address)
        door = Door(engine, socket, secret)
        serving = asyncio.create_task(door.serve())
        channel.send({"ready": asdict(engine.model), "address": address})
        stopped = asyncio.create_task(stop.wait())
        while not stopped.done() and not serving.done():
            channel.send({"alive": time.monotonic()})
            await door.tell_state()
            await asyncio.wait([stopped, serving], timeout=_HEARTBEAT_S, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if serving.done():
            serving.result()
        serving.cancel()
