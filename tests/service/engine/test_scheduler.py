"""The scheduler: examples of each rule, what a decision costs, and a state machine for what must hold in any order."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from service.engine.queue.line import MAX_SKIPPED
from service.engine.queue.room import QueuedItem
from service.engine.scheduler import Scheduler
from tests.examples import many


@dataclass(slots=True, eq=False)
class NamedImage(QueuedItem):
    """Carries a payload, as the engine's images do."""

    name: str


def image(
    tokens: int,
    *,
    arrived_s: float = 0.0,
    deadline_s: float | None = None,
    name: str = "",
    alone: bool = False,
    bulk: bool = False,
) -> NamedImage:
    return NamedImage(tokens, arrived_s, deadline_s, name, alone=alone, bulk=bulk)


def queue(
    images: Sequence[NamedImage],
    *,
    max_batch_tokens: int = 10,
    max_batch_items: int | None = None,
    max_wait_s: float = 0.0,
    max_passed_over: int = 8,
) -> Scheduler[NamedImage]:
    scheduler = Scheduler[NamedImage](
        max_batch_tokens=max_batch_tokens, max_batch_items=max_batch_items, max_wait_s=max_wait_s,
        max_passed_over=max_passed_over,
    )  # fmt: skip
    for queued in images:
        scheduler.add(queued)
    return scheduler


def sizes(images: Sequence[NamedImage]) -> list[int]:
    return [queued.tokens for queued in images]


def packs_of(scheduler: Scheduler[NamedImage]) -> list[list[NamedImage]]:
    """Every pack until the queue is empty, asked for at time zero."""
    packs = []
    while pack := scheduler.next_pack(0.0).pack:
        packs.append(pack)
    return packs


# What goes into a pack


def test_an_empty_queue_gives_an_empty_decision():
    decision = queue([]).next_pack(0.0)
    assert (decision.pack, decision.late, decision.wait_s) == ([], [], None)


def test_a_queue_that_fits_is_the_next_pack():
    images = [image(3), image(1), image(2)]
    decision = queue(images).next_pack(0.0)
    assert decision.pack == images
    assert decision.wait_s is None


def test_an_image_comes_back_as_the_object_that_was_added():
    cat = image(3, name="cat")
    (picked,) = queue([cat]).next_pack(0.0).pack
    assert picked is cat
    assert picked.name == "cat"


def test_images_that_fill_a_pack_exactly_are_packed_together():
    assert sizes(queue([image(6), image(4)]).next_pack(0.0).pack) == [6, 4]


def test_a_later_image_that_fits_goes_ahead_of_one_that_does_not():
    scheduler = queue([image(6), image(5), image(4)])
    assert sizes(scheduler.next_pack(0.0).pack) == [6, 4]


def test_an_image_that_did_not_fit_is_first_in_the_next_pack():
    scheduler = queue([image(6), image(5), image(2), image(3)])
    assert sizes(scheduler.next_pack(0.0).pack) == [6, 2]
    assert sizes(scheduler.next_pack(0.0).pack) == [5, 3]


def test_skipped_images_keep_their_order_ahead_of_those_not_looked_at():
    scheduler = queue([image(9), image(5), image(4), image(1), image(1)])
    assert sizes(scheduler.next_pack(0.0).pack) == [9, 1]
    assert sizes(scheduler.drain()) == [5, 4, 1]


@pytest.mark.parametrize("tokens", [0, 11])
def test_an_image_that_no_pack_could_hold_is_refused(tokens: int):
    scheduler = queue([])
    with pytest.raises(ValueError, match="max_batch_tokens is 10"):
        scheduler.add(image(tokens))
    assert scheduler.queue_items == 0


def test_an_image_that_is_alone_has_its_own_pack():
    scheduler = queue([image(2), image(3), image(1, alone=True), image(4), image(2)])
    assert [sizes(pack) for pack in packs_of(scheduler)] == [[2, 3, 4], [1], [2]]


def test_a_queue_of_more_items_or_tokens_than_a_pack_holds_fills_one():
    queues = [queue([image(1) for _ in range(items)], max_batch_items=2) for items in range(4)]
    assert [each.fills_a_pack for each in queues] == [False, False, True, True]
    assert [queue([image(tokens), image(5)]).fills_a_pack for tokens in (4, 5, 6)] == [False, True, True]


@pytest.mark.parametrize("most", [1, 2])
def test_a_pack_holds_no_more_images_than_it_may(most: int):
    scheduler = queue([image(2), image(9), image(1), image(4), image(1)], max_batch_items=most)
    expected = {1: [[2], [9], [1], [4], [1]], 2: [[2, 1], [9, 1], [4]]}
    assert [sizes(pack) for pack in packs_of(scheduler)] == expected[most]


def test_the_next_pack_is_estimated_from_the_images_that_it_may_hold():
    """Estimated from the whole queue, it would take four seconds and be late."""
    scheduler = queue([image(2, deadline_s=1.5), image(6)], max_batch_items=1)
    assert sizes(scheduler.next_pack(0.0, tokens_per_s=2.0).pack) == [2]


def test_the_bound_on_packs_can_be_lowered_and_raised():
    scheduler = queue([image(6), image(4), image(5), image(5)])
    scheduler.set_max_batch_tokens(6)
    assert [sizes(scheduler.next_pack(0.0).pack) for _ in range(2)] == [[6], [4]]
    with pytest.raises(ValueError, match="max_batch_tokens is 6"):
        scheduler.add(image(7))
    scheduler.set_max_batch_tokens(10)
    assert sizes(scheduler.next_pack(0.0).pack) == [5, 5]


def test_the_bound_on_packs_is_not_set_below_a_queued_image():
    scheduler = queue([image(6)])
    with pytest.raises(ValueError, match="would not fit"):
        scheduler.set_max_batch_tokens(5)


# Being passed over


def test_an_image_is_passed_over_once_a_pack_however_many_go_ahead():
    skipped = image(8)
    queue([image(6), skipped, image(1), image(1)]).next_pack(0.0)
    assert skipped.passed_over == 1


def test_an_image_is_not_passed_over_when_nothing_behind_it_is_taken():
    skipped = image(8)
    queue([image(6), image(1), skipped, image(9)]).next_pack(0.0)
    assert skipped.passed_over == 0


def test_after_the_bound_nothing_behind_an_image_goes_ahead_of_it():
    waiting = image(9)
    scheduler = queue([image(8), image(8), image(8), waiting], max_passed_over=2)
    packs = []
    for _ in range(4):
        scheduler.add(image(1))
        packs.append(sizes(scheduler.next_pack(0.0).pack))
    # Passed over twice: the third pack has room for a 1 and leaves it, the fourth begins with the 9.
    assert packs == [[8, 1], [8, 1], [8], [9, 1]]
    assert waiting.passed_over == 2


def test_images_ahead_of_one_at_the_bound_still_go_first():
    at_bound = image(9)
    scheduler = queue([image(8), image(5), at_bound, image(1), image(4)], max_passed_over=1)
    assert sizes(scheduler.next_pack(0.0).pack) == [8, 1]
    assert sizes(scheduler.next_pack(0.0).pack) == [5]
    assert scheduler.next_pack(0.0).pack == [at_bound]


def test_a_bound_of_zero_is_strict_order():
    scheduler = queue([image(6), image(5), image(4), image(1)], max_passed_over=0)
    assert [sizes(pack) for pack in packs_of(scheduler)] == [[6], [5, 4, 1]]


# Dropped and late


def test_a_dropped_image_never_runs():
    left, stayed = image(3), image(3)
    scheduler = queue([left, stayed])
    assert scheduler.drop(left)
    decision = scheduler.next_pack(0.0)
    assert (decision.pack, decision.late) == ([stayed], [])


def test_an_image_can_be_dropped_once_and_only_while_it_is_queued():
    left, taken = image(3), image(3)
    scheduler = queue([taken])
    scheduler.next_pack(0.0)
    scheduler.add(left)
    assert [scheduler.drop(left), scheduler.drop(left), scheduler.drop(taken)] == [True, False, False]


def test_dropped_images_make_no_other_image_late():
    """4,096 tokens whose callers have left, an image that has one second, and one that has time."""
    left, tight, patient = [image(1024) for _ in range(4)], image(16, deadline_s=1.0), image(16)
    scheduler = queue([*left, tight, patient], max_batch_tokens=4096)
    for gone in left:
        scheduler.drop(gone)
    assert scheduler.next_pack(0.0, tokens_per_s=1000.0).pack == [tight, patient]


def test_dropped_images_make_no_other_late_when_packs_are_bounded_in_images():
    left, tight, patient = image(8), image(2, deadline_s=1.5), image(2)
    scheduler = queue([left, tight, patient], max_batch_items=1)
    scheduler.drop(left)
    assert scheduler.next_pack(0.0, tokens_per_s=2.0).pack == [tight]


def test_a_dropped_image_does_not_keep_the_bound_on_packs_up():
    left = image(10)
    scheduler = queue([left, image(5)])
    scheduler.drop(left)
    scheduler.set_max_batch_tokens(5)
    assert sizes(scheduler.next_pack(0.0).pack) == [5]


def test_an_image_is_late_from_its_deadline_on():
    late, in_time = image(3, deadline_s=2.0), image(3, deadline_s=2.5)
    decision = queue([late, in_time]).next_pack(2.0)
    assert (decision.pack, decision.late) == ([in_time], [late])


def test_an_image_that_would_be_late_by_the_end_of_its_pack_gives_way_to_those_that_can_be_in_time():
    tight, loose = image(3, deadline_s=2.0), image(7, deadline_s=2.5)
    decision = queue([tight, loose]).next_pack(0.0, tokens_per_s=5.0)
    assert (decision.pack, decision.late) == ([loose], [tight])


def test_a_pack_is_expected_to_take_as_long_as_the_queue_but_no_longer_than_a_full_pack():
    tight = image(3, deadline_s=2.0)
    assert queue([tight]).next_pack(0.0, tokens_per_s=5.0).pack == [tight]
    patient = [image(10) for _ in range(5)]
    assert queue([image(3, deadline_s=2.5), *patient]).next_pack(0.0, tokens_per_s=5.0).late == []


def test_images_run_even_if_all_would_be_late():
    images = [image(3, deadline_s=0.0), image(4, deadline_s=0.5), image(5, deadline_s=1.0)]
    decision = queue(images).next_pack(0.0, tokens_per_s=5.0)
    assert (decision.pack, decision.late) == (images[1:], images[:1])


def test_without_a_rate_only_what_is_past_its_deadline_is_late():
    tight, loose = image(3, deadline_s=0.1), image(7)
    assert queue([tight, loose]).next_pack(0.0).pack == [tight, loose]


def test_images_that_have_run_do_not_make_a_pack_longer():
    scheduler = queue([image(9), image(9), image(5, deadline_s=1.5)])
    scheduler.next_pack(0.0)
    scheduler.next_pack(0.0)
    scheduler.add(image(2))
    assert sizes(scheduler.next_pack(0.0, tokens_per_s=5.0).pack) == [5, 2]


def test_a_pack_begins_once_the_device_is_free():
    tight, loose = image(3, deadline_s=3.0), image(7, deadline_s=3.5)
    decision = queue([tight, loose]).next_pack(0.0, tokens_per_s=5.0, free_s=1.25)
    assert (decision.pack, decision.late) == ([loose], [tight])
    assert queue([image(3, deadline_s=3.0), image(7)]).next_pack(0.0, tokens_per_s=5.0, free_s=0.5).late == []


def test_a_device_that_should_have_been_free_is_taken_to_be():
    assert queue([image(5, deadline_s=3.5)]).next_pack(2.0, tokens_per_s=5.0, free_s=1.0).late == []


def test_a_hold_ends_in_time_for_what_runs_after_it_or_after_the_pack_under_way():
    def hold_s(free_s: float) -> float | None:
        return queue([image(5, deadline_s=4.5)], max_wait_s=2.0).next_pack(0.0, tokens_per_s=5.0, free_s=free_s).wait_s

    assert [hold_s(free_s) for free_s in (1.0, 3.0, 3.25)] == [2.0, 2.0, 2.0]
    assert hold_s(3.5) is None


def test_late_images_leave_their_space_to_others():
    dead = image(9, deadline_s=1.0)
    assert sizes(queue([dead, image(6), image(4)]).next_pack(1.0).pack) == [6, 4]


def test_a_dropped_image_counts_no_longer_even_behind_a_full_pack():
    left = image(3)
    scheduler = queue([image(10), left])
    scheduler.drop(left)
    assert (scheduler.queue_items, scheduler.queue_tokens) == (1, 10)
    scheduler.next_pack(0.0)
    assert (scheduler.queue_items, scheduler.queue_tokens) == (0, 0)


# Waiting


def test_without_a_wait_an_image_stamped_after_now_still_goes_at_once():
    assert sizes(queue([image(3, arrived_s=1.25)]).next_pack(1.0).pack) == [3]


def test_a_pack_is_held_back_until_its_oldest_image_has_waited():
    scheduler = queue([image(3, arrived_s=1.0), image(3, arrived_s=1.5)], max_wait_s=2.0)
    held = scheduler.next_pack(1.75)
    assert (held.pack, held.wait_s) == ([], 1.25)
    assert scheduler.queue_items == 2
    assert sizes(scheduler.next_pack(3.0).pack) == [3, 3]


def test_the_wait_counts_from_the_oldest_whatever_the_order_they_were_added_in():
    scheduler = queue([image(3, arrived_s=1.5), image(3, arrived_s=1.0)], max_wait_s=2.0)
    assert scheduler.next_pack(2.0).wait_s == 1.0


@pytest.mark.parametrize("last", [4, 5])
def test_a_full_pack_is_not_held_back(last: int):
    scheduler = queue([image(6), image(last)], max_wait_s=2.0)
    assert sizes(scheduler.next_pack(0.0).pack) == ([6, 4] if last == 4 else [6])


def test_what_a_full_pack_leaves_behind_waits_its_own_time():
    scheduler = queue([image(6, arrived_s=0.0), image(5, arrived_s=0.5)], max_wait_s=2.0)
    scheduler.next_pack(1.0)
    assert scheduler.next_pack(1.0).wait_s == 1.5


def test_dropped_images_neither_fill_a_pack_nor_count_as_the_oldest():
    left, stayed = image(8, arrived_s=0.0), image(8, arrived_s=1.0)
    scheduler = queue([left, stayed], max_wait_s=2.0)
    scheduler.drop(left)
    decision = scheduler.next_pack(2.0)
    assert (decision.pack, decision.wait_s) == ([], 1.0)


@pytest.mark.parametrize("deadline_s", [0.5, 2.0])
def test_a_deadline_within_the_wait_ends_it_at_once(deadline_s: float):
    images = [image(3), image(3, deadline_s=deadline_s)]
    assert queue(images, max_wait_s=2.0).next_pack(0.25).pack == images


def test_a_deadline_within_the_forward_after_the_wait_ends_it_at_once():
    scheduler = queue([image(4, deadline_s=2.5), image(2)], max_wait_s=2.0)
    assert sizes(scheduler.next_pack(1.0, tokens_per_s=12.0).pack) == [4, 2]


def test_a_deadline_after_the_wait_does_not_shorten_it():
    scheduler = queue([image(3), image(3, deadline_s=2.25)], max_wait_s=2.0)
    assert scheduler.next_pack(0.25).wait_s == 1.75


# Counts and draining


def test_the_queue_counts_images_and_tokens():
    scheduler = queue([image(6), image(5), image(4)])
    assert (scheduler.queue_items, scheduler.queue_tokens) == (3, 15)
    scheduler.next_pack(0.0)
    assert (scheduler.queue_items, scheduler.queue_tokens) == (1, 5)


def test_draining_returns_what_is_queued_in_order_and_empties_the_queue():
    images = [image(3), image(4, deadline_s=0.0), image(5)]
    scheduler = queue(images)
    scheduler.drop(images[0])
    assert scheduler.drain() == images[1:]
    assert (scheduler.queue_items, scheduler.queue_tokens, scheduler.drain()) == (0, 0, [])


# What a decision costs, in attributes read from images: at most this many for each image that it looks at
READS_PER_IMAGE = 7


def counted_queue(tokens: Sequence[int], *, max_batch_tokens: int) -> tuple[Scheduler[QueuedItem], list[str]]:
    """A queue whose images record every attribute read from them in the list."""
    reads: list[str] = []

    class CountedImage(QueuedItem):
        def __getattribute__(self, name: str) -> object:
            reads.append(name)
            return super().__getattribute__(name)

    scheduler = Scheduler[QueuedItem](max_batch_tokens=max_batch_tokens)
    for count in tokens:
        scheduler.add(CountedImage(count, 0.0, 1.0))
    reads.clear()
    return scheduler, reads


def mixed(images: int) -> list[int]:
    return random.Random(7).choices(range(16, 1025), k=images)


def one_a_pack(images: int) -> list[int]:
    """The most expensive case: no two images fit together, so every look ahead is in vain."""
    return [2049] * images


@pytest.mark.parametrize("images", [10, 100, 1_000, 10_000])
@pytest.mark.parametrize("workload", [mixed, one_a_pack])
def test_emptying_a_queue_reads_each_image_once_and_a_bounded_number_more_a_pack(workload, images: int):
    scheduler, reads = counted_queue(workload(images), max_batch_tokens=4096)
    packs = 0
    while scheduler.next_pack(0.0).pack:
        packs += 1
    assert len(reads) <= READS_PER_IMAGE * (images + MAX_SKIPPED * packs)


@pytest.mark.parametrize("workload", [mixed, one_a_pack])
def test_a_decision_costs_the_same_with_10_000_waiting_as_with_1_000(workload):
    costs = []
    for images in (1_000, 10_000):
        scheduler, reads = counted_queue(workload(10_000)[:images], max_batch_tokens=4096)
        scheduler.next_pack(0.0)
        costs.append(len(reads))
    assert costs[0] == costs[1]


def test_the_look_ahead_ends_after_a_bounded_number_of_misfits():
    scheduler = queue([image(9), *[image(2) for _ in range(MAX_SKIPPED)], image(1)])
    assert sizes(scheduler.next_pack(0.0).pack) == [9]
    scheduler = queue([image(9), *[image(2) for _ in range(MAX_SKIPPED - 1)], image(1)])
    assert sizes(scheduler.next_pack(0.0).pack) == [9, 1]


# What holds for any queue


def strict_order(tokens: Sequence[int], max_batch_tokens: int) -> list[int]:
    """The number of each image's pack if packs were cut from the queue with nothing going ahead."""
    numbers, number, room = [], 0, max_batch_tokens
    for count in tokens:
        if count > room:
            number, room = number + 1, max_batch_tokens
        room -= count
        numbers.append(number)
    return numbers


@given(st.lists(st.integers(1, 16), max_size=120), st.integers(0, 4))
def test_no_image_leaves_in_a_later_pack_than_in_strict_order(tokens: list[int], max_passed_over: int):
    images = [image(count) for count in tokens]
    packs = packs_of(queue(images, max_batch_tokens=16, max_passed_over=max_passed_over))
    numbers = {queued: number for number, pack in enumerate(packs) for queued in pack}
    assert all(numbers[queued] <= number for queued, number in zip(images, strict_order(tokens, 16), strict=True))


def eighths(most: int) -> st.SearchStrategy[float]:
    """Seconds up to `most`, in steps that floats add without rounding."""
    return st.integers(0, 8 * most).map(lambda eighth: eighth / 8)


class SchedulerMachine(RuleBasedStateMachine):
    """Any order of calls against a plain list, with images of one class. The test checks properties of each decision
    and computes none."""

    @initialize(
        max_batch_tokens=st.integers(1, 32),
        max_batch_items=st.none() | st.integers(1, 3),
        max_wait_s=st.sampled_from([0.0, 2.0]),
        max_passed_over=st.integers(0, 3),
        bulk=st.booleans(),
    )
    def start(
        self, max_batch_tokens: int, max_batch_items: int | None, max_wait_s: float, max_passed_over: int, bulk: bool
    ) -> None:
        self.bulk = bulk
        self.max_batch_tokens, self.max_wait_s, self.max_passed_over = max_batch_tokens, max_wait_s, max_passed_over
        self.max_batch_items = max_batch_items or math.inf
        self.scheduler = queue(
            [], max_batch_tokens=max_batch_tokens, max_batch_items=max_batch_items, max_wait_s=max_wait_s,
            max_passed_over=max_passed_over,
        )  # fmt: skip
        self.now_s = 0.0
        self.waiting: list[NamedImage] = []
        self.left: list[NamedImage] = []
        # For each queued image: packs that took a later one, and packs within which it must leave.
        self.passed_over: dict[NamedImage, int] = {}
        self.packs_left: dict[NamedImage, int] = {}

    @rule(data=st.data(), lifetimes_s=st.lists(st.none() | eighths(6), min_size=1, max_size=6), alone=st.booleans())
    def add(self, data: st.DataObject, lifetimes_s: list[float | None], alone: bool) -> None:
        # All small as often as not, so that packs are held back and images go ahead.
        most = min(data.draw(st.sampled_from([3, self.max_batch_tokens])), self.max_batch_tokens)
        for lifetime_s in lifetimes_s:
            tokens = data.draw(st.integers(1, most))
            deadline_s = None if lifetime_s is None else self.now_s + lifetime_s
            added = image(tokens, arrived_s=self.now_s, deadline_s=deadline_s, alone=alone, bulk=self.bulk)
            self.scheduler.add(added)
            self.waiting.append(added)
            self.passed_over[added] = 0
            self.packs_left[added] = len(self.waiting)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def caller_leaves(self, data: st.DataObject) -> None:
        leaving = data.draw(st.sampled_from(self.waiting))
        assert self.scheduler.drop(leaving)
        self.waiting.remove(leaving)
        self.left.append(leaving)

    @precondition(lambda self: self.left)
    @rule(data=st.data())
    def caller_leaves_too_late(self, data: st.DataObject) -> None:
        assert not self.scheduler.drop(data.draw(st.sampled_from(self.left)))

    @rule(most=st.integers(1, 32))
    def the_bound_on_packs_changes(self, most: int) -> None:
        self.max_batch_tokens = max(most, *sizes(self.waiting), 1)
        self.scheduler.set_max_batch_tokens(self.max_batch_tokens)

    @rule(seconds=eighths(3))
    def time_passes(self, seconds: float) -> None:
        self.now_s += seconds

    @precondition(lambda self: self.waiting)
    @rule(tokens_per_s=st.none() | st.sampled_from([2.0, 16.0]))
    def take(self, tokens_per_s: float | None) -> None:
        before = self.waiting
        runs_s = self.next_tokens() / tokens_per_s if tokens_per_s else 0.0
        live = [queued for queued in before if not self.is_dead(queued, runs_s)]
        if not live:
            live = [queued for queued in before if not self.is_dead(queued)]
        decision = self.scheduler.next_pack(self.now_s, tokens_per_s=tokens_per_s)
        left = {*decision.pack, *decision.late}
        assert len(left) == len(decision.pack) + len(decision.late)
        assert left <= set(before)
        self.waiting = [queued for queued in before if queued not in left]
        self.left += left
        for taken in (decision.pack, decision.late):
            assert taken == [queued for queued in before if queued in set(taken)]
        assert not any(queued in live for queued in decision.late)
        assert set(decision.pack) <= set(live)
        assert decision.wait_s == self.hold_s(live, runs_s)
        if decision.wait_s is None:
            self.check_pack(before, live, decision.pack)
        else:
            assert not decision.pack
            assert self.waiting == live

    @precondition(lambda self: self.waiting)
    @rule()
    def drain(self) -> None:
        assert self.scheduler.drain() == self.waiting
        self.left += self.waiting
        self.waiting = []

    def room_for(self, queued: NamedImage) -> int:
        return self.max_batch_tokens if queued.alone else queued.tokens

    def is_dead(self, queued: NamedImage, runs_s: float = 0.0) -> bool:
        return queued.deadline_s is not None and queued.deadline_s <= self.now_s + runs_s

    def next_tokens(self) -> int:
        """Of the next pack: the whole queue up to a full pack, or the first images if their number is bounded."""
        if self.max_batch_items == math.inf:
            return min(sum(sizes(self.waiting)), self.max_batch_tokens)
        room = self.max_batch_tokens
        for place, queued in enumerate(self.waiting):
            if place == self.max_batch_items or self.room_for(queued) > room:
                break
            room -= self.room_for(queued)
        return self.max_batch_tokens - room

    def hold_s(self, live: list[NamedImage], runs_s: float) -> float | None:
        """Seconds for which the live images that wait should be held back."""
        if not self.max_wait_s or not live or sum(map(self.room_for, live)) >= self.max_batch_tokens:
            return None
        if len(live) >= self.max_batch_items:
            return None
        end_s = live[0].arrived_s + self.max_wait_s
        deadlines_s = [queued.deadline_s for queued in live if queued.deadline_s is not None]
        held = self.now_s < end_s and end_s + runs_s < min(deadlines_s, default=math.inf)
        return end_s - self.now_s if held else None

    def check_pack(self, before: list[NamedImage], live: list[NamedImage], pack: list[NamedImage]) -> None:
        """Each queued image in turn was taken if it fitted, unless the look-ahead had ended before it."""
        assert pack[:1] == live[:1]
        room, taken, skipped, ended = self.max_batch_tokens, 0, 0, False
        for place, queued in enumerate(before):
            if queued in pack:
                assert not ended
                room -= self.room_for(queued)
            elif queued not in live:
                # Whatever the look-ahead reached is dropped, whatever it did not reach stays.
                assert (queued in self.waiting) == ended
            elif ended:
                assert queued in self.waiting
            else:
                assert self.room_for(queued) > room
                skipped += 1
                ended = self.passed_over[queued] >= self.max_passed_over
                self.passed_over[queued] += any(later in pack for later in before[place + 1 :])
            taken += queued in pack
            ended = ended or not room or taken == self.max_batch_items or skipped == MAX_SKIPPED
        assert room >= 0
        for queued in self.waiting:
            self.packs_left[queued] -= bool(pack)

    @invariant()
    def the_counts_are_exact(self) -> None:
        assert self.scheduler.queue_items == len(self.waiting)
        assert self.scheduler.queue_tokens == sum(sizes(self.waiting))
        assert all(queued.queued for queued in self.waiting)
        assert not any(queued.queued for queued in self.left)

    @invariant()
    def nobody_starves(self) -> None:
        assert all(self.packs_left[queued] > 0 for queued in self.waiting)
        assert all(queued.passed_over == self.passed_over[queued] for queued in self.waiting)
        assert all(queued.passed_over <= self.max_passed_over for queued in self.waiting)

    def teardown(self) -> None:
        # Nothing was lost and nothing is there twice: what waits is what the list says.
        if hasattr(self, "scheduler"):
            self.drain()


# Passes in seconds; but a failure is shrunk for up to five minutes, and cut short it cannot be read.
TestSchedulerMachine = pytest.mark.timeout(360)(SchedulerMachine.TestCase)
TestSchedulerMachine.settings = settings(many(300), stateful_step_count=50)
