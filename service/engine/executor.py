"""Runs a pack on the device and gives one outcome for each image, whatever goes wrong.

A pack that fails is halved and run again until the image at fault is found; only that image fails. Knows no queue, no
thread and no future. One caller at a time.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from model.errors import DeviceLost, DeviceOutOfMemory
from model.pack import PackedBatch, pack
from service.engine.client import ImageJob, JobResult
from service.engine.cost import CostModel
from service.engine.pack_bound import RECOVERY_S, PackBound
from service.errors import EngineFault, ServiceError
from service.limits import Limits
from service.metrics import Metrics

if TYPE_CHECKING:
    from model.running.output import RunnerOutput

# After this many packs in a row without a single success the device is at fault, not the images.
_FAILING_AFTER_PACKS = 8

_log = logging.getLogger(__name__)


class PackRunner(Protocol):
    """What is asked of a `model.running.runner.Runner`."""

    def run(self, batch: PackedBatch, *, tokens: bool = False) -> "RunnerOutput":
        """Raises `DeviceOutOfMemory`, `DeviceLost`, or any other exception."""
        ...


class EngineWatch:
    """Is told of each forward before it begins and after it ends, so that it knows what a dead device was running.

    This one ignores it all.
    """

    def begins(self, names: Sequence[str], predicted_s: float | None) -> None:
        """names: of the images in the pack."""

    def ends(self, *, succeeded: bool) -> None:
        """Not called if the device is lost."""

    def lost(self) -> None:
        """The engine's thread will run no more. Called by that thread, before anyone is answered."""


class ExecutorItem(Protocol):
    """An image to run. arrived_s: when it was queued."""

    @property
    def job(self) -> ImageJob: ...

    @property
    def arrived_s(self) -> float: ...


Outcome = JobResult | ServiceError


@dataclass(frozen=True, slots=True)
class _Forward:
    """One forward that succeeded. pack_s, forward_s: how long arranging the pack and running it took."""

    output: "RunnerOutput"
    began_s: float
    pack_s: float
    forward_s: float


class PackExecutor:
    """Runs packs, and measures how that goes."""

    def __init__(
        self,
        runner: PackRunner,
        limits: Limits,
        *,
        metrics: Metrics,
        watch: EngineWatch | None = None,
        cost: CostModel | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """cost: what is already known of the cost of packs."""
        self._runner, self._metrics, self._clock = runner, metrics, clock
        self._watch = watch or EngineWatch()
        self.cost = cost or CostModel()
        self._bound = PackBound(limits.max_batch_tokens, least=limits.max_image_tokens)
        self._failed_in_a_row = 0
        self._suspect: ImageJob | None = None
        self.running_since_s: float | None = None
        metrics.max_batch_tokens.set(limits.max_batch_tokens)

    @property
    def failing(self) -> bool:
        """True while nothing that is run succeeds."""
        return self._failed_in_a_row >= _FAILING_AFTER_PACKS

    @property
    def max_batch_tokens(self) -> int:
        """What a pack may hold now: less than the limit after packs ran out of memory."""
        return self._bound.tokens(self._clock())

    def probe(self) -> None:
        """While failing: runs a gray picture of the shape that failed last. If that works, the images were at fault."""
        assert self._suspect is not None, "nothing has failed"
        gray = replace(self._suspect, rows=np.full_like(self._suspect.rows, 128), want_tokens=False, name="")
        try:
            self._forward([gray])
            self._failed_in_a_row = 0
        except DeviceLost:
            raise
        except Exception:
            _log.exception("the device fails on a gray picture as well")

    def run(self, images: Sequence[ExecutorItem]) -> Iterator[list[Outcome]]:
        """Yields outcomes as they come, in the order of the images.

        Raises `DeviceLost`; the images without an outcome by then have not been run.
        """
        parts = [list(images)]
        failed = False
        while parts:
            part = parts.pop()
            try:
                forward = self._forward([image.job for image in part])
                outcomes = _outcomes(part, forward)
            except DeviceLost:
                raise
            except Exception as error:
                with _bookkeeping():
                    self._count_fault(part, error, first=not failed)
                failed = True
                if len(part) > 1:
                    parts += [part[len(part) // 2 :], part[: len(part) // 2]]
                    continue
                self._suspect = part[0].job
                outcomes = [_fault(part[0], error)]
            else:
                self._failed_in_a_row = 0
                with _bookkeeping():
                    jobs = [image.job for image in part]
                    self.cost.observe(_tokens(part), _squares(jobs), forward.pack_s + forward.forward_s)
                with _bookkeeping():
                    self._count_success(part, forward)
            yield outcomes

    def _forward(self, jobs: Sequence[ImageJob]) -> _Forward:
        self.running_since_s = began_s = self._clock()
        self._watch.begins([job.name for job in jobs if job.name], self._predicted_s(jobs))
        try:
            batch = pack([job.rows for job in jobs], [grid for job in jobs for grid in job.grids])
            packed_s = self._clock()
            output = self._runner.run(batch, tokens=any(job.want_tokens for job in jobs))
            done_s = self._clock()
        except DeviceLost:
            # The watch is not told of an end: the process ends with these images on the device.
            raise
        except Exception:
            self._watch.ends(succeeded=False)
            raise
        finally:
            self.running_since_s = None
        self._watch.ends(succeeded=True)
        return _Forward(output, began_s, packed_s - began_s, done_s - packed_s)

    def _predicted_s(self, jobs: Sequence[ImageJob]) -> float | None:
        """By the fit, or by the rate until there is a fit."""
        tokens, rate = sum(job.tokens for job in jobs), self.cost.tokens_per_s
        if self.cost.fit is not None:
            return self.cost.fit.seconds(tokens, _squares(jobs))
        return tokens / rate if rate else None

    def _count_fault(self, part: Sequence[ExecutorItem], error: Exception, *, first: bool) -> None:
        """first: nothing of this pack has failed before. It is logged then, and counts once as failed."""
        out_of_memory = isinstance(error, DeviceOutOfMemory)
        if first:
            self._failed_in_a_row += 1
            tokens, now_s = _tokens(part), self._clock()
            _log.error(
                "a pack of %d images, %d tokens, failed; looking for the cause", len(part), tokens, exc_info=error
            )
            if out_of_memory and self._bound.out_of_memory(tokens, now_s):
                _log.warning(
                    "out of memory again: packs hold at most %d tokens, and more again after %g minutes without",
                    self._bound.tokens(now_s), RECOVERY_S / 60,
                )  # fmt: skip
            self._metrics.max_batch_tokens.set(self._bound.tokens(now_s))
        self._metrics.forward_faults.labels("out_of_memory" if out_of_memory else "exception").inc()

    def _count_success(self, images: Sequence[ExecutorItem], forward: _Forward) -> None:
        max_batch_tokens = self.max_batch_tokens
        self._metrics.max_batch_tokens.set(max_batch_tokens)
        self._metrics.stage_seconds.labels("pack").observe(forward.pack_s)
        self._metrics.stage_seconds.labels("forward").observe(forward.forward_s)
        self._metrics.observe_pack(
            [image.job.tokens for image in images],
            [image.job.token_cap for image in images],
            computed_tokens=forward.output.computed_tokens,
            max_batch_tokens=max_batch_tokens,
        )


@contextmanager
def _bookkeeping() -> Iterator[None]:
    """Logs what goes wrong in here and goes on: the images have run, and their answers do not depend on it."""
    try:
        yield
    except Exception:
        _log.exception("a pack could not be counted; its images are answered all the same")


def _tokens(images: Sequence[ExecutorItem]) -> int:
    return sum(image.job.tokens for image in images)


def _squares(jobs: Sequence[ImageJob]) -> int:
    """Σn² over the segments of all images."""
    return sum(length**2 for job in jobs for length in job.lengths)


def _outcomes(images: Sequence[ExecutorItem], forward: _Forward) -> list[Outcome]:
    """Each image's rows of the output. An image whose vector overflowed gets an error: NaN must not reach an index.

    Raises `ValueError` if the output has another number of vectors than the images have segments.
    """
    output = forward.output
    outcomes: list[Outcome] = []
    segment = token = 0
    for image in images:
        next_segment, next_token = segment + len(image.job.grids), token + image.job.tokens
        pooled, tokens = output.pooled[segment:next_segment], None
        if len(pooled) != len(image.job.grids):
            raise ValueError(f"{len(output.pooled)} vectors came back for {len(images)} images")
        if image.job.want_tokens and output.tokens is not None:
            # A view would keep the whole pack's output in memory until the last answer is written.
            tokens = output.tokens[token // output.merged_tokens : next_token // output.merged_tokens].copy()
        if np.isfinite(pooled).all() and (tokens is None or np.isfinite(tokens).all()):
            queue_s = forward.began_s - image.arrived_s
            outcomes.append(JobResult(pooled, tokens, queue_s, forward.pack_s, forward.forward_s))
        else:
            outcomes.append(EngineFault("this image's vectors are not finite numbers in the dtype served; try float32"))
        segment, token = next_segment, next_token
    return outcomes


def _fault(image: ExecutorItem, error: Exception) -> EngineFault:
    if isinstance(error, DeviceOutOfMemory):
        return EngineFault(
            f"the device has no memory for an image of {image.job.tokens} tokens; ask for fewer (max_tokens)"
        )
    return EngineFault("the forward of this image failed; nothing was charged")
