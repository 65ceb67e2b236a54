"""When the canary runs: at once, then idle or beside others, and by itself when it is overdue."""

import math

import pytest

from service.engine.canary.rule import Recorded, Vectors
from service.engine.canary.turns import Canary, UntrueDevice
from service.metrics import Metrics
from tests.service.engine.canary.liars import Records, canary_jobs, recorded

INTERVAL_S = 30.0


class Turns:
    """A canary of four pictures with 1 to 4 tokens, by a clock that the test moves."""

    def __init__(self, found: Recorded | None) -> None:
        self.now_s, self.metrics, self.records = 100.0, Metrics(), Records(found)
        self.canary = Canary(
            canary_jobs(), self.records, recorded=found, interval_s=INTERVAL_S, metrics=self.metrics,
            clock=lambda: self.now_s,
        )  # fmt: skip

    def take(self, room_tokens: int = 100, room_items: float = math.inf) -> list[str]:
        taken = self.canary.take(self.now_s, room_tokens=room_tokens, room_items=room_items)
        return [each.name for each in taken]

    def judge(self, names: list[str], *, alone_s: float = 0.0) -> None:
        vectors: dict[str, Vectors | None] = {name: recorded().vectors[name] for name in names}
        self.canary.judge(vectors, alone_s=alone_s)

    def round(self, *, alone_s: float = 0.0) -> list[str]:
        names: list[str] = []
        while taken := self.take():
            self.judge(taken, alone_s=alone_s)
            names += taken
        return names

    def outcomes(self, outcome: str) -> float:
        return self.metrics.registry.get_sample_value("packlight_canaries_total", {"outcome": outcome}) or 0.0


@pytest.fixture
def turns() -> Turns:
    return Turns(recorded())


def test_a_round_is_every_picture_once_in_two_packs(turns: Turns) -> None:
    assert turns.take() == ["red", "green"]
    assert turns.take() == ["blue", "gray"]
    assert turns.take() == []


def test_the_order_changes_from_round_to_round(turns: Turns) -> None:
    assert turns.round() == ["red", "green", "blue", "gray"]
    turns.now_s += INTERVAL_S
    assert turns.round() == ["green", "blue", "gray", "red"]


def test_the_first_round_is_due_at_once_and_the_next_after_half_of_the_interval(turns: Turns) -> None:
    assert turns.canary.wait_s(turns.now_s) == 0
    turns.round()
    assert turns.canary.wait_s(turns.now_s) == INTERVAL_S / 2
    turns.now_s += INTERVAL_S / 2 - 1
    assert turns.take() == []
    turns.now_s += 1
    assert turns.take()


def test_a_round_takes_only_the_room_there_is(turns: Turns) -> None:
    assert turns.take(room_tokens=0) == []
    assert turns.take(room_tokens=2) == ["red"]
    assert turns.take(room_items=1) == ["green"]
    assert turns.take(room_tokens=2) == []


def test_a_round_is_overdue_once_half_of_the_interval_had_no_room(turns: Turns) -> None:
    assert not turns.canary.is_overdue(turns.now_s)
    assert turns.canary.is_overdue(turns.now_s + INTERVAL_S / 2)
    turns.take()
    turns.take()
    # All of it is under way.
    assert not turns.canary.is_overdue(turns.now_s + INTERVAL_S)


def test_a_slow_model_has_rounds_that_take_a_hundredth_of_the_device(turns: Turns) -> None:
    turns.round(alone_s=1.0)
    assert turns.canary.wait_s(turns.now_s) == 100.0
    assert not turns.canary.is_overdue(turns.now_s + 199)
    assert turns.canary.is_overdue(turns.now_s + 200)


def test_what_was_computed_before_a_round_began_is_proven_once_it_has_passed(turns: Turns) -> None:
    first = turns.take()
    turns.now_s += 5
    second = turns.take()
    turns.judge(second)
    assert turns.canary.proven_s == -math.inf
    turns.judge(first)
    assert turns.canary.proven_s == 100.0
    assert turns.outcomes("passed") == 1


def test_a_wrong_vector_is_told_at_once(turns: Turns) -> None:
    first = turns.take()
    wrong: dict[str, Vectors | None] = {name: recorded().vectors["gray"] for name in first}
    with pytest.raises(UntrueDevice, match="have the same vector"):
        turns.canary.judge(wrong)
    assert turns.outcomes("failed") == 1
    assert turns.canary.proven_s == -math.inf


def test_what_the_device_failed_on_proves_nothing_and_is_no_lie(turns: Turns) -> None:
    turns.judge(turns.take())
    turns.canary.judge(dict.fromkeys(turns.take()))
    assert turns.outcomes("interrupted") == 1
    assert turns.canary.proven_s == -math.inf
    turns.now_s += INTERVAL_S
    turns.round()
    assert turns.outcomes("passed") == 1


def test_once_vectors_are_recorded_a_round_is_due_at_once() -> None:
    turns = Turns(None)
    turns.round()
    assert turns.outcomes("unrecorded") == 1
    assert turns.canary.proven_s == 100.0, "what could be seen was right"
    # While they are being recorded, rounds come sooner.
    assert turns.canary.wait_s(turns.now_s) == 1.0
    turns.now_s += 1
    turns.records.found = recorded()
    turns.round()
    assert (turns.outcomes("unrecorded"), turns.outcomes("passed")) == (1, 2)


def test_a_record_that_is_there_is_not_asked_for(turns: Turns) -> None:
    turns.round()
    assert turns.records.reads == 0
    turns.canary.close()
    assert turns.records.closed
