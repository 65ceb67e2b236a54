"""A process that speaks HTTP and owns no device: one of those that share the port.

Started by the supervisor, never by hand. Within it everything is as in a server of one process, but for the client of
the engines and for its limits, which are its share of the server's.
"""

import asyncio
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from service import logs
from service.http.app import create_app
from service.limits import ModelFacts
from service.metrics import Metrics, name_process
from service.processes.channel import Channel, die_with
from service.processes.remote import RemoteEngine
from service.processes.server import EXIT_FORCED, Server, config_of
from service.requests.decoder import Decoder
from service.settings import Settings


class _Worker(Server):
    """A server that is told by its parent when to stop, not by signals."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def main(descriptor: str) -> int:
    """Runs until the parent says stop, or is gone. `descriptor`: of the inherited channel."""
    channel = Channel.inherited(descriptor)
    config = channel.receive()
    die_with(config["parent"])
    settings = Settings(**config["settings"]).for_one_worker()
    logs.configure(settings.log_format, settings.log_level, process=config["name"])
    name_process(config["name"])
    metrics = Metrics(folder=os.environ["PROMETHEUS_MULTIPROC_DIR"])
    model = ModelFacts.of_plain(config["model"])
    # The process that owned the name before may have used the same numbers.
    name = f"{config['name']}:{os.getpid()}"
    client = RemoteEngine(
        model,
        name=name,
        addresses=config["engines"],
        backing_off=config["backing_off"],
        secret=config["secret"].encode(),
        metrics=metrics,
    )
    decoder = Decoder.of(settings, model.geometry)

    def draining() -> bool:
        return server.should_exit

    def listens(address: str) -> None:
        client.start()
        loop = asyncio.get_running_loop()
        channel.listen(lambda message: loop.call_soon_threadsafe(_heed, message, server, client))
        channel.send({"listening": address})

    app = create_app(settings, client, decoder, metrics, draining=draining)
    server = _Worker(config_of(app, settings, metrics), on_listening=listens)
    server.run(sockets=[socket.socket(fileno=config["socket"])])
    decoder.close()
    logging.shutdown()
    return EXIT_FORCED if server.force_exit else 0


def _heed(message: dict[str, Any], server: Server, client: RemoteEngine) -> None:
    """What the parent says: stop, or what became of an engine."""
    if "stop" in message:
        server.should_exit = True
    elif message["address"] is not None:
        client.engine_up(message["engine"], message["address"])
    else:
        client.engine_down(message["engine"], set(message["suspects"]), backing_off=message["backing_off"])
