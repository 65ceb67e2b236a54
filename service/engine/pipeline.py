"""The packs between the queue and the answers: how many are under way, when the next is due, who waits for them.

A device that computes in the thread that waits has one pack under way, and the engine's thread waits for it. A device
that works by itself has two. A second thread waits for their results then, checks and delivers them, and looks for what
is wrong in a pack that failed. The engine's thread chooses and submits meanwhile.
"""

import math
import threading
from collections.abc import Callable, Iterable, Sequence

from model.errors import DeviceLost
from service.engine.delivery import Pending, deliver
from service.engine.executor import PackExecutor
from service.engine.lead import Lead
from service.engine.outcomes import Outcome
from service.engine.under_way import Submitted

Pack = Submitted[Pending]


class Pipeline:
    """One device's packs. The engine's thread calls `due_in_s`, `begin` and `run`; the first two under the lock."""

    def __init__(
        self,
        executor: PackExecutor,
        lock: threading.Lock,
        changed: threading.Condition,
        *,
        on_death: Callable[[], None],
    ) -> None:
        """lock: guards what the two threads share. changed: a condition of it, notified when a pack has ended.
        on_death: called by the second thread where something ends it, while that is handled."""
        self._executor, self._lock, self._changed, self._on_death = executor, lock, changed, on_death
        self._submitted = threading.Condition(lock)
        self._lead = Lead()
        self._under_way: list[Pack] = []
        self._unanswered: list[Pack] = []  # those under way, and those whose answers are being made
        self._failed: list[tuple[Pack, Exception]] = []
        self._alone = self._recovering = self._closed = False
        self._thread: threading.Thread | None = None
        if executor.depth > 1:
            self._thread = threading.Thread(target=self._main, name="results", daemon=True)
            self._thread.start()

    @property
    def idle(self) -> bool:
        return not self._under_way and not self._recovering

    def due_in_s(self, now_s: float, tokens: int, *, full: bool) -> float:
        """Seconds until the next pack is to be chosen. Infinite if a pack must end before.

        tokens: of that pack, if it were chosen now. full: nothing is gained by choosing it later.
        """
        if self.idle:
            return 0.0
        if self._recovering or self._alone or len(self._under_way) >= self._executor.depth:
            return math.inf
        if full:
            return 0.0
        return max(0.0, self._executor.under_way.free_s(now_s) - self._lead.seconds(tokens) - now_s)

    def begin(self, items: Sequence[Pending]) -> Pack:
        """A pack that has been chosen. An item that is `alone` waits here until nothing else is under way: if the
        device dies then, it is at fault."""
        alone = any(item.alone for item in items)
        while alone and not self.idle and not self._closed:
            self._changed.wait()
        self._alone = alone
        pack = self._executor.begin(items)
        self._under_way.append(pack)
        self._unanswered.append(pack)
        return pack

    def run(self, pack: Pack) -> None:
        """Submits it. Where the device computes in the thread that waits, its items are answered afterwards."""
        self._executor.submit(pack)
        assert pack.submitted_s is not None
        self._lead.observe(sum(item.tokens for item in pack.items), pack.submitted_s - pack.began_s)
        if self._thread is None:
            self._finish(pack)
        else:
            with self._lock:
                self._submitted.notify()

    def close(self) -> None:
        """Nothing is begun any more. What is under way is answered."""
        with self._lock:
            self._closed = True
            self._submitted.notify()

    def join(self, timeout_s: float) -> bool:
        """After `close`. False if the device is still at work then."""
        if self._thread is not None:
            self._thread.join(timeout_s)
            return not self._thread.is_alive()
        return True

    def abandon(self) -> list[Pending]:
        """The device is lost. Returns the items without an answer, and perhaps some that have one."""
        with self._lock:
            self._closed = True
            items = [item for pack in self._unanswered for item in pack.items]
            self._under_way.clear()
            self._unanswered.clear()
            self._submitted.notify()
            self._changed.notify()
        return items

    def _main(self) -> None:
        try:
            while self._finish_next():
                pass
        except BaseException:
            self._on_death()

    def _finish_next(self) -> bool:
        """Keeps nothing of the pack afterwards. False once all are finished and no more will come."""
        with self._lock:
            while not (self._under_way and self._under_way[0].submitted_s is not None):
                if self._closed and not self._under_way:
                    return False
                self._submitted.wait()
            pack = self._under_way[0]
        self._finish(pack)
        return True

    def _finish(self, pack: Pack) -> None:
        """Waits for it and answers its items. If it failed, what is under way comes first: its parts run alone."""
        try:
            forward = self._executor.wait(pack)
            self._leave(pack)
            outcomes = self._executor.outcomes(pack, forward)
        except DeviceLost:
            raise
        except Exception as error:
            self._failed.append((pack, error))
            self._leave(pack, failed=True)
        else:
            self._answer(pack, [outcomes])
        with self._lock:
            recovers = bool(self._failed) and not self._under_way
        if recovers:
            self._recover()

    def _leave(self, pack: Pack, *, failed: bool = False) -> None:
        """The device has done with it, and the next one may be chosen; after a fault, no more for now."""
        with self._lock:
            if pack in self._under_way:
                self._under_way.remove(pack)
            self._alone = False
            self._recovering = self._recovering or failed
            self._changed.notify()

    def _recover(self) -> None:
        failed, self._failed = self._failed, []
        for pack, error in failed:
            self._answer(pack, self._executor.recover(pack, error))
        with self._lock:
            self._recovering = False
            self._changed.notify()

    def _answer(self, pack: Pack, parts: Iterable[list[Outcome]]) -> None:
        """parts: the outcomes of its items, in order."""
        items = list(pack.items)
        for outcomes in parts:
            done, items = items[: len(outcomes)], items[len(outcomes) :]
            deliver(list(zip(done, outcomes, strict=True)))
        with self._lock:
            if pack in self._unanswered:
                self._unanswered.remove(pack)
