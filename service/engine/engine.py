"""The thread that owns a device: it takes a pack from the queue, runs it, and hands each item its result.

This is the `EngineClient` within one process. Event loops add to the queue under a lock and are called back through
`call_soon_threadsafe`; they share nothing else with the thread.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

from service.engine.client import DocumentJob, ImageJob, Job, JobResult
from service.engine.cost import CostFit, CostModel
from service.engine.device import Device
from service.engine.executor import EngineWatch, Outcome, PackExecutor
from service.engine.pack_log import PackReport
from service.engine.scheduler import Decision, QueuedItem, Scheduler
from service.errors import DeadlineExceeded, EngineFault, ServiceError, Unavailable
from service.limits import Limits, ModelFacts
from service.metrics import Metrics

# A device that has run one pack for this long is not ready.
_STALLED_AFTER_S = 60.0

# Clients stop sending to a device on which everything fails. The probe finds out when it works again.
_PROBE_EVERY_S = 2.0
# Futures that are resolved in one turn of an event loop.
_RESOLVED_A_TURN = 128

_log = logging.getLogger(__name__)


class _Pending(QueuedItem):
    """A job in the queue, and where its result goes."""

    __slots__ = ("future", "job", "loop")

    def __init__(self, job: Job, *, arrived_s: float) -> None:
        super().__init__(tokens=job.tokens, arrived_s=arrived_s, deadline_s=job.deadline_s, alone=job.alone)
        self.job = job
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[JobResult] = self.loop.create_future()


class Engine:
    """An `EngineClient` whose device is driven by a thread of this process."""

    def __init__(
        self,
        device: Device,
        model: ModelFacts,
        limits: Limits,
        *,
        metrics: Metrics,
        max_wait_s: float = 0.0,
        cost: CostModel | None = None,
        watch: EngineWatch | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """cost: what is already known of the cost of packs."""
        self._model, self._metrics, self._clock = model, metrics, clock
        self._watch = watch or EngineWatch()
        self._executor = PackExecutor(device, limits, metrics=metrics, watch=self._watch, cost=cost, clock=clock)
        self._scheduler: Scheduler[_Pending] = Scheduler(
            max_batch_tokens=limits.max_batch_tokens, max_batch_items=limits.max_batch_items, max_wait_s=max_wait_s
        )
        self._changed = threading.Condition()  # guards the scheduler and `_closing`
        self._closing = False
        self._running: list[_Pending] = []  # items of the current pack that have no answer yet
        metrics.queue_images.set(0)
        self._thread = threading.Thread(target=self._main, name="engine", daemon=True)
        self._thread.start()
        metrics.engine_up.set(1)

    @property
    def model(self) -> ModelFacts:
        return self._model

    @property
    def accepts_jobs(self) -> bool:
        since_s = self._executor.running_since_s
        return self._thread.is_alive() and (since_s is None or self._clock() - since_s < _STALLED_AFTER_S)

    @property
    def any_device_ready(self) -> bool:
        return self.accepts_jobs and not self._executor.failing

    @property
    def all_devices_ready(self) -> bool:
        return self.any_device_ready

    @property
    def tokens_per_s(self) -> float | None:
        return self._executor.cost.tokens_per_s

    @property
    def cost(self) -> CostFit | None:
        return self._executor.cost.fit

    @property
    def packs(self) -> Sequence[Sequence[PackReport]]:
        return [self._executor.log.packs]

    def refresh_packs(self) -> None:
        """Nothing to ask for: the log is in this process."""

    async def submit(self, job: Job) -> JobResult:
        item = _Pending(job, arrived_s=self._clock())
        with self._changed:
            if self._closing:
                raise _stopped()
            self._scheduler.add(item)
            self._count_queue()
            self._changed.notify()
        try:
            # The deadline is for the start of its pack: once that runs, the result is waited for.
            if item.deadline_s is not None:
                await asyncio.wait([item.future], timeout=item.deadline_s - self._clock())
                if not item.future.done() and self._drop(item):
                    raise _too_late()
            return await item.future
        finally:
            self._drop(item)
            item.future.cancel()

    def _drop(self, item: _Pending) -> bool:
        """Removes an item from the queue, if it is still there. The lock decides, so no item is told that it is too
        late and then runs. Its rows are freed at once, because its tokens are free for others from here on."""
        with self._changed:
            dropped = self._scheduler.drop(item)
            if dropped and isinstance(item.job, ImageJob | DocumentJob):
                item.job = replace(item.job, rows=item.job.rows[:0].copy())
            self._count_queue()
            return dropped

    def _count_queue(self) -> None:
        self._metrics.queue_images.set(self._scheduler.queue_items)

    def close(self, *, timeout_s: float) -> bool:
        """Ends the engine; queued jobs fail with `Unavailable`. False if the device is still at work then."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _main(self) -> None:
        try:
            while self._step():
                pass
        except BaseException:
            _log.critical("the engine thread has died", exc_info=True)
            self._watch.lost()
        finally:
            _deliver([(item, _failed()) for item in self._running])
            self._stop_queue()

    def _step(self) -> bool:
        """Does what comes next, and keeps nothing of it afterwards. False once the engine is closing."""
        decision = self._next_decision()
        if decision is None:
            return False
        _deliver([(item, _too_late()) for item in decision.late])
        if decision.pack:
            self._run(decision.pack)
        elif self._executor.failing:
            self._executor.probe()
        return True

    def _next_decision(self) -> Decision[_Pending] | None:
        """Waits for something to do; None once the engine is closing."""
        with self._changed:
            while not self._closing:
                if (bound := self._executor.max_batch_tokens) != self._scheduler.max_batch_tokens:
                    self._scheduler.set_max_batch_tokens(bound)
                decision = self._scheduler.next_pack(self._clock(), tokens_per_s=self.tokens_per_s)
                self._count_queue()
                if decision.pack or decision.late:
                    return decision
                # Images that are held back show as well as a probe whether the device works again.
                probe_s = _PROBE_EVERY_S if self._executor.failing and decision.wait_s is None else None
                if not self._changed.wait(probe_s or decision.wait_s) and probe_s:
                    return decision
            return None

    def _run(self, items: Sequence[_Pending]) -> None:
        self._running = list(items)
        for outcomes in self._executor.run(items):
            done, self._running = self._running[: len(outcomes)], self._running[len(outcomes) :]
            _deliver(list(zip(done, outcomes, strict=True)))

    def _stop_queue(self) -> None:
        """Takes no more jobs, and fails the queued ones."""
        with self._changed:
            self._closing = True
            left = self._scheduler.drain()
            self._count_queue()
        self._metrics.engine_up.set(0)
        _deliver([(item, _stopped()) for item in left])


def _deliver(outcomes: Sequence[tuple[_Pending, Outcome]]) -> None:
    """Resolves futures with one call to each of their loops, however many items there are."""
    for loop in {item.loop for item, _ in outcomes}:
        its = [(item.future, outcome) for item, outcome in outcomes if item.loop is loop]
        # Nobody waits on a loop that has closed.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(_resolve, loop, its)


def _resolve(loop: asyncio.AbstractEventLoop, outcomes: Sequence[tuple["asyncio.Future[JobResult]", Outcome]]) -> None:
    """A pack may hold thousands of texts, whose callers would hold the loop if all went on at once."""
    if len(outcomes) > _RESOLVED_A_TURN:
        loop.call_soon(_resolve, loop, outcomes[_RESOLVED_A_TURN:])
    for future, outcome in outcomes[:_RESOLVED_A_TURN]:
        if future.done():
            continue
        if isinstance(outcome, ServiceError):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)


def _failed() -> EngineFault:
    return EngineFault("the device failed; nothing was charged")


def _stopped() -> Unavailable:
    return Unavailable("the engine has stopped")


def _too_late() -> DeadlineExceeded:
    return DeadlineExceeded(
        "the deadline passed before its turn came, or would have while it ran (timeout_ms, default_timeout_ms)"
    )
