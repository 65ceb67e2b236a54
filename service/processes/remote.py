"""The `EngineClient` of a process that owns no device: images go to engine processes, and again if one dies on them.

Every image that is not answered is kept here. An engine that dies leaves word of what was in its pack: those images run
again alone, and one that is there at a second death is at fault. Belongs to one event loop; is told when engines start
and die, and starts none.
"""

import asyncio
import itertools
import logging
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

import zmq
import zmq.asyncio

from service.engine.client import ImageJob, ImageResult
from service.engine.cost import CostFit
from service.errors import DeadlineExceeded, EngineFault, ServiceError, Unavailable
from service.limits import ModelFacts
from service.metrics import Metrics
from service.processes.wire import CANCEL, HELLO, EngineState, Frames, job_frames, read_result, read_state

_DEATHS_OF_THE_GUILTY = 2

_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Image:
    """An image that has not been answered. engine: where it is; None while it waits for one."""

    number: int
    job: ImageJob
    future: "asyncio.Future[ImageResult]"
    engine: "_Engine | None" = None
    deaths: int = 0


class _Engine:
    """One engine process, as seen from here. outstanding_tokens: of the images that are there."""

    def __init__(self, *, backing_off: bool) -> None:
        self._socket: zmq.asyncio.Socket | None = None
        self._reading: asyncio.Task[None] | None = None
        self.state = EngineState(ready=True, tokens_per_s=None, others_tokens=0)
        self.backing_off = backing_off
        self.outstanding_tokens = 0

    @property
    def up(self) -> bool:
        return self._socket is not None

    @property
    def load_tokens(self) -> int:
        """What it has to do, as far as is known here."""
        return self.outstanding_tokens + self.state.others_tokens

    @property
    def tokens_per_s(self) -> float:
        """The part of its rate that this process's images have."""
        mine = max(1, self.outstanding_tokens)
        return (self.state.tokens_per_s or 0.0) * mine / (mine + self.state.others_tokens)

    def connect(
        self, context: zmq.asyncio.Context, address: str, secret: bytes, heard: "Callable[[_Engine, Frames], None]"
    ) -> None:
        socket = context.socket(zmq.DEALER)
        # Admission bounds what is on the way; a bound here would only make a sender wait.
        socket.set_hwm(0)
        socket.linger = 0
        # Each life of an engine has an address of its own: whoever takes that of a dead one is not spoken to.
        socket.reconnect_ivl = -1
        socket.connect(address)
        socket.send_multipart([HELLO, secret])
        self._socket, self.backing_off = socket, False
        self.state = replace(self.state, ready=True, others_tokens=0)
        self._reading = asyncio.get_running_loop().create_task(self._read(socket, heard))

    async def _read(self, socket: zmq.asyncio.Socket, heard: "Callable[[_Engine, Frames], None]") -> None:
        while True:
            frames = await socket.recv_multipart(copy=False)
            try:
                heard(self, [frame.buffer for frame in frames])
            except Exception:
                _log.exception("a reply of an engine cannot be read")

    def send(self, frames: Frames) -> None:
        """Never waits, as there is no bound; small frames are copied, large ones lent."""
        assert self._socket is not None, "an engine that is down was sent something"
        self._socket.send_multipart(frames, copy=False)

    def disconnect(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
        if self._socket is not None:
            self._socket.close()
        self._socket = self._reading = None


class RemoteEngine:
    """Sends each image to the engine with the fewest tokens to do."""

    def __init__(
        self,
        model: ModelFacts,
        *,
        name: str,
        addresses: Sequence[str | None],
        backing_off: Sequence[bool] = (),
        secret: bytes,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """name: of this process among those that share the engines. addresses: of the engines that are up.
        backing_off: which of the others will not be for a while."""
        self._model, self._name, self._secret, self._metrics, self._clock = model, name, secret, metrics, clock
        self._addresses = addresses
        self._engines = [_Engine(backing_off=waits) for waits in backing_off or [False] * len(addresses)]
        self._context = zmq.asyncio.Context()
        self._numbers = itertools.count()
        self._images: dict[int, _Image] = {}
        self._closing = False

    @property
    def model(self) -> ModelFacts:
        return self._model

    @property
    def accepts_jobs(self) -> bool:
        return not self._closing and any(engine.up or not engine.backing_off for engine in self._engines)

    @property
    def any_device_ready(self) -> bool:
        return any(engine.up and engine.state.ready for engine in self._engines)

    @property
    def all_devices_ready(self) -> bool:
        return all(engine.up and engine.state.ready for engine in self._engines)

    @property
    def tokens_per_s(self) -> float | None:
        return sum(engine.tokens_per_s for engine in self._engines if engine.up) or None

    @property
    def cost(self) -> CostFit | None:
        """Of the engine that has run most packs; known from its first reply on."""
        costs = [engine.state.cost for engine in self._engines if engine.up and engine.state.cost]
        return max(costs, key=lambda cost: cost.packs, default=None)

    def start(self) -> None:
        for number, address in enumerate(self._addresses):
            if address is not None:
                self.engine_up(number, address)

    def engine_up(self, number: int, address: str) -> None:
        """An engine has started and waits at `address`: what waits for one goes there."""
        engine = self._engines[number]
        if engine.up:
            self.engine_down(number, (), backing_off=False)
        engine.connect(self._context, address, self._secret, self._heard)
        self._metrics.engine_up.set(self.all_devices_ready)
        for image in list(self._images.values()):
            if image.engine is None:
                self._send(image)

    def engine_down(self, number: int, suspects: Collection[str], *, backing_off: bool) -> None:
        """An engine has died, with `suspects` in its pack. Its images go elsewhere, or wait until it is back."""
        engine = self._engines[number]
        engine.disconnect()
        engine.backing_off, engine.outstanding_tokens = backing_off, 0
        self._metrics.engine_up.set(0)
        for image in [image for image in self._images.values() if image.engine is engine]:
            image.engine = None
            if image.job.name in suspects:
                image.deaths += 1
                image.job = replace(image.job, alone=True)
            if image.deaths >= _DEATHS_OF_THE_GUILTY:
                _fail(image, EngineFault("the engine died on this image, twice; nothing was charged"))
            elif image.job.deadline_s is not None and image.job.deadline_s <= self._clock():
                _fail(image, _too_late())
            else:
                self._send(image)

    async def submit(self, job: ImageJob) -> ImageResult:
        # Whether anything is let in is asked at the gate; what was let in waits for an engine until its deadline.
        if self._closing:
            raise Unavailable("the engine has stopped")
        number = next(self._numbers)
        image = _Image(number, replace(job, name=f"{self._name}:{number}"), asyncio.get_running_loop().create_future())
        self._images[number] = image
        self._send(image)
        try:
            return await self._result(image)
        finally:
            self._forget(image)

    async def _result(self, image: _Image) -> ImageResult:
        """An engine itself says when it is too late; while there is none, it is said here."""
        if image.job.deadline_s is not None:
            await asyncio.wait([image.future], timeout=image.job.deadline_s - self._clock())
            if not image.future.done() and image.engine is None:
                raise _too_late()
        return await image.future

    def _send(self, image: _Image) -> None:
        """To whichever engine has the least to do; with none up, the image waits."""
        up = [engine for engine in self._engines if engine.up]
        if up and not image.future.done():
            image.engine = engine = min(up, key=lambda engine: engine.load_tokens)
            engine.outstanding_tokens += image.job.tokens
            engine.send(job_frames(image.number, image.job))

    def _heard(self, engine: _Engine, frames: Frames) -> None:
        engine.state = read_state(frames[0])
        self._metrics.engine_up.set(self.all_devices_ready)
        if len(frames) == 1:
            return
        number, outcome = read_result(frames[1:])
        image = self._images.get(number)
        if image is None or image.engine is not engine:
            return  # it was given up while its answer was on the way
        image.engine = None
        engine.outstanding_tokens -= image.job.tokens
        if isinstance(outcome, ServiceError):
            _fail(image, outcome)
        elif not image.future.done():
            image.future.set_result(outcome)

    def _forget(self, image: _Image) -> None:
        del self._images[image.number]
        image.future.cancel()
        if image.engine is not None and image.engine.up:
            image.engine.outstanding_tokens -= image.job.tokens
            image.engine.send([CANCEL, b"%d" % image.number])

    def close(self, *, timeout_s: float) -> bool:
        self._closing = True
        for image in list(self._images.values()):
            _fail(image, Unavailable("the engine has stopped"))
        for engine in self._engines:
            engine.disconnect()
        self._context.term()
        return True


def _fail(image: _Image, error: ServiceError) -> None:
    if not image.future.done():
        image.future.set_exception(error)


def _too_late() -> DeadlineExceeded:
    return DeadlineExceeded("the deadline passed before the image's turn came (timeout_ms, default_timeout_ms)")
