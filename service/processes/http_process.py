"""A process that speaks HTTP and owns no device: one of those that share the port.

The supervisor starts it, nobody else does. It is a server of one process, except that its engines are elsewhere and its
limits are a part of the server's.
"""

import asyncio
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from model.child_process import die_with
from service import logs
from service.http.app import create_app
from service.http.protocol.server import Server, config_of
from service.limits import Limits, ModelFacts
from service.metrics import Metrics, name_process
from service.processes import messages
from service.processes.channel import Channel
from service.processes.exchange.remote import RemoteEngine
from service.processes.exchange.slab import Slab
from service.processes.messages import EngineDown, EngineUp, StartHttp, Stop
from service.requests.decoder import Decoder
from service.requests.text_reader import TextReader
from service.settings import Settings

EXIT_FORCED = 1

# The size of a slab over that of all rows that may be queued. Memory is taken as it is used.
_SLAB_ROOM = 1.25


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
    die_with(start.parent_pid)
    settings = Settings(**start.settings).for_one_worker()
    logs.configure(settings.log_format, settings.log_level, process=start.name)
    name_process(start.name)
    metrics = Metrics(folder=os.environ["PROMETHEUS_MULTIPROC_DIR"])
    slab = Slab(_slab_bytes(Limits.of(settings, start.model), start.model))
    client = RemoteEngine(
        start.model,
        # With the pid: an earlier process of this name may have numbered its images alike.
        name=f"{start.name}:{os.getpid()}",
        engines=start.engines,
        secret=start.secret,
        slab=slab,
        metrics=metrics,
    )
    decoder = Decoder.of(settings, start.model.geometry, rows=slab.rows)
    text_reader = TextReader.of(settings, start.model)

    def draining() -> bool:
        return server.should_exit

    def on_listening(address: str) -> None:
        client.start()
        loop = asyncio.get_running_loop()
        channel.listen(lambda message: loop.call_soon_threadsafe(_heed, message, server, client))
        channel.send(messages.Listening(address))

    app = create_app(settings, client, decoder, metrics, text_reader=text_reader, draining=draining)
    server = _Worker(config_of(app, settings, metrics), on_listening=on_listening)
    server.run(sockets=[socket.socket(fileno=start.listening_fd)])
    decoder.close()
    if text_reader:
        text_reader.close()
    logging.shutdown()
    return EXIT_FORCED if server.force_exit else 0


def _slab_bytes(limits: Limits, model: ModelFacts) -> int:
    """Room for the rows of all that is let in, and for the gaps between them."""
    return int(_SLAB_ROOM * limits.max_queue_tokens) * 3 * model.patch_size**2


def _heed(message: messages.ToHttp, server: Server, client: RemoteEngine) -> None:
    match message:
        case Stop():
            server.should_exit = True
        case EngineUp():
            client.engine_up(message.engine, message.address)
        case EngineDown():
            client.engine_down(message.engine, message.suspects, backing_off=message.backing_off)
