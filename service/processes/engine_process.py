"""A process that owns a device: images and texts come in over a socket, and vectors go back.

The supervisor starts it, nobody else does. Inside it an `Engine` works as in a server of one process.
"""

import asyncio
import logging
import secrets
import socket
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from model.child_process import die_with
from model.errors import ModelError
from model.kernels.hardware import usable_cores
from model.memory import settle, starting
from service import logs
from service.canary.background import canary_of
from service.engine.cost.samples import CostSamples
from service.engine.device import Device, device_of
from service.engine.engine import Engine
from service.engine.under_way import EngineWatch
from service.limits import Limits, ModelFacts
from service.loading import load_runner, warm_up
from service.metrics import Metrics, name_process
from service.processes import messages
from service.processes.channel import Channel
from service.processes.exchange.job_server import JobServer
from service.processes.messages import StartEngine
from service.settings.names import SettingsError
from service.settings.settings import Settings
from service.watching.exits import EXIT_CANNOT_START, EXIT_LOST, EXIT_UNTRUE
from service.watching.tasks import name_main
from service.watching.watchdog import Watchdog

if TYPE_CHECKING:
    from model.running.runner import Runner

_HEARTBEAT_S = 1.0
# The longest that a pack may still run once the server has stopped.
_CLOSE_S = 10.0
# How long the first round of the canary may take after an engine that gave wrong vectors.
_PROVE_S = 600.0

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
        logs.leave(EXIT_LOST)

    def untrue(self, what: str) -> None:
        # At once: what is unanswered runs in the next process.
        self._channel.send(messages.Untrue(what))
        logs.leave(EXIT_UNTRUE)


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
        with starting(usable_cores()):
            runner, model = load(settings)
            limits = Limits.of(settings, model)
            cost = warm_up(runner, limits)
    except (ModelError, SettingsError) as error:
        channel.send(messages.StartFailed(str(error)))
        return EXIT_CANNOT_START
    metrics = Metrics()
    logs.count_lost(metrics.log_lines_lost.inc)
    if start.replaces:
        metrics.engine_restarts.labels(start.replaces).inc()
    engine = Engine(
        device(runner), model, limits, metrics=metrics, cost=cost, watch=_Record(channel),
        canary=canary_of(settings, model, limits, metrics), samples=CostSamples(model.geometry, limits),
    )  # fmt: skip
    if start.replaces == "untrue" and not engine.prove(timeout_s=_PROVE_S):
        channel.send(messages.StartFailed("the canary has not passed in time"))
        logs.leave(EXIT_UNTRUE)
    max_row_bytes = limits.max_batch_tokens * 3 * model.patch_size**2
    settle()
    watchdog = Watchdog(lambda: logs.leave(EXIT_LOST), hang_after_s=settings.hang_after_s)
    try:
        asyncio.run(_serve(engine, channel, start.secret, max_row_bytes, watchdog))
    except asyncio.CancelledError:
        _log.critical("this process must end: the main task of its event loop was cancelled")
        return EXIT_LOST
    watchdog.close()
    return 0 if engine.close(timeout_s=_CLOSE_S) else 1


def _settle(stop: "asyncio.Future[None]") -> None:
    if not stop.done():
        stop.set_result(None)


async def _serve(engine: Engine, channel: EngineChannel, secret: str, max_row_bytes: int, watchdog: Watchdog) -> None:
    name_main()
    loop = asyncio.get_running_loop()
    stop: asyncio.Future[None] = loop.create_future()
    channel.listen(lambda message: loop.call_soon_threadsafe(_settle, stop))
    watchdog.begin()
    # An abstract name leaves no file behind. A new name with every start: nothing that was meant for a process that has
    # died reaches its successor.
    address = f"packlight-{secrets.token_hex(16)}"
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.bind(f"\0{address}")
    listening.listen()
    jobs = JobServer(engine, listening, secret, max_row_bytes=max_row_bytes)
    channel.send(messages.Ready(engine.model, address))
    ending: list[asyncio.Future[Any]] = [stop, jobs.broken]
    while not any(each.done() for each in ending):
        channel.send(messages.Alive(time.monotonic()))
        jobs.send_news()
        await asyncio.wait(ending, timeout=_HEARTBEAT_S, return_when=asyncio.FIRST_COMPLETED)
    if jobs.broken.done():
        jobs.broken.result()
    jobs.close()
