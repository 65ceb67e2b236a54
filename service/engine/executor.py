"""Runs packs on the device and gives one outcome for each item, whatever goes wrong.

A pack that fails is halved and run again until the item at fault is found; only that item fails. Knows no queue, no
thread and no future.
"""

import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from model.errors import DeviceLost, DeviceOutOfMemory
from service.engine.client import Job
from service.engine.cost.fit import CostModel
from service.engine.device import Device
from service.engine.forward import Forward
from service.engine.outcomes import Outcome, fault_of, outcomes_of, with_pack_trace
from service.engine.pack_bound import RECOVERY_S, PackBound
from service.engine.pack_log import PackLog, PackReport
from service.engine.under_way import EngineWatch, ItemT, Submitted, UnderWay
from service.limits import Limits
from service.metrics import Metrics, PackItem
from service.priority import PRIORITIES

# After this many packs in a row without a single success the device is at fault, not the items.
_FAILING_AFTER_PACKS = 8

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Unsent:
    """An item for which nobody waits."""

    job: Job
    arrived_s: float = 0.0


class PackExecutor:
    """Runs packs, and measures how that goes.

    A pack goes through `begin`, `submit`, `wait` and `outcomes`, and after a fault through `recover`. `run` does all of
    it. Each pack may have a thread of its own, if they begin and submit one at a time.
    """

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
        self._metrics, self._clock = metrics, clock
        self.depth = device.depth
        self.under_way = UnderWay(device, watch=watch, clock=clock)
        self.cost = cost or CostModel()
        self.log = PackLog()
        # A server has several devices, and the engine of each may be started anew.
        self._life = secrets.token_hex(4)
        self._bound = PackBound(limits.max_batch_tokens, least=limits.max_item_tokens)
        self._counting = threading.Lock()
        self._failed_in_a_row = 0
        self._suspect: Job | None = None
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
        """While failing: runs a harmless job of the shape that failed last. If that works, the items were at fault.

        Nothing else is under way.
        """
        assert self._suspect is not None, "nothing has failed"
        try:
            self._run_unsent([self._suspect])
            self._failed_in_a_row = 0
        except DeviceLost:
            raise
        except Exception:
            _log.exception("the device fails on a harmless item as well")

    def sample(self, jobs: Sequence[Job]) -> None:
        """Runs jobs that nobody sent, to learn what they cost. Nothing else is under way."""
        try:
            pack, forward = self._run_unsent(jobs)
            with self._counting:
                self._count_cost(pack.squares, [item for job in jobs for item in job.items], forward)
        except DeviceLost:
            raise
        except Exception:
            _log.exception("a pack that was to show what packs cost has failed")

    def _run_unsent(self, jobs: Sequence[Job]) -> tuple[Submitted[_Unsent], Forward]:
        pack = self.begin([_Unsent(job) for job in jobs])
        self.submit(pack)
        return pack, self.wait(pack)

    def run(self, items: Sequence[ItemT]) -> Iterator[list[Outcome]]:
        """Yields outcomes as they come, in the order of the items.

        Raises `DeviceLost`; the items without an outcome by then have not been run.
        """
        pack = self.begin(items)
        self.submit(pack)
        yield from self.collect(pack)

    def begin(self, items: Sequence[ItemT]) -> Submitted[ItemT]:
        """A pack that has been chosen, and takes its place behind those under way."""
        return self.under_way.begin(items)

    def submit(self, pack: Submitted[ItemT]) -> None:
        """Hands it to the device. A fault shows in `wait`."""
        jobs = pack.jobs
        pack.squares = sum([length * length for job in jobs for length in job.lengths])
        pack.predicted_s = self._predicted_s(sum([job.tokens for job in jobs]), pack.squares)
        self.under_way.submit(pack)

    def wait(self, pack: Submitted[ItemT]) -> Forward:
        """Blocks until the device has run it. Raises what has gone wrong; `recover` takes that."""
        return self.under_way.wait(pack)

    def collect(self, pack: Submitted[ItemT]) -> Iterator[list[Outcome]]:
        """Waits for it and yields outcomes as `run` does."""
        try:
            outcomes = self.outcomes(pack, self.wait(pack))
        except DeviceLost:
            raise
        except Exception as error:
            yield from self.recover(pack, error)
        else:
            yield outcomes

    def outcomes(self, pack: Submitted[ItemT], forward: Forward) -> list[Outcome]:
        """Those of a pack that has run. Raises `ValueError` for an output that is not that of its items."""
        pack_id = f"{self._life}-{pack.number}"
        outcomes = with_pack_trace(pack.items, outcomes_of(pack.items, forward, pack_id), forward)
        jobs = pack.jobs
        items = [item for job in jobs for item in job.items]
        with self._counting:
            self._failed_in_a_row = 0
            with _bookkeeping():
                self._count_cost(pack.squares, items, forward)
            with _bookkeeping():
                self._count_success(jobs, items, forward, pack_id)
        return outcomes

    def recover(self, pack: Submitted[ItemT], error: Exception) -> Iterator[list[Outcome]]:
        """Runs what `wait` or `outcomes` has failed for again, in parts, and yields as `run` does."""
        # Another pack may have held the memory that this one lacked: nothing is concluded before it has run by itself.
        whole_again = pack.beside and isinstance(error, DeviceOutOfMemory)
        parts: list[tuple[Sequence[ItemT], Exception | None]] = [(pack.items, None if whole_again else error)]
        del error
        first = True
        while parts:
            items, fault = parts.pop()
            if fault is None:
                fault, outcomes = self._tried(items)
            if fault is None:
                yield outcomes
                continue
            with self._counting, _bookkeeping():
                self._count_fault(items, fault, first=first)
            first = False
            if len(items) > 1:
                parts += [(items[len(items) // 2 :], None), (items[: len(items) // 2], None)]
            else:
                # Nothing of the item itself is kept: its rows may be memory of a process that has ended.
                self._suspect = items[0].job.harmless()
                yield [fault_of(items[0].job, fault)]
            # Its frames keep this one, and this one its items.
            del fault

    def _tried(self, items: Sequence[ItemT]) -> tuple[Exception | None, list[Outcome]]:
        """Runs a part of a pack that has failed. Raises `DeviceLost`."""
        pack = self.begin(items)
        self.submit(pack)
        try:
            return None, self.outcomes(pack, self.wait(pack))
        except DeviceLost:
            raise
        except Exception as error:
            return error, []

    def _count_cost(self, squares: int, items: Sequence[PackItem], forward: Forward) -> None:
        """A device that works by itself says how long it took; otherwise arranging the pack is a part of its cost.

        squares: of the pack.
        """
        tokens = sum(item.tokens for item in items)
        self._metrics.device_busy_seconds.inc(forward.output.busy_s)
        if any(item.kind == "text" for item in items):
            self.cost.observe_rate(tokens, forward.taken_s)
        else:
            seconds = forward.output.busy_s if self.depth > 1 else forward.taken_s
            self.cost.observe(tokens, squares, seconds, taken_s=forward.taken_s)

    def _predicted_s(self, tokens: int, squares: int) -> float | None:
        """By the fit, or by the rate until there is a fit."""
        rate = self.cost.tokens_per_s
        if self.cost.fit is not None:
            return self.cost.fit.seconds(tokens, squares)
        return tokens / rate if rate else None

    def _count_fault(self, items: Sequence[ItemT], error: Exception, *, first: bool) -> None:
        """first: nothing of this pack has failed before. It is logged then, and counts once as failed."""
        out_of_memory = isinstance(error, DeviceOutOfMemory)
        if first:
            self._failed_in_a_row += 1
            tokens, now_s = sum(item.job.tokens for item in items), self._clock()
            _log.error(
                "a pack of %d items, %d tokens, failed; looking for the cause", len(items), tokens, exc_info=error
            )
            if out_of_memory and self._bound.out_of_memory(tokens, now_s):
                _log.warning(
                    "out of memory again: packs hold at most %d tokens, and more again after %g minutes without",
                    self._bound.tokens(now_s), RECOVERY_S / 60,
                )  # fmt: skip
            self._metrics.max_batch_tokens.set(self._bound.tokens(now_s))
        self._metrics.forward_faults.labels("out_of_memory" if out_of_memory else "exception").inc()

    def _count_success(self, jobs: Sequence[Job], items: Sequence[PackItem], forward: Forward, pack_id: str) -> None:
        max_batch_tokens = self.max_batch_tokens
        self._metrics.max_batch_tokens.set(max_batch_tokens)
        self._metrics.observe_pack(
            items, computed_tokens=forward.output.computed_tokens, max_batch_tokens=max_batch_tokens
        )
        if sent := [item for item in items if item.kind != "canary"]:
            self._metrics.stage_seconds.labels("pack").observe(forward.pack_s)
            self._metrics.stage_seconds.labels("forward").observe(forward.forward_s)
            for bulk in (False, True):
                tokens = sum(job.tokens for job in jobs if job.bulk == bulk and not job.canary)
                self._metrics.priority_tokens.labels(PRIORITIES[bulk]).inc(tokens)
            unsent_tokens = sum(item.tokens for item in items) - sum(item.tokens for item in sent)
            self._report(sent, jobs, forward, pack_id, unsent_tokens=unsent_tokens)

    def _report(
        self, items: Sequence[PackItem], jobs: Sequence[Job], forward: Forward, pack_id: str, *, unsent_tokens: int
    ) -> None:
        """items: those that somebody sent. unsent_tokens: of the canary."""
        self.log.add(
            PackReport.of(
                items,
                (picture for job in jobs for picture in job.pictures),
                id=pack_id,
                computed_tokens=forward.output.computed_tokens - unsent_tokens,
                pack_s=forward.pack_s,
                forward_s=forward.forward_s,
                ended_s=forward.ended_s,
            )
        )


@contextmanager
def _bookkeeping() -> Iterator[None]:
    """Logs what goes wrong in here and goes on: the items have run, and their answers do not depend on it."""
    try:
        yield
    except Exception:
        _log.exception("a pack could not be counted; its items are answered all the same")
