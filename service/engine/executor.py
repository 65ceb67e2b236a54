"""Runs a pack on the device and gives one outcome for each item, whatever goes wrong.

A pack that fails is halved and run again until the item at fault is found; only that item fails. Knows no queue, no
thread and no future. One caller at a time.
"""

import itertools
import logging
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from model.errors import DeviceLost, DeviceOutOfMemory
from service.engine.client import Job, JobResult
from service.engine.cost import CostModel
from service.engine.device import Device, PackUnderWay
from service.engine.forward import JobPackOutput, JobVectors
from service.engine.pack_bound import RECOVERY_S, PackBound
from service.engine.pack_log import PackLog, PackReport
from service.errors import EngineFault, ServiceError
from service.limits import Limits
from service.metrics import ItemKind, Metrics, PackItem

# After this many packs in a row without a single success the device is at fault, not the items.
_FAILING_AFTER_PACKS = 8

_log = logging.getLogger(__name__)


class EngineWatch:
    """Is told of each forward before it begins and after it ends, so that it knows what a dead device was running.

    This one ignores it all.
    """

    def begins(self, names: Sequence[str], predicted_s: float | None) -> None:
        """names: of the items in the pack."""

    def ends(self, *, succeeded: bool) -> None:
        """Not called if the device is lost."""

    def lost(self) -> None:
        """The engine's thread will run no more. Called by that thread, before anyone is answered."""


class ExecutorItem(Protocol):
    """An image or a text to run. arrived_s: when it was queued."""

    @property
    def job(self) -> Job: ...

    @property
    def arrived_s(self) -> float: ...


Outcome = JobResult | ServiceError


@dataclass(frozen=True, slots=True)
class _Forward:
    """One pack that succeeded. id: no other has it. pack_s, forward_s: how long arranging it and running it took."""

    id: str
    output: JobPackOutput
    began_s: float
    pack_s: float
    forward_s: float


class PackExecutor:
    """Runs packs, and measures how that goes."""

    def __init__(
        self,
        device: Device,
        limits: Limits,
        *,
        metrics: Metrics,
        watch: EngineWatch | None = None,
        cost: CostModel | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """cost: what is already known of the cost of packs."""
        self._device, self._metrics, self._clock = device, metrics, clock
        self._watch = watch or EngineWatch()
        self.cost = cost or CostModel()
        self.log = PackLog()
        # A server has several devices, and the engine of each may be started anew.
        self._life, self._numbers = secrets.token_hex(4), itertools.count(1)
        self._bound = PackBound(limits.max_batch_tokens, least=limits.max_item_tokens)
        self._failed_in_a_row = 0
        self._suspect: Job | None = None
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
        """While failing: runs a harmless job of the shape that failed last. If that works, the items were at fault."""
        assert self._suspect is not None, "nothing has failed"
        try:
            self._forward([self._suspect.harmless()])
            self._failed_in_a_row = 0
        except DeviceLost:
            raise
        except Exception:
            _log.exception("the device fails on a harmless item as well")

    def run(self, items: Sequence[ExecutorItem], pack: PackUnderWay | None = None) -> Iterator[list[Outcome]]:
        """Yields outcomes as they come, in the order of the items.

        pack: the items' jobs, if another thread has submitted them already. Raises `DeviceLost`; the items without an
        outcome by then have not been run.
        """
        parts = [list(items)]
        failed = False
        while parts:
            part = parts.pop()
            try:
                forward = self._forward([item.job for item in part], pack)
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
                    self._count_cost([item.job for item in part], forward.pack_s + forward.forward_s)
                with _bookkeeping():
                    self._count_success([item.job for item in part], forward)
            finally:
                pack = None  # what follows are parts of it
            yield outcomes

    def _forward(self, jobs: Sequence[Job], pack: PackUnderWay | None = None) -> _Forward:
        self.running_since_s = began_s = self._clock()
        self._watch.begins([job.name for job in jobs if job.name], self._predicted_s(jobs))
        try:
            pack = pack or self._device.submit(jobs)
            packed_s = self._clock()
            output = pack.wait()
            done_s = self._clock()
        except DeviceLost:
            # The watch is not told of an end: the process ends with these items on the device.
            raise
        except Exception:
            self._watch.ends(succeeded=False)
            raise
        finally:
            self.running_since_s = None
        self._watch.ends(succeeded=True)
        return _Forward(f"{self._life}-{next(self._numbers)}", output, began_s, packed_s - began_s, done_s - packed_s)

    def _count_cost(self, jobs: Sequence[Job], seconds: float) -> None:
        tokens = sum(job.tokens for job in jobs)
        if any(item.kind == "text" for job in jobs for item in job.items):
            self.cost.observe_rate(tokens, seconds)
        else:
            self.cost.observe(tokens, _squares(jobs), seconds)

    def _predicted_s(self, jobs: Sequence[Job]) -> float | None:
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
                "a pack of %d items, %d tokens, failed; looking for the cause", len(part), tokens, exc_info=error
            )
            if out_of_memory and self._bound.out_of_memory(tokens, now_s):
                _log.warning(
                    "out of memory again: packs hold at most %d tokens, and more again after %g minutes without",
                    self._bound.tokens(now_s), RECOVERY_S / 60,
                )  # fmt: skip
            self._metrics.max_batch_tokens.set(self._bound.tokens(now_s))
        self._metrics.forward_faults.labels("out_of_memory" if out_of_memory else "exception").inc()

    def _count_success(self, jobs: Sequence[Job], forward: _Forward) -> None:
        max_batch_tokens = self.max_batch_tokens
        self._metrics.max_batch_tokens.set(max_batch_tokens)
        self._metrics.stage_seconds.labels("pack").observe(forward.pack_s)
        self._metrics.stage_seconds.labels("forward").observe(forward.forward_s)
        items = [item for job in jobs for item in job.items]
        self._metrics.observe_pack(
            items, computed_tokens=forward.output.computed_tokens, max_batch_tokens=max_batch_tokens
        )
        self._report(items, jobs, forward)

    def _report(self, items: Sequence[PackItem], jobs: Sequence[Job], forward: _Forward) -> None:
        self.log.add(
            PackReport.of(
                items,
                (picture for job in jobs for picture in job.pictures),
                id=forward.id,
                computed_tokens=forward.output.computed_tokens,
                pack_s=forward.pack_s,
                forward_s=forward.forward_s,
                ended_s=forward.began_s + forward.pack_s + forward.forward_s,
            )
        )


@contextmanager
def _bookkeeping() -> Iterator[None]:
    """Logs what goes wrong in here and goes on: the items have run, and their answers do not depend on it."""
    try:
        yield
    except Exception:
        _log.exception("a pack could not be counted; its items are answered all the same")


def _tokens(items: Sequence[ExecutorItem]) -> int:
    return sum(item.job.tokens for item in items)


def _squares(jobs: Sequence[Job]) -> int:
    """Σn² over the segments of all items."""
    return sum(length**2 for job in jobs for length in job.lengths)


def _outcomes(items: Sequence[ExecutorItem], forward: _Forward) -> list[Outcome]:
    """An item gets an error if a vector of it is no vector: NaN and zeros must not reach an index.

    Raises `ValueError` if the device gave fewer vectors than the items have segments.
    """
    outcomes: list[Outcome] = []
    for item, vectors in zip(items, forward.output.vectors(), strict=True):
        if vectors.have_directions:
            queue_s = forward.began_s - item.arrived_s
            times = (queue_s, forward.pack_s, forward.forward_s)
            outcomes.append(JobResult(vectors.pooled, vectors.tokens, *times, forward.id))
        else:
            outcomes.append(_no_vector(item.job.kind, vectors))
    return outcomes


def _no_vector(kind: ItemKind, vectors: JobVectors) -> EngineFault:
    message = f"the model's output for this {kind} is no vector: {vectors.fault}"
    _log.error("%s", message)
    return EngineFault(message)


def _fault(item: ExecutorItem, error: Exception) -> EngineFault:
    if isinstance(error, DeviceOutOfMemory):
        if item.job.kind == "text":
            return EngineFault("the device has no memory for a single text")
        what = "an image" if len(item.job.items) == 1 else "an input"
        return EngineFault(
            f"the device has no memory for {what} of {item.job.tokens} tokens; ask for fewer (max_tokens)"
        )
    return EngineFault(f"the forward of this {item.job.kind} failed; nothing was charged")
