"""Interactive and bulk images in one scheduler: examples of each rule, shares, and what must hold in any order."""

import math
import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from service.engine.queue.room import QueuedItem
from service.engine.scheduler import Scheduler
from tests.examples import many

INTERACTIVE, BULK = False, True


def image(tokens: int, bulk: bool = INTERACTIVE, *, deadline_s: float | None = None, alone: bool = False) -> QueuedItem:
    return QueuedItem(tokens, 0.0, deadline_s, bulk=bulk, alone=alone)


def queue(
    images: Sequence[QueuedItem], *, share: float = 0.25, tokens: int = 16, **options: Any
) -> Scheduler[QueuedItem]:
    scheduler: Scheduler[QueuedItem] = Scheduler(max_batch_tokens=tokens, bulk_share=share, **options)
    for queued in images:
        scheduler.add(queued)
    return scheduler


def next_pack(scheduler: Scheduler[QueuedItem]) -> tuple[list[int], list[int]]:
    """Tokens of the interactive images in the next pack, and of the bulk ones."""
    pack = scheduler.next_pack(0.0).pack
    return [each.tokens for each in pack if not each.bulk], [each.tokens for each in pack if each.bulk]


def test_an_interactive_image_goes_ahead_of_bulk_that_came_before():
    scheduler = queue([*(image(4, BULK) for _ in range(8)), image(2)])
    assert next_pack(scheduler) == ([2], [4])


def test_a_pack_is_cut_short_for_an_interactive_image():
    scheduler = queue([*(image(1, BULK) for _ in range(40)), image(2)])
    assert next_pack(scheduler) == ([2], [1] * 4)
    assert next_pack(scheduler) == ([], [1] * 16)


def test_interactive_images_leave_bulk_its_share_of_a_pack():
    scheduler = queue([*(image(2) for _ in range(20)), *(image(2, BULK) for _ in range(20))])
    assert next_pack(scheduler) == ([2] * 6, [2, 2])


def test_a_class_alone_has_whole_packs():
    assert next_pack(queue([image(4, BULK) for _ in range(5)])) == ([], [4] * 4)
    assert next_pack(queue([image(4) for _ in range(5)])) == ([4] * 4, [])


def test_interactive_images_take_what_bulk_leaves_of_its_share():
    assert next_pack(queue([image(1, BULK), *(image(5) for _ in range(4))])) == ([5, 5, 5], [1])


def test_a_bulk_image_over_its_share_of_a_pack_goes_once_as_much_is_owed():
    scheduler = queue([image(10, BULK), *(image(4) for _ in range(40))])
    packs = [next_pack(scheduler) for _ in range(3)]
    assert packs == [([4] * 4, []), ([4] * 4, []), ([4], [10])]


def test_a_bulk_image_that_fits_beside_no_interactive_one_goes_after_a_whole_pack_is_owed():
    scheduler = queue([image(14, BULK), *(image(4) for _ in range(40))])
    assert [next_pack(scheduler)[1] for _ in range(5)] == [[], [], [], [14], []]


def test_with_one_image_a_pack_bulk_has_its_share_of_the_packs():
    images = [image(1 + number % 3, number % 2 == 0) for number in range(200)]
    scheduler = queue(images, max_batch_items=1)
    bulk = [bool(next_pack(scheduler)[1]) for _ in range(60)]
    assert bulk == [False, False, False, True] * 15


@pytest.mark.parametrize("share", [0.1, 0.3, 0.4, 0.45])
def test_over_many_packs_of_one_image_the_share_is_exact(share: float) -> None:
    scheduler = queue([image(100, bulk) for bulk in (BULK, INTERACTIVE) for _ in range(200)], share=share, tokens=100)
    packs = [next_pack(scheduler) for _ in range(200)]
    assert sum(len(bulk) for _, bulk in packs) == round(200 * share)
    assert not any(bulk and after for (_, bulk), (_, after) in zip(packs, packs[1:], strict=False))


def test_a_bulk_image_of_a_whole_pack_goes_with_the_tenth_pack_if_its_share_is_a_tenth():
    whole = 16_384
    scheduler = queue([image(whole, BULK), *(image(whole) for _ in range(20))], share=0.1, tokens=whole)
    assert [bool(next_pack(scheduler)[1]) for _ in range(10)] == [False] * 9 + [True]


def test_bulk_alone_is_bounded_apart():
    scheduler = queue([image(4, BULK) for _ in range(6)], max_bulk_batch_tokens=9)
    assert next_pack(scheduler) == ([], [4, 4])
    assert next_pack(queue([image(12, BULK), image(1, BULK)], max_bulk_batch_tokens=9)) == ([], [12])


def test_an_image_that_is_alone_shares_its_pack_with_no_class():
    scheduler = queue([image(1, BULK, alone=True), *(image(2) for _ in range(40))])
    packs = [next_pack(scheduler) for _ in range(4)]
    assert packs == [*[([2] * 8, [])] * 3, ([], [1])]
    assert next_pack(queue([image(2, alone=True), image(1, BULK)])) == ([2], [])


def test_only_interactive_images_fill_a_pack_so_that_there_is_no_use_in_waiting():
    assert not queue([image(8, BULK) for _ in range(4)]).fills_a_pack
    assert not queue([image(8, BULK), image(8)]).fills_a_pack
    assert queue([image(8, BULK), image(8), image(8)]).fills_a_pack


def test_late_interactive_images_give_way_to_their_own_class_and_not_to_bulk():
    """Both would be late by the end of the pack. Without a bulk image to run they would run all the same."""
    tight = [image(4, deadline_s=1.0), image(4, deadline_s=1.5)]
    decision = queue([image(4, BULK), *tight]).next_pack(0.0, tokens_per_s=4.0)
    assert decision.late == []
    assert [each.bulk for each in decision.pack] == [False, False, True]


def test_bulk_that_is_late_does_not_hold_up_what_is_behind_it():
    scheduler = queue([image(4, BULK, deadline_s=1.0), image(3, BULK), image(2)])
    decision = scheduler.next_pack(1.0)
    assert [each.tokens for each in decision.late] == [4]
    assert [each.tokens for each in decision.pack] == [2, 3]


def test_a_hold_keeps_both_classes_and_what_is_owed():
    scheduler = queue([image(2), image(1, BULK)], max_wait_s=2.0)
    for _ in range(5):
        assert scheduler.next_pack(1.0).wait_s == 1.0
    scheduler.add(image(8, BULK))
    # Had the holds counted, all bulk would be owed a place.
    assert next_pack(scheduler) == ([2], [1])


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 0.75])
@pytest.mark.parametrize("largest", [64, 1024])
def test_while_both_classes_wait_bulk_has_its_share_of_the_tokens(share: float, largest: int):
    sizes, whole = random.Random(largest), 4096
    scheduler = queue([], share=share, tokens=whole)
    run = {INTERACTIVE: 0, BULK: 0}
    waiting = dict.fromkeys(run, 0)
    for _ in range(400):
        for bulk in run:
            while waiting[bulk] < 2 * whole:
                scheduler.add(image(added := sizes.randint(1, largest), bulk))
                waiting[bulk] += added
        for queued in scheduler.next_pack(0.0).pack:
            run[queued.bulk] += queued.tokens
            waiting[queued.bulk] -= queued.tokens
    assert run[BULK] / sum(run.values()) == pytest.approx(share, abs=0.03)


class PrioritiesMachine(RuleBasedStateMachine):
    """Any order of calls. What must hold of each pack is checked, and no pack is computed."""

    @initialize(
        max_batch_tokens=st.integers(1, 32),
        max_batch_items=st.none() | st.integers(1, 3),
        max_bulk_batch_tokens=st.none() | st.integers(1, 32),
        share=st.sampled_from([0.125, 0.25, 0.5, 0.75]),
        max_passed_over=st.integers(0, 3),
    )
    def start(
        self, max_batch_tokens: int, max_batch_items: int | None, max_bulk_batch_tokens: int | None, share: float,
        max_passed_over: int,
    ) -> None:  # fmt: skip
        self.max_batch_tokens, self.share = max_batch_tokens, share
        self.max_batch_items = max_batch_items or math.inf
        self.scheduler = queue(
            [], share=share, tokens=max_batch_tokens, max_batch_items=max_batch_items,
            max_bulk_batch_tokens=max_bulk_batch_tokens, max_passed_over=max_passed_over,
        )  # fmt: skip
        self.now_s = 0.0
        self.waiting: list[QueuedItem] = []
        self.left: list[QueuedItem] = []
        # Packs within which each image must leave.
        self.packs_left: dict[QueuedItem, int] = {}
        self.kept_waiting = False
        self.packs_without_bulk = 0

    @rule(data=st.data(), lifetimes_s=st.lists(st.none() | st.integers(1, 6), min_size=1, max_size=6))
    def add(self, data: st.DataObject, lifetimes_s: list[int | None]) -> None:
        most = min(data.draw(st.sampled_from([3, self.max_batch_tokens])), self.max_batch_tokens)
        bulk, alone = data.draw(st.booleans()), data.draw(st.booleans()) and data.draw(st.booleans())
        for lifetime_s in lifetimes_s:
            deadline_s = None if lifetime_s is None else self.now_s + lifetime_s
            added = image(data.draw(st.integers(1, most)), bulk, deadline_s=deadline_s, alone=alone)
            self.scheduler.add(added)
            self.waiting.append(added)
            ahead = sum(queued.bulk == bulk for queued in self.waiting)
            self.packs_left[added] = ahead * (math.ceil(1 / self.share) if bulk else 2)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def caller_leaves(self, data: st.DataObject) -> None:
        leaving = data.draw(st.sampled_from(self.waiting))
        assert self.scheduler.drop(leaving)
        self.waiting.remove(leaving)
        self.left.append(leaving)

    @rule(seconds=st.integers(0, 3))
    def time_passes(self, seconds: int) -> None:
        self.now_s += seconds

    @precondition(lambda self: self.waiting)
    @rule(tokens_per_s=st.none() | st.sampled_from([2.0, 16.0]))
    def take(self, tokens_per_s: float | None) -> None:
        decision = self.scheduler.next_pack(self.now_s, tokens_per_s=tokens_per_s)
        taken = {*decision.pack, *decision.late}
        assert len(taken) == len(decision.pack) + len(decision.late), "an image was given out twice"
        assert taken <= {*self.waiting}
        live = [queued for queued in self.waiting if queued not in decision.late]
        self.waiting = [queued for queued in self.waiting if queued not in taken]
        self.left += taken
        assert bool(decision.pack) == bool(live)
        if decision.pack:
            self.check_pack(decision.pack, live)

    def check_pack(self, pack: list[QueuedItem], live: list[QueuedItem]) -> None:
        """live: all that could go, in order of arrival."""
        assert sum(queued.tokens for queued in pack) <= self.max_batch_tokens
        assert len(pack) <= self.max_batch_items
        assert len(pack) == 1 or not any(queued.alone for queued in pack)
        interactive = [queued for queued in live if not queued.bulk]
        bulk = [queued for queued in live if queued.bulk]
        chosen = [queued for queued in pack if queued.bulk]
        # Interactive images wait for one pack of bulk at most, and bulk goes in order meanwhile.
        waits = bool(interactive) and interactive[0] not in pack
        assert not (waits and self.kept_waiting), "two packs in a row kept an interactive image waiting"
        assert not waits or bulk[0] in pack
        self.kept_waiting = waits
        if interactive:
            assert chosen == bulk[: len(chosen)]
        self.packs_without_bulk = self.packs_without_bulk + 1 if bulk and not chosen else 0
        assert self.packs_without_bulk < math.ceil(1 / self.share), "bulk had less than its share of the packs"
        for queued in self.waiting:
            self.packs_left[queued] -= 1

    @precondition(lambda self: self.waiting)
    @rule()
    def drain(self) -> None:
        assert {*self.scheduler.drain()} == {*self.waiting}
        self.left += self.waiting
        self.waiting = []
        self.packs_without_bulk = 0
        self.kept_waiting = False

    @invariant()
    def the_counts_are_exact(self) -> None:
        assert self.scheduler.queue_items == len(self.waiting)
        assert self.scheduler.queue_tokens == sum(queued.tokens for queued in self.waiting)
        assert all(queued.queued for queued in self.waiting)
        assert not any(queued.queued for queued in self.left)

    @invariant()
    def nobody_starves(self) -> None:
        assert all(self.packs_left[queued] > 0 for queued in self.waiting)

    def teardown(self) -> None:
        if hasattr(self, "scheduler"):
            self.drain()


# Passes in seconds; but a failure is shrunk for up to five minutes, and cut short it cannot be read.
TestPrioritiesMachine = pytest.mark.timeout(360)(PrioritiesMachine.TestCase)
TestPrioritiesMachine.settings = settings(many(200), stateful_step_count=40)
