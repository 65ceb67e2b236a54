"""A process that owns a device: images come in over a socket, vectors go back, and the parent knows what it is doing.

Started by the supervisor, never by hand. Within it an `Engine` works as it does in a server of one process.
"""

import asyncio
import hmac
import os
import secrets
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import zmq
import zmq.asyncio

from model.errors import ModelError
from service import logs
from service.channel import Channel, die_with
from service.client import ImageJob, ImageResult
from service.cost import CostModel
from service.engine import Engine
from service.errors import ServiceError
from service.limits import Limits, ModelFacts
from service.loading import load_runner, warm_up
from service.metrics import Metrics, name_process
from service.settings import Settings, SettingsError
from service.wire import CANCEL, EMBED, HELLO, EngineState, read_job, result_frames

if TYPE_CHECKING:
    from model.runner import Runner

HEARTBEAT_S = 1.0

# What a pack may still take once the server has stopped.
_CLOSE_S = 10.0
_EXIT_LOST = 3

Loaded = tuple["Runner", ModelFacts]


class _Record:
    """Tells the parent of every forward before it begins. The line is in the system's hands when `begins` returns, so
    it is known what was on the device however the process ends."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def begins(self, names: Sequence[str], predicted_s: float | None) -> None:
        self._channel.send({"begins": names, "predicted_s": predicted_s})

    def ends(self, *, succeeded: bool) -> None:
        self._channel.send({"ends": succeeded})


class _Door:
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

    def _take(self, sender: bytes, kind: bytes, frames: Sequence[zmq.Frame]) -> None:
        if kind == HELLO and hmac.compare_digest(frames[0].bytes, self._secret):
            self._known.add(sender)
        elif sender not in self._known:
            return
        elif kind == EMBED:
            number, job = read_job(frames[0].bytes, frames[1].buffer)
            self._tokens[sender] += job.tokens
            self._tasks[sender, number] = asyncio.get_running_loop().create_task(self._answer(sender, number, job))
        elif kind == CANCEL and (working := self._tasks.get((sender, int(frames[0].bytes)))):
            working.cancel()

    async def _answer(self, sender: bytes, number: int, job: ImageJob) -> None:
        outcome: ImageResult | ServiceError
        try:
            outcome = await self._engine.submit(job)
        except ServiceError as error:
            outcome = error
        finally:
            del self._tasks[sender, number]
            self._tokens[sender] -= job.tokens
        others_tokens = self._tokens.total() - self._tokens[sender]
        state = EngineState(self._engine.ready, self._engine.tokens_per_s, others_tokens, self._engine.cost)
        await self._socket.send_multipart([sender, *result_frames(number, outcome, state)], copy=False)


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
        limits = Limits.settle(settings, model)
        tokens_per_s = warm_up(runner, limits, cost := CostModel())
    except (ModelError, SettingsError) as error:
        channel.send({"failed": str(error)})
        return 2
    metrics = Metrics()
    if config["replaces"]:
        metrics.engine_restarts.labels(config["replaces"]).inc()
    engine = Engine(
        runner, model, limits, metrics=metrics, max_wait_s=settings.max_wait_ms / 1000, tokens_per_s=tokens_per_s,
        cost=cost, watch=_Record(channel), on_lost=lambda: os._exit(_EXIT_LOST),
    )  # fmt: skip
    asyncio.run(_serve(engine, channel, config))
    return 0 if engine.close(timeout_s=_CLOSE_S) else 1


async def _serve(engine: Engine, channel: Channel, config: dict[str, Any]) -> None:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    channel.listen(lambda message: loop.call_soon_threadsafe(stop.set))
    with zmq.asyncio.Context() as context, context.socket(zmq.ROUTER) as socket:
        socket.set_hwm(0)
        socket.linger = 0
        # A name in the abstract space leaves no file behind, however the process ends; a new one with every start means
        # that nothing meant for a process that has died ever reaches its successor.
        address = f"ipc://@packlight-{secrets.token_hex(16)}"
        socket.bind(address)
        door = asyncio.create_task(_Door(engine, socket, config["secret"].encode()).serve())
        channel.send({"ready": asdict(engine.model), "address": address})
        stopped = asyncio.create_task(stop.wait())
        while not stopped.done() and not door.done():
            channel.send({"alive": time.monotonic()})
            await asyncio.wait([stopped, door], timeout=HEARTBEAT_S, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        door.cancel()
        if not door.cancelled() and door.done():
            door.result()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
