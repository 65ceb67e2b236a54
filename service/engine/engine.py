"""The threads that drive a device: they take packs from the queue, run them, and hand each item its result.

This is the `EngineClient` within one process. Event loops add to the queue under a lock and are called back through
`call_soon_threadsafe`; they share nothing else with the threads.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from model import threads
from model.memory import MemoryReturns
from service.engine.canary.packs import CanaryPacks
from service.engine.canary.turns import Canary, UntrueDevice
from service.engine.client import DocumentJob, ImageJob, Job, JobResult, Trust
from service.engine.cost.fit import CostFit, CostModel
from service.engine.cost.samples import CostSamples
from service.engine.delivery import LoopReceiver, Pending, Receiver, deliver, failed, stopped, too_late, untrue
from service.engine.device import Device
from service.engine.executor import PackExecutor
from service.engine.pack_log import PackReport
from service.engine.pipeline import Pack, Pipeline
from service.engine.scheduler import Decision, Scheduler
from service.engine.under_way import EngineWatch
from service.errors import ServiceError
from service.limits import Limits, ModelFacts
from service.metrics import Metrics
from service.watching.timers import timers

# A device that has run one pack for this long, and ten times as long as was expected of that pack, is not ready.
_STALLED_AFTER_S = 60.0

# Clients stop sending to a device on which everything fails. The probe finds out when it works again.
_PROBE_EVERY_S = 2.0
# Requests that come one after the other, with less between them, meet no sample.
_SAMPLE_AFTER_S = 0.1
# A pack that is not due yet is looked at again after half of the time, and after this at the earliest: the more is
# queued, the longer it takes to submit.
_SOONEST_LOOK_S = 0.0005
_PROVE_SLICE_S = 0.1

_log = logging.getLogger(__name__)


class Engine:
    """An `EngineClient` whose device is driven by threads of this process."""

    def __init__(
        self,
        device: Device,
        model: ModelFacts,
        limits: Limits,
        *,
        metrics: Metrics,
        cost: CostModel | None = None,
        watch: EngineWatch | None = None,
        canary: Canary | None = None,
        samples: CostSamples | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """cost: what is already known of the cost of packs. canary: None if nobody watches what the device computes.
        samples: packs to run once nothing has been asked for a moment; None for none."""
        self._model, self._metrics, self._clock = model, metrics, clock
        self._watch, self._canary = watch or EngineWatch(), canary
        self._executor = PackExecutor(device, limits, metrics=metrics, watch=self._watch, cost=cost, clock=clock)
        self._scheduler: Scheduler[Pending] = Scheduler(
            max_batch_tokens=limits.max_batch_tokens, max_batch_items=limits.max_batch_items,
            max_bulk_batch_tokens=limits.max_bulk_batch_tokens, max_wait_s=limits.max_wait_s,
            bulk_share=limits.bulk_share,
        )  # fmt: skip
        self._canaries = CanaryPacks(canary, self._scheduler, max_items=limits.max_batch_items, clock=clock)
        # Its lock guards the scheduler and `_closing` as well.
        self._pipeline = Pipeline(self._executor, canary)
        self._samples = samples
        self._memory = MemoryReturns()
        self._closing = self._dead = False
        self._untrue: str | None = None
        self._receiver: LoopReceiver | None = None  # of the loop that has submitted last
        metrics.queue_images.set(0)
        metrics.devices.set(1)
        metrics.engine_up.set(1)
        with self._pipeline.lock:  # no canary is judged before this object is whole
            self._threads = [threads.keep(self._main, f"engine-{number}") for number in range(device.depth)]

    @property
    def model(self) -> ModelFacts:
        return self._model

    @property
    def accepts_jobs(self) -> bool:
        return not self.fault and not self._dead and all(thread.is_alive() for thread in self._threads)

    @property
    def fault(self) -> str | None:
        """Why the device is given up; None unless it is at one pack for far too long."""
        late_s = self._executor.under_way.late_s(self._clock(), least_s=_STALLED_AFTER_S)
        return f"the device has been at one pack for {late_s:.0f} s" if late_s is not None else None

    @property
    def any_device_ready(self) -> bool:
        return self.accepts_jobs and not self._executor.failing

    @property
    def all_devices_ready(self) -> bool:
        return self.any_device_ready

    @property
    def trust(self) -> Trust:
        proven_s = math.inf if self._canary is None else self._canary.proven_s
        return Trust(self._untrue, int(self._untrue is not None), proven_s)

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
        loop = asyncio.get_running_loop()
        future: asyncio.Future[JobResult] = loop.create_future()
        receiver = self._receiver
        if receiver is None or receiver.loop is not loop:
            receiver = self._receiver = LoopReceiver(loop)
        item = Pending(job, receiver, arrived_s=self._clock())
        item.future = future
        self._add([item])
        late = timers()
        if item.deadline_s is not None:
            at_s = time.monotonic() + item.deadline_s - self._clock()
            late.set(future, at_s, partial(self._deadline_passed, item))
        try:
            return await future
        finally:
            late.clear(future)
            if future.cancelled():
                self.drop(item)

    def _deadline_passed(self, item: Pending) -> None:
        """The deadline is for the start of its pack: once that is chosen, the result is waited for."""
        if self.drop(item):
            item.receiver.receive([(item, too_late())])

    def enqueue(
        self, jobs: Sequence[Job], receiver: Receiver, futures: "Sequence[asyncio.Future[JobResult]]" = ()
    ) -> list[Pending]:
        """What `submit` does, for callers without a coroutine for each job: `receiver` gets one outcome for each job
        that is not dropped. futures: for a `LoopReceiver`. Raises `Unavailable` if the engine has stopped."""
        now_s = self._clock()
        items = [Pending(job, receiver, arrived_s=now_s) for job in jobs]
        for item, future in zip(items, futures, strict=False):
            item.future = future
        self._add(items)
        return items

    def _add(self, items: Sequence[Pending]) -> None:
        with self._pipeline.lock:
            if self._closing:
                raise self._ended()
            for item in items:
                self._scheduler.add(item)
            self._count_queue()
            self._pipeline.arrived(full=self._scheduler.fills_a_pack)

    def drop(self, item: Pending) -> bool:
        """Removes an item from the queue, if it is still there. The lock decides, so no item is told that it is too
        late and then runs. Its rows are freed at once, because its tokens are free for others from here on."""
        with self._pipeline.lock:
            dropped = self._scheduler.drop(item)
            if dropped and isinstance(item.job, ImageJob | DocumentJob):
                item.job = replace(item.job, rows=item.job.rows[:0].copy())
            self._count_queue()
            return dropped

    def _count_queue(self) -> None:
        self._metrics.queue_images.set(self._scheduler.queue_items)

    def close(self, *, timeout_s: float) -> bool:
        """Ends the engine; queued jobs fail with `Unavailable`. False if the device is still at work then."""
        end_s = time.monotonic() + timeout_s
        threads.let_go(*self._threads)
        self._stop_queue()
        for thread in self._threads:
            thread.join(max(0.0, end_s - time.monotonic()))
        if any(thread.is_alive() for thread in self._threads):
            return False
        if self._canary is not None:
            self._canary.close()
        # Who still has this object, as an open connection has the application of its last request, needs no model.
        self._executor.under_way.release()
        return True

    def _main(self) -> None:
        try:
            while self._step():
                pass
        except UntrueDevice as error:
            _log.critical("the canary has failed: %s; the engine answers nothing more (docs/canary.md)", error)
            self._untrue = str(error)
            threads.let_go(*self._threads)
            self._watch.untrue(self._untrue)
            self._die(untrue(self._untrue))
        except BaseException:
            _log.critical("the engine thread has died", exc_info=True)
            self._watch.lost()
            self._die(failed())
        finally:
            self._stop_queue()

    def _die(self, error: ServiceError) -> None:
        """error: what all get that are in packs."""
        self._dead = True
        with self._pipeline.lock:
            # Otherwise the other thread, which this wakes, would give the device a pack of the queue.
            self._closing = True
            left = self._pipeline.abandon()
        deliver([(item, error) for item in left])

    def _ended(self) -> ServiceError:
        return stopped() if self._untrue is None else untrue(self._untrue)

    def prove(self, *, timeout_s: float) -> bool:
        """Waits until a round of the canary has passed. False if it has failed, or has not passed in that time."""
        end_s = time.monotonic() + timeout_s
        while self._canary is not None and not self._canary.proven.wait(_PROVE_SLICE_S):
            if self._dead or time.monotonic() >= end_s:
                return False
        return not self._dead

    def _step(self) -> bool:
        """Does what comes next, and keeps nothing of it afterwards. False once the engine is closing."""
        with self._pipeline.lock:
            pack = self._next_pack()
            if pack is None and self._closing:
                return False
        if pack is None:
            self._pipeline.run_alone(self._executor.probe if self._executor.failing else self._run_sample)
            return True
        self._pipeline.submit(pack)
        while pack is not None:
            pack = self._pipeline.finish(pack, self._following)
            self._memory.work_done()
        return True

    def _run_sample(self) -> None:
        if self._samples is not None and self._samples.wanted(self._executor.cost):
            self._executor.sample(self._samples.take())

    @property
    def _sample_in_s(self) -> float | None:
        """After how long without a request the next sample is run; None if none is wanted."""
        return _SAMPLE_AFTER_S if self._samples is not None and self._samples.wanted(self._executor.cost) else None

    def _next_pack(self) -> Pack | None:
        """Waits for a pack that is due, and begins it. None once the engine is closing, or for something else to run
        alone: a probe, or a pack that shows its cost."""
        while not self._closing:
            if (bound := self._executor.max_batch_tokens) != self._scheduler.max_batch_tokens:
                self._scheduler.set_max_batch_tokens(bound)
            due_s = self._due_in_s()
            if math.isinf(due_s):
                self._pipeline.wait(None, heeds="device")
            elif due_s > 0 and self._scheduler.queue_items:
                self._pipeline.wait(max(due_s / 2, _SOONEST_LOOK_S), heeds="full")
            else:
                failing = self._executor.failing
                if not failing and (canaries := self._canaries.overdue()):
                    return self._pipeline.begin(canaries)
                decision = self._decide()
                if decision.pack:
                    return self._pipeline.begin(self._with_canaries(decision.pack))
                idle = decision.wait_s is None and self._pipeline.idle
                if idle and not failing and (canaries := self._canaries.alone()):
                    return self._pipeline.begin(canaries)
                # Images that are held back show as well as a probe whether the device works again.
                runs_alone_s = (_PROBE_EVERY_S if failing else self._sample_in_s) if idle else None
                seconds = self._canaries.wait_s(decision.wait_s) if runs_alone_s is None else runs_alone_s
                if decision.late or self._pipeline.wait(seconds, heeds="all"):
                    continue
                # Both threads may have waited so long.
                if runs_alone_s is not None and self._pipeline.idle:
                    self._pipeline.reserve()
                    return None
        return None

    def _following(self) -> Pack | None:
        """Begins the pack that takes the place of one that has ended, if choosing it later would let nobody in. Called
        under the lock, and does not wait."""
        executor, scheduler = self._executor, self._scheduler
        if self._closing or executor.failing or executor.max_batch_tokens != scheduler.max_batch_tokens:
            return None
        # A device that computes in the thread that waits gains nothing. An item that is `alone` waits for the others.
        if executor.depth == 1 or not scheduler.fills_a_pack or scheduler.starts_alone or self._due_in_s() > 0:
            return None
        if canaries := self._canaries.overdue():
            return self._pipeline.begin(canaries)
        decision = self._decide()
        return self._pipeline.begin(self._with_canaries(decision.pack)) if decision.pack else None

    def _with_canaries(self, items: list[Pending]) -> list[Pending]:
        return items if self._executor.failing else [*items, *self._canaries.beside(items)]

    def _due_in_s(self) -> float:
        tokens, full = self._scheduler.next_tokens, self._scheduler.fills_a_pack
        return self._pipeline.due_in_s(self._clock(), tokens, full=full)

    def _decide(self) -> Decision[Pending]:
        now_s = self._clock()
        free_s = self._executor.under_way.free_s(now_s)
        decision = self._scheduler.next_pack(now_s, tokens_per_s=self.tokens_per_s, free_s=free_s)
        self._count_queue()
        deliver([(item, too_late()) for item in decision.late])
        return decision

    def _stop_queue(self) -> None:
        """Takes no more jobs, and fails the queued ones. What is under way goes on."""
        with self._pipeline.lock:
            self._closing = True
            left = self._scheduler.drain()
            self._count_queue()
            self._pipeline.wake_all()
        self._metrics.engine_up.set(0)
        deliver([(item, self._ended()) for item in left])
