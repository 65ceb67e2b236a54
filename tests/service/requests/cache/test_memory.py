"""Whatever is asked of it, the memory is within its bytes, and never has another picture's vectors."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from service.requests.cache.memory import Memory
from tests.service.requests.cache.seen_pictures import key_of, seen

MAX_BYTES = 12_000
NUMBERS = st.integers(0, 12)


class Remembering(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.memory = Memory(MAX_BYTES)
        self.put_at_all: dict[int, int] = {}

    @rule(number=NUMBERS, segments=st.sampled_from([1, 1, 1, 3]))
    def put(self, number: int, segments: int) -> None:
        self.memory.put(key_of(number), seen(number, segments=segments))
        self.put_at_all[number] = segments
        found = self.memory.get(key_of(number))
        assert found is not None
        assert len(found.plan.segments) == 1 or segments == 3

    @rule(number=NUMBERS)
    def get(self, number: int) -> None:
        found = self.memory.get(key_of(number))
        if found is not None:
            assert (found.pooled == number).all()
            assert found.plan.size[0] == 100 + number
            assert (len(found.plan.segments) > 1) == (self.put_at_all[number] > 1)

    @invariant()
    def is_bounded(self) -> None:
        assert 0 <= self.memory.held_bytes <= MAX_BYTES


TestRemembering = Remembering.TestCase
TestRemembering.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)


def test_what_was_asked_for_again_outlives_a_job_that_sends_each_picture_once() -> None:
    memory = Memory(10 * seen(0).size_bytes)
    for number in (1, 2, 3):
        memory.put(key_of(number), seen(number))
        assert memory.get(key_of(number)) is not None
    for number in range(100, 200):
        memory.put(key_of(number), seen(number))
    assert all(memory.get(key_of(number)) for number in (1, 2, 3))
    assert memory.get(key_of(100)) is None
    assert memory.get(key_of(199)) is not None


def test_a_picture_larger_than_the_memory_is_left_out() -> None:
    memory = Memory(seen(0).size_bytes)
    memory.put(key_of(0), seen(0))
    memory.put(key_of(1), seen(1, segments=3))
    assert memory.get(key_of(0)) is not None
    assert memory.get(key_of(1)) is None
