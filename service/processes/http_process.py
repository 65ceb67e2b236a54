"""A process that speaks HTTP and owns no device: one of those that share the port.

The supervisor starts it, nobody else does. It is a server of one process, except that its engines are elsewhere and its
limits are a part of the server's.
"""

import asyncio
import logging
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from model.child_process import die_with
from model.kernels.hardware import usable_cores
from model.memory import limit_arenas
from service import logs
from service.http.protocol.liveness import Liveness
from service.http.protocol.server import Server, config_of
from service.metrics import Metrics, name_process
from service.processes import messages
from service.processes.channel import Channel
from service.processes.messages import EngineDown, EngineUp, Moved, Reloaded, ServeModel, StartHttp, Stop
from service.processes.reloading.http import Models
from service.settings.settings import Settings
from service.tracing.switch import tracing_of
from service.watching import tasks
from service.watching.exits import EXIT_FORCED, EXIT_LOST
from service.watching.watchdog import LAST_ANSWERS_S, Silence, Watchdog

_log = logging.getLogger(__name__)


class _Worker(Server):
    """A server that its parent stops, not signals."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def main(channel_fd: str) -> int:
    """Runs until the parent says stop, or is gone. channel_fd: of the inherited end of the channel."""
    channel: Channel[messages.ToHttp] = Channel.inherited(channel_fd, messages.to_http)
    start = channel.receive()
    assert isinstance(start, StartHttp)  # no message: it would show the keys
    settings, metrics = _begun(start)

    def draining() -> bool:
        return server.should_exit

    def on_listening(address: str) -> None:
        models.start()
        parent.listen(asyncio.get_running_loop())
        channel.send(messages.Listening(address))
        watchdog.begin()

    def end() -> None:
        server.stop()
        time.sleep(LAST_ANSWERS_S)
        logs.leave(EXIT_LOST)

    def end_server() -> None:
        # The kernel ends all other processes with it.
        if os.getppid() == start.parent_pid:
            os.kill(start.parent_pid, signal.SIGKILL)
        end()

    limit_arenas(usable_cores())
    tracing = tracing_of(settings, metrics)
    models = Models(start, settings, metrics=metrics, draining=draining, tracing=tracing)
    watchdog = Watchdog(
        end, hang_after_s=settings.hang_after_s, on_beat=lambda: channel.send(messages.Alive(time.monotonic())),
        checks=[(lambda: parent.silence.look(), end_server), (lambda: models.look(settings.hang_after_s), end_server)],
    )  # fmt: skip
    app = Liveness(models.versions, lambda: watchdog.fault)
    server = _Worker(config_of(app, settings, metrics), on_listening=on_listening)
    parent = _Parent(channel, server, models, metrics, settings.hang_after_s)
    ran = server.ran([socket.socket(fileno=start.listening_fd)])
    watchdog.close()
    models.close()
    if tracing:
        tracing.close()
    if watchdog.fault or not ran:
        logs.leave(EXIT_LOST)
    return EXIT_FORCED if server.force_exit else 0


def _begun(start: StartHttp) -> tuple[Settings, Metrics]:
    """Ties this process to its parent, and has it log and count by its name."""
    die_with(start.parent_pid)
    settings = Settings(**start.settings).for_one_worker()
    logs.configure(settings.log_format, settings.log_level, process=start.name)
    name_process(start.name)
    metrics = Metrics(folder=os.environ["PROMETHEUS_MULTIPROC_DIR"])
    logs.count_lost(metrics.log_lines_lost.inc)
    if start.replaces:
        metrics.http_restarts.labels(start.replaces).inc()
    return settings, metrics


class _Parent:
    """What the parent says, and what is done about it. Belongs to the event loop. silence: how long it says nothing."""

    def __init__(
        self,
        channel: Channel[messages.ToHttp],
        server: Server,
        models: Models,
        metrics: Metrics,
        patience_s: float,
    ) -> None:
        self._channel, self._server, self._models, self._metrics = channel, server, models, metrics
        self._moving: asyncio.Task[None] | None = None
        self.silence = Silence("the parent process has said nothing for {} s, so the server ends", patience_s)

    def listen(self, loop: asyncio.AbstractEventLoop) -> None:
        """From now on."""

        def heard(message: messages.ToHttp) -> None:
            self.silence.heard()
            # The parent says that it lives until this process has ended, which its loop does first.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(self.heed, message)

        self._channel.listen(heard)

    def heed(self, message: messages.ToHttp) -> None:
        match message:
            case Stop():
                self._server.stop()
            case EngineUp() | EngineDown():
                # Behind the start of a task that takes up the model that this is news of.
                asyncio.get_running_loop().call_soon(self._models.heed, message)
            case ServeModel():
                # One after another: the parent waits for `Moved`.
                self._moving = tasks.keep(self._move(message), "change of model")
            case Reloaded():
                self._metrics.reloads.labels(message.outcome).inc()

    async def _move(self, served: ServeModel) -> None:
        try:
            await self._models.serve(served)
        except Exception:
            # The parent starts another process, which serves the new model.
            _log.exception(
                "this process cannot serve the model that was loaded; it ends when its requests are answered"
            )
            self._server.stop()
            return
        self._channel.send(Moved(served.number))
