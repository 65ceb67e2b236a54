"""The HTTP server of a process: uvicorn with our protocol, and what our processes ask of it at start and end."""

import asyncio
import logging
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from model.kernels.hardware import usable_cores
from model.memory import settle
from model.threads import ThreadPool
from service.http.paths import HEALTH_PATHS
from service.http.protocol.connection import bounded_protocol
from service.metrics import Metrics
from service.settings.settings import Settings
from service.watching.tasks import let_go, name_main

# Longer than the idle timeout of common load balancers, so that they close first and never write into a closed socket.
_KEEP_ALIVE_S = 75
# Threads that do what takes the event loop too long, such as writing a large answer: so many more than there are cores.
_MORE_HELPERS = 4

_log = logging.getLogger(__name__)


class Server(uvicorn.Server):
    """uvicorn, except that the first signal drains and exits with 0, and the second ends at once."""

    def __init__(self, config: uvicorn.Config, *, on_listening: Callable[[str], None] = lambda address: None) -> None:
        """on_listening: called on the event loop with the server's URL, once connections are taken."""
        super().__init__(config)
        self._on_listening = on_listening

    def ran(self, sockets: list[socket.socket]) -> bool:
        """Serves until it is told to stop. False if its main task ended otherwise."""
        try:
            self.run(sockets)
        except asyncio.CancelledError:
            _log.critical("this process must end: the main task of its event loop was cancelled")
            return False
        return True

    def stop(self) -> None:
        """New requests are refused, accepted ones finish. Does not wait for that."""
        self.should_exit = True

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            self.force_exit = True
        self.stop()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        # What a request holds never waits for the collector: see `errors.let_go`.
        settle()
        name_main()
        # Before requests need them: later the system may have no room for one.
        asyncio.get_running_loop().set_default_executor(ThreadPool(usable_cores() + _MORE_HELPERS, "helper"))
        await super().startup(sockets=sockets)
        for server in self.servers:
            for listening in server.sockets:
                host, port = listening.getsockname()[:2]
                self._on_listening(f"http://{f'[{host}]' if ':' in host else host}:{port}")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        _log.info("stopping: new requests are refused, accepted ones finish")
        await super().shutdown(sockets=sockets)
        # The loop cancels what is left, such as a reload.
        let_go()
        _log.info("stopped")


def config_of(app: ASGIApp, settings: Settings, metrics: Metrics) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        # One more process reads headers.
        http=bounded_protocol(
            settings.max_connections, metrics.refuse, processes=settings.decode_threads + 1, probe_paths=HEALTH_PATHS
        ),
        ws="none",
        # Nothing here uses the client's address.
        proxy_headers=False,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=max(1, round(settings.drain_s)),
    )
