"""The device as the engine uses it: a pack in, one outcome an image out, whatever goes wrong in between.

A pack that fails is halved and run again, down to the image at fault, which alone fails. Knows no queue, no thread and
no future; one caller at a time.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from model.errors import DeviceLost, DeviceOutOfMemory
from model.pack import PackedBatch, pack
from service.engine.client import ImageJob, ImageResult
from service.engine.cost import CostFit, CostModel
from service.errors import EngineFault, ServiceError
from service.limits import Limits
from service.metrics import Metrics

if TYPE_CHECKING:
    from model.running.runner import RunnerOutput

# So many packs in a row of which not one image could be run are the device's fault, not some image's.
_FAILING_AFTER_PACKS = 8
# How much the newest pack counts in the measured rate.
_RATE_WEIGHT = 0.2
# From so many packs on that were too much for the memory, packs are made smaller.
_LOWERED_AFTER_PACKS = 2

_log = logging.getLogger(__name__)


class PackRunner(Protocol):
    """What is asked of a `model.running.runner.Runner`."""

    def run(self, batch: PackedBatch, *, tokens: bool = False) -> "RunnerOutput":
        """Raises `DeviceOutOfMemory`, `DeviceLost`, or anything at all."""
        ...


class PackWatch(Protocol):
    """Is told of each forward before it begins and after it has ended: who watches knows what a dead device was at."""

    def begins(self, names: Sequence[str], predicted_s: float | None) -> None: ...

    def ends(self, *, succeeded: bool) -> None: ...


class Unwatched:
    """Nobody watches: the device dies with the process that would have."""

    def begins(self, names: Sequence[str], predicted_s: float | None) -> None:
        pass

    def ends(self, *, succeeded: bool) -> None:
        pass


class DeviceImage(Protocol):
    """An image that has its turn. arrived_s: when it was queued."""

    @property
    def job(self) -> ImageJob: ...

    @property
    def arrived_s(self) -> float: ...


Outcome = ImageResult | ServiceError


class Device:
    """Runs packs, and keeps count of how that goes."""

    def __init__(
        self,
        runner: PackRunner,
        limits: Limits,
        *,
        metrics: Metrics,
        watch: PackWatch,
        tokens_per_s: float | None = None,
        cost: CostModel | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """tokens_per_s: a rate to begin with. cost: what packs have cost so far."""
        self._runner, self._limits, self._metrics, self._watch, self._clock = runner, limits, metrics, watch, clock
        self._cost = cost or CostModel()
        self._packs_without_memory = 0
        self._failed_in_a_row = 0
        self._suspect: ImageJob | None = None
        self.max_batch_tokens = limits.max_batch_tokens
        self.running_since_s: float | None = None
        self.tokens_per_s = tokens_per_s
        metrics.max_batch_tokens.set(self.max_batch_tokens)

    @property
    def failing(self) -> bool:
        """True while nothing that is run succeeds."""
        return self._failed_in_a_row >= _FAILING_AFTER_PACKS

    @property
    def cost(self) -> CostFit | None:
        """None before enough packs have run."""
        return self._cost.fit

    def probe(self) -> None:
        """While failing: runs a gray picture of the shape that failed last. If it runs, pictures were at fault."""
        assert self._suspect is not None, "nothing has failed"
        gray = np.full_like(self._suspect.rows, 128)
        # Nobody's image, but a device may hang on it as on any.
        self._watch.begins([], None)
        try:
            self._runner.run(pack([gray], self._suspect.grids))
            self._failed_in_a_row = 0
        except DeviceLost:
            raise
        except Exception:
            _log.exception("the device fails on a gray picture as well")
        self._watch.ends(succeeded=not self.failing)

    def run(self, images: Sequence[DeviceImage]) -> Iterator[list[Outcome]]:
        """Outcomes in the order of the images, as they come about. Raises `DeviceLost`; what was not yielded by then
        has not been run."""
        parts = [list(images)]
        complained = False
        while parts:
            part = parts.pop()
            try:
                outcomes = self._forward(part)
                self._failed_in_a_row = 0
            except DeviceLost:
                raise
            except Exception as error:
                self._metrics.forward_faults.labels(_kind(error)).inc()
                if not complained:
                    complained = True
                    self._failed_in_a_row += 1
                    self._complain(part, error)
                if len(part) > 1:
                    parts += [part[len(part) // 2 :], part[: len(part) // 2]]
                    continue
                self._suspect = part[0].job
                outcomes = [_fault(part[0], error)]
            yield outcomes

    def _complain(self, part: Sequence[DeviceImage], error: Exception) -> None:
        """Once a pack, whatever becomes of its parts."""
        tokens = sum(image.job.tokens for image in part)
        _log.error("a pack of %d images, %d tokens, failed; looking for the cause", len(part), tokens, exc_info=error)
        if not isinstance(error, DeviceOutOfMemory):
            return
        self._packs_without_memory += 1
        lowered = max(self._limits.max_image_tokens, tokens * 3 // 4)
        if self._packs_without_memory >= _LOWERED_AFTER_PACKS and lowered < self.max_batch_tokens:
            _log.warning(
                "out of memory for the %dth time: packs hold at most %d tokens from now on; max_batch_tokens is %d",
                self._packs_without_memory, lowered, self._limits.max_batch_tokens,
            )  # fmt: skip
            self.max_batch_tokens = lowered
            self._metrics.max_batch_tokens.set(lowered)

    def _forward(self, images: Sequence[DeviceImage]) -> list[Outcome]:
        self.running_since_s = began_s = self._clock()
        self._watch.begins([image.job.name for image in images], self._predicted_s(images))
        try:
            batch = pack([image.job.rows for image in images], [grid for image in images for grid in image.job.grids])
            packed_s = self._clock()
            output = self._runner.run(batch, tokens=any(image.job.want_tokens for image in images))
            done_s = self._clock()
        except DeviceLost:
            # Not an end: what follows is that of the process, and these images were on the device.
            raise
        except Exception:
            self._watch.ends(succeeded=False)
            raise
        finally:
            self.running_since_s = None
        self._watch.ends(succeeded=True)
        outcomes = _outcomes(images, output, (began_s, packed_s - began_s, done_s - packed_s))
        self._observe(images, output.computed_tokens, packed_s - began_s, done_s - packed_s)
        return outcomes

    def _predicted_s(self, images: Sequence[DeviceImage]) -> float | None:
        """By the fit; by the rate, until there is one."""
        tokens = sum(image.job.tokens for image in images)
        if self.cost is not None:
            return self.cost.seconds(tokens, _squares(images))
        return tokens / self.tokens_per_s if self.tokens_per_s else None

    def _observe(self, images: Sequence[DeviceImage], computed_tokens: int, pack_s: float, forward_s: float) -> None:
        self._metrics.stage_seconds.labels("pack").observe(pack_s)
        self._metrics.stage_seconds.labels("forward").observe(forward_s)
        self._metrics.observe_pack(
            [image.job.tokens for image in images],
            [image.job.token_cap for image in images],
            computed_tokens=computed_tokens,
            max_batch_tokens=self.max_batch_tokens,
        )
        tokens, took_s = sum(image.job.tokens for image in images), pack_s + forward_s
        self._cost.observe(tokens, _squares(images), took_s)
        self.tokens_per_s = _followed(self.tokens_per_s, tokens / max(took_s, 1e-9))


def _followed(before: float | None, rate: float) -> float:
    return rate if before is None else before + _RATE_WEIGHT * (rate - before)


def _squares(images: Sequence[DeviceImage]) -> int:
    """Σn² over the segments of all images."""
    return sum(length**2 for image in images for length in image.job.lengths)


def _outcomes(
    images: Sequence[DeviceImage], output: "RunnerOutput", times: tuple[float, float, float]
) -> list[Outcome]:
    """Each image's rows of the output; its times are when its pack began, and how long packing and the forward took.

    An image whose vector overflowed has an error in its place: no index should ever take NaN in.
    """
    began_s, pack_s, forward_s = times
    outcomes: list[Outcome] = []
    segment = token = 0
    for image in images:
        next_segment, next_token = segment + len(image.job.grids), token + image.job.tokens
        pooled, tokens = output.pooled[segment:next_segment], None
        if len(pooled) != len(image.job.grids):
            raise ValueError(f"{len(output.pooled)} vectors came back for {len(images)} images")
        if image.job.want_tokens and output.tokens is not None:
            # A copy: a view would keep the whole pack's output in memory until the last answer is written.
            tokens = output.tokens[token // output.merged_tokens : next_token // output.merged_tokens].copy()
        if np.isfinite(pooled).all() and (tokens is None or np.isfinite(tokens).all()):
            outcomes.append(ImageResult(pooled, tokens, began_s - image.arrived_s, pack_s, forward_s))
        else:
            outcomes.append(EngineFault("this image's vectors are not finite numbers in the dtype served; try float32"))
        segment, token = next_segment, next_token
    return outcomes


def _kind(error: Exception) -> str:
    return "out_of_memory" if isinstance(error, DeviceOutOfMemory) else "exception"


def _fault(image: DeviceImage, error: Exception) -> EngineFault:
    if isinstance(error, DeviceOutOfMemory):
        return EngineFault(
            f"the device has no memory for an image of {image.job.tokens} tokens; ask for fewer (max_tokens)"
        )
    return EngineFault("the forward of this image failed; nothing was charged")
