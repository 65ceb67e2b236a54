"""One engine process as an HTTP process sees it: the connection, what the engine last said, what was sent to it."""

import asyncio
import logging
from collections.abc import Callable, Sequence

import msgspec
import zmq
import zmq.asyncio

from service.engine.pack_log import PackLog
from service.processes.messages import EngineState, Hello, TellPacks, encode
from service.processes.wire import Frames

_log = logging.getLogger(__name__)

Heard = Callable[["EngineLink", Sequence[memoryview]], None]


class EngineLink:
    """outstanding_tokens: of the images that were sent and are not answered. log: the packs that it told of."""

    def __init__(self, *, backing_off: bool) -> None:
        self._socket: zmq.asyncio.Socket | None = None
        self._reading: asyncio.Task[None] | None = None
        self.state = EngineState(ready=True, tokens_per_s=None, others_tokens=0)
        self.backing_off = backing_off
        self.outstanding_tokens = 0
        self.log = PackLog()

    @property
    def up(self) -> bool:
        return self._socket is not None

    @property
    def ready(self) -> bool:
        return self.up and self.state.ready

    @property
    def load_tokens(self) -> int:
        """What the engine has to do, as far as is known here."""
        return self.outstanding_tokens + self.state.others_tokens

    @property
    def tokens_per_s(self) -> float:
        """This process's part of the engine's rate."""
        mine = max(1, self.outstanding_tokens)
        return (self.state.tokens_per_s or 0.0) * mine / (mine + self.state.others_tokens)

    def connect(self, context: zmq.asyncio.Context, address: str, secret: str, heard: Heard) -> None:
        """heard: called with every message of the engine."""
        socket = context.socket(zmq.DEALER)
        # Admission bounds what is on the way; a bound here would only make a sender wait.
        socket.set_hwm(0)
        socket.linger = 0
        # Each life of an engine has its own address: nobody who takes a dead engine's address is spoken to.
        socket.reconnect_ivl = -1
        socket.connect(address)
        self._socket, self.backing_off = socket, False
        self.send([encode(Hello(secret))])
        self.state = msgspec.structs.replace(self.state, ready=True, others_tokens=0)
        self._reading = asyncio.get_running_loop().create_task(self._read(socket, heard))

    async def _read(self, socket: zmq.asyncio.Socket, heard: Heard) -> None:
        while True:
            frames = await socket.recv_multipart(copy=False)
            try:
                heard(self, [frame.buffer for frame in frames])
            except Exception:
                _log.exception("a reply of an engine cannot be read")

    def send(self, frames: Frames) -> None:
        """Never waits, because nothing bounds the queue. Small frames are copied, large ones are lent."""
        assert self._socket is not None, "an engine that is down was sent something"
        self._socket.send_multipart(frames, copy=False)

    def ask_packs(self) -> None:
        if self.up:
            self.send([encode(TellPacks(self.log.last_s))])

    def disconnect(self, *, backing_off: bool = False) -> None:
        if self._reading is not None:
            self._reading.cancel()
        if self._socket is not None:
            self._socket.close()
        self._socket = self._reading = None
        self.backing_off, self.outstanding_tokens = backing_off, 0
