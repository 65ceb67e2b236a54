"""The thread that owns a device: it takes a pack from the queue, runs it, and hands each image its part.

An `EngineClient` within the process. Event loops add to the queue under a lock and are called back through
`call_soon_threadsafe`; nothing else is shared. Knows no HTTP, and of the device only that a runner runs packs.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

import numpy as np

from model.pack import PackedBatch, pack
from service.client import ImageJob, ImageResult
from service.errors import DeadlineExceeded, EngineFault, ServiceError, Unavailable
from service.limits import Limits, ModelFacts
from service.metrics import Metrics
from service.scheduler import Decision, QueuedImage, Scheduler

if TYPE_CHECKING:
    from model.runner import RunnerOutput

# A device that has been at one pack for this long has not answered lately.
_STALLED_AFTER_S = 60.0
# So many packs failing one after the other are the device's fault, not some image's.
_FAILING_AFTER_PACKS = 8
# How much the newest pack counts in the measured rate.
_RATE_WEIGHT = 0.2

_log = logging.getLogger(__name__)


class PackRunner(Protocol):
    """What the engine asks of a `model.runner.Runner`."""

    def run(self, batch: PackedBatch, *, tokens: bool = False) -> "RunnerOutput": ...


class _Pending(QueuedImage):
    """A job in the queue, and where its result goes. `waiting`: not yet taken into a pack, and not given up."""

    __slots__ = ("future", "loop", "plan", "rows", "waiting", "want_tokens")

    def __init__(self, job: ImageJob, *, arrived_s: float) -> None:
        super().__init__(tokens=job.plan.tokens, arrived_s=arrived_s, deadline_s=job.deadline_s)
        self.plan, self.rows, self.want_tokens = job.plan, job.rows, job.want_tokens
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[ImageResult] = self.loop.create_future()
        self.waiting = True


_Outcome = tuple[_Pending, ImageResult | ServiceError]


class Engine:
    """An `EngineClient` whose device is driven by a thread of this process."""

    def __init__(
        self,
        runner: PackRunner,
        model: ModelFacts,
        limits: Limits,
        *,
        metrics: Metrics,
        max_wait_s: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._runner, self._model, self._metrics, self._clock = runner, model, metrics, clock
        self._max_batch_tokens = limits.max_batch_tokens
        self._scheduler: Scheduler[_Pending] = Scheduler(
            max_batch_tokens=limits.max_batch_tokens, max_wait_s=max_wait_s
        )
        self._changed = threading.Condition()  # guards the scheduler, what waits in it, and `_closing`
        self._closing = False
        self._waiting = 0
        self._failed_in_a_row = 0
        self._running_since_s: float | None = None
        self._tokens_per_s: float | None = None
        self._thread = threading.Thread(target=self._main, name="engine", daemon=True)
        self._thread.start()
        metrics.engine_up.set(1)

    @property
    def model(self) -> ModelFacts:
        return self._model

    @property
    def alive(self) -> bool:
        since_s = self._running_since_s
        return self._thread.is_alive() and (since_s is None or self._clock() - since_s < _STALLED_AFTER_S)

    @property
    def ready(self) -> bool:
        return self.alive and self._failed_in_a_row < _FAILING_AFTER_PACKS

    @property
    def tokens_per_s(self) -> float | None:
        return self._tokens_per_s

    async def submit(self, job: ImageJob) -> ImageResult:
        image = _Pending(job, arrived_s=self._clock())
        with self._changed:
            if self._closing:
                raise _stopped()
            self._scheduler.add(image)
            self._waiting += 1
            self._metrics.queue_images.set(self._waiting)
            self._changed.notify()
        try:
            return await self._result(image)
        finally:
            self._give_up(image)
            image.future.cancel()

    async def _result(self, image: _Pending) -> ImageResult:
        """Waits until the deadline for an image's turn, and for ever once it has come."""
        if image.deadline_s is not None:
            await asyncio.wait([image.future], timeout=image.deadline_s - self._clock())
            if not image.future.done() and self._give_up(image):
                raise _too_late()
        return await image.future

    def _give_up(self, image: _Pending) -> bool:
        """Takes an image out of the queue, if it is still there. Decided under the lock: no image is told that it is
        too late and run all the same. Its rows go at once, since its tokens are free for others from here on."""
        with self._changed:
            given_up = image.waiting
            if given_up:
                image.gone, image.rows = True, image.rows[:0].copy()
                self._no_longer_waiting([image])
            return given_up

    def _no_longer_waiting(self, images: Sequence[_Pending]) -> None:
        for image in images:
            image.waiting = False
        self._waiting -= len(images)
        self._metrics.queue_images.set(self._waiting)

    def close(self, *, timeout_s: float) -> bool:
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _main(self) -> None:
        try:
            while (decision := self._next_decision()) is not None:
                _deliver([(image, _too_late()) for image in decision.late])
                if decision.pack:
                    self._run(decision.pack)
        except BaseException:
            _log.critical("the engine thread has died", exc_info=True)
        finally:
            self._fail_all_queued()

    def _next_decision(self) -> Decision[_Pending] | None:
        """Waits for something to do; None when the engine is closing."""
        with self._changed:
            while not self._closing:
                decision = self._scheduler.next_pack(self._clock())
                self._no_longer_waiting([*decision.pack, *decision.late])
                if decision.pack or decision.gone or decision.late:
                    return decision
                self._changed.wait(decision.wait_s)
            return None

    def _run(self, images: Sequence[_Pending]) -> None:
        """Every image of the pack is answered, whatever happens in here."""
        outcomes: list[_Outcome] = [(image, _failed()) for image in images]
        self._running_since_s = self._clock()
        try:
            outcomes = list(zip(images, self._forward(images), strict=True))
            self._failed_in_a_row = 0
        except Exception:
            self._failed_in_a_row += 1
            _log.exception("a pack of %d images failed", len(images))
        finally:
            self._running_since_s = None
            _deliver(outcomes)

    def _forward(self, images: Sequence[_Pending]) -> list[ImageResult | ServiceError]:
        began_s = self._clock()
        grids = [segment.grid for image in images for segment in image.plan.segments]
        batch = pack([image.rows for image in images], grids)
        packed_s = self._clock()
        output = self._runner.run(batch, tokens=any(image.want_tokens for image in images))
        done_s = self._clock()
        self._observe(images, output.computed_tokens, packed_s - began_s, done_s - packed_s)
        return _results(images, output, (began_s, packed_s - began_s, done_s - packed_s))

    def _observe(self, images: Sequence[_Pending], computed_tokens: int, pack_s: float, forward_s: float) -> None:
        self._metrics.stage_seconds.labels("pack").observe(pack_s)
        self._metrics.stage_seconds.labels("forward").observe(forward_s)
        self._metrics.observe_pack(
            [image.tokens for image in images],
            [image.plan.token_cap for image in images],
            computed_tokens=computed_tokens,
            max_batch_tokens=self._max_batch_tokens,
        )
        rate = sum(image.tokens for image in images) / max(pack_s + forward_s, 1e-9)
        before = self._tokens_per_s
        self._tokens_per_s = rate if before is None else before + _RATE_WEIGHT * (rate - before)

    def _fail_all_queued(self) -> None:
        with self._changed:
            self._closing = True
            left = [image for image in self._scheduler.drain() if image.waiting]
            self._no_longer_waiting(left)
        self._metrics.engine_up.set(0)
        _deliver([(image, _stopped()) for image in left])


def _results(
    images: Sequence[_Pending], output: "RunnerOutput", times: tuple[float, float, float]
) -> list[ImageResult | ServiceError]:
    """Each image's rows of the output; its times are when its pack began, and how long packing and the forward took.

    An image whose vector overflowed has an error in its place: no index should ever take NaN in.
    """
    began_s, pack_s, forward_s = times
    results: list[ImageResult | ServiceError] = []
    segment = token = 0
    for image in images:
        next_segment, next_token = segment + len(image.plan.segments), token + image.tokens
        pooled, tokens = output.pooled[segment:next_segment], None
        if image.want_tokens and output.tokens is not None:
            # A copy: a view would keep the whole pack's output in memory until the last answer is written.
            tokens = output.tokens[token:next_token].copy()
        if np.isfinite(pooled).all() and (tokens is None or np.isfinite(tokens).all()):
            results.append(ImageResult(pooled, tokens, began_s - image.arrived_s, pack_s, forward_s))
        else:
            results.append(EngineFault("this image's vectors are not finite numbers in the dtype served; try float32"))
        segment, token = next_segment, next_token
    return results


def _deliver(outcomes: Sequence[_Outcome]) -> None:
    """Resolves futures on the loops that wait for them: one call a loop, however many images."""
    loops = {image.loop for image, _ in outcomes}
    for loop in loops:
        mine = [(image.future, outcome) for image, outcome in outcomes if image.loop is loop]
        # A loop that has closed has nobody waiting on it.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(_resolve, mine)


def _resolve(outcomes: Sequence[tuple["asyncio.Future[ImageResult]", ImageResult | ServiceError]]) -> None:
    for future, outcome in outcomes:
        if future.done():
            continue
        if isinstance(outcome, ImageResult):
            future.set_result(outcome)
        else:
            future.set_exception(outcome)


def _failed() -> EngineFault:
    return EngineFault("the forward of this image's pack failed; nothing was charged")


def _stopped() -> Unavailable:
    return Unavailable("the engine has stopped")


def _too_late() -> DeadlineExceeded:
    return DeadlineExceeded("the deadline passed before the image's turn came (timeout_ms, default_timeout_ms)")
