"""Admission: tokens and bytes never exceed their limits, and none are charged once every request has ended."""

from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from service.engine.client import Job, JobResult, Trust
from service.engine.pack_log import PackReport
from service.errors import Invalid, Overloaded, ServiceError
from service.fetching.urls import parse_url
from service.limits import Limits, ModelFacts
from service.metrics import Metrics
from service.requests.admission.admission import Admission
from service.requests.admission.hold import Hold

MAX_TOKENS, MAX_BYTES = 100, 1000
UPLOAD_TIMEOUT_S = 20.0


class Device:
    """A client whose rate is all that admission asks for."""

    accepts_jobs = any_device_ready = all_devices_ready = True
    trust = Trust()
    model: ModelFacts

    def __init__(self, tokens_per_s: float | None = None) -> None:
        self.tokens_per_s = tokens_per_s
        self.cost = None
        self.packs: list[list[PackReport]] = []

    def refresh_packs(self) -> None:
        raise AssertionError("admission asks for no packs")

    async def submit(self, job: Job) -> JobResult:
        raise AssertionError("admission submits nothing")

    def close(self, *, timeout_s: float) -> bool:
        return True


class Clock:
    """A clock that stands still until a test sets it."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def admission(
    tokens_per_s: float | None = None, clock: Clock | None = None, metrics: Metrics | None = None
) -> Admission:
    limits = Limits(default_max_tokens=20, max_image_tokens=50, max_batch_tokens=60, max_queue_tokens=MAX_TOKENS)
    return Admission(
        limits,
        max_inflight_bytes=MAX_BYTES,
        upload_timeout_s=UPLOAD_TIMEOUT_S,
        client=Device(tokens_per_s),
        metrics=metrics or Metrics(),
        clock=clock or Clock(),
    )


def gauges(made: Admission) -> tuple[float | None, float | None]:
    """Asked for after every step: of all metrics only these two are computed."""
    names = ("packlight_queue_tokens", "packlight_inflight_bytes")
    families = made._metrics.registry.restricted_registry(names).collect()
    values = {sample.name: sample.value for family in families for sample in family.samples}
    return values.get(names[0]), values.get(names[1])


def test_exactly_the_tokens_that_are_left_are_admitted():
    made = admission()
    made.take_tokens(60)
    made.take_tokens(40)
    with pytest.raises(Overloaded):
        made.take_tokens(1)


def test_a_request_that_can_never_fit_is_invalid_and_not_an_overload():
    with pytest.raises(Invalid, match="max_queue_tokens") as caught:
        admission().take_tokens(101)
    assert caught.value.param == "max_request_tokens"


def test_a_refusal_charges_nothing():
    made = admission()
    made.take_tokens(60)
    with pytest.raises(Overloaded):
        made.take_tokens(41)
    with pytest.raises(Overloaded):
        made.take_bytes(MAX_BYTES + 1)
    assert (made.tokens, made.bytes) == (60, 0)


def test_the_queue_is_full_only_when_no_token_fits():
    made = admission()
    made.take_tokens(99)
    made.check_queue(None)
    made.take_tokens(1)
    with pytest.raises(Overloaded):
        made.check_queue(None)


def test_tokens_known_not_to_fit_are_refused_before_the_body_unless_the_queue_is_empty():
    made = admission()
    made.check_queue(101)
    made.take_tokens(60)
    made.check_queue(40)
    with pytest.raises(Overloaded):
        made.check_queue(41)


@pytest.mark.parametrize(
    ("rate", "held", "wanted", "seconds"),
    [
        (None, 100, 50, 1),
        (10.0, 100, 50, 6),
        (10.0, 100, 61, 10),
        (10.0, 55, 50, 6),
        (7.0, 100, 50, 9),
        (1e6, 100, 50, 1),
    ],
)
def test_retry_after_is_the_backlog_in_whole_packs_over_the_rate(
    rate: float | None, held: int, wanted: int, seconds: int
) -> None:
    made = admission(rate)
    made.take_tokens(held)
    with pytest.raises(Overloaded) as caught:
        made.take_tokens(wanted)
    assert caught.value.headers() == {"Retry-After": str(seconds)}


def test_an_answer_that_would_miss_its_deadline_is_refused_with_the_time_until_it_would_not():
    made = admission(tokens_per_s=10.0)
    made.take_tokens(50)
    # 50 queued, 10 more, and 50 that may join their pack until it runs: 11 seconds.
    made.take_tokens(10, within_s=11.0)
    made.give_back(tokens=10)
    with pytest.raises(Overloaded, match="timeout_ms") as caught:
        made.take_tokens(10, within_s=8.5)
    assert caught.value.headers() == {"Retry-After": "3"}
    assert made.tokens == 50


@pytest.mark.parametrize(("rate", "held", "within_s"), [(None, 50, 0.1), (10.0, 0, 0.1), (10.0, 50, -1.0)])
def test_a_deadline_refuses_nothing_if_the_rate_is_unknown_the_queue_empty_or_the_time_over(
    rate: float | None, held: int, within_s: float
):
    made = admission(rate)
    made.take_tokens(held)
    made.take_tokens(10, within_s=within_s)
    assert made.tokens == held + 10


def test_bulk_leaves_a_share_of_the_queue_to_interactive_requests():
    made = admission()
    made.take_tokens(70, bulk=True)
    with pytest.raises(Overloaded, match="70 tokens of bulk .* of at most 75 .*interactive_queue_share"):
        made.take_tokens(6, bulk=True)
    made.take_tokens(30)
    with pytest.raises(Overloaded, match="100 tokens are queued"):
        made.take_tokens(1)
    with pytest.raises(Invalid, match="at most 75 .*interactive_queue_share"):
        made.take_tokens(76, bulk=True)


def test_interactive_requests_keep_a_part_of_the_queue_for_bulk_while_bulk_comes():
    clock = Clock()
    made = admission(clock=clock)
    made.take_tokens(99)
    with pytest.raises(Overloaded):
        made.check_queue(20, bulk=True)
    made.give_back(tokens=20)
    with pytest.raises(Overloaded):
        made.take_tokens(1)
    made.take_tokens(21, bulk=True)
    made.give_back(tokens=21, bulk=True)
    clock.now_s += 61
    made.take_tokens(21)


def test_a_part_kept_for_bulk_keeps_no_request_for_the_whole_queue_out():
    made = admission()
    with pytest.raises(Invalid):
        made.take_tokens(76, bulk=True)
    made.check_queue(10, bulk=True)
    made.take_tokens(MAX_TOKENS)


def test_each_class_is_told_when_it_would_have_room():
    made = admission(tokens_per_s=10.0)
    made.take_tokens(75, bulk=True)
    made.take_tokens(25)
    # A pack of 60 frees its place; before one of bulk the 25 interactive tokens go.
    for bulk, seconds in ((False, 6), (True, 9)):
        with pytest.raises(Overloaded) as caught:
            made.take_tokens(20, bulk=bulk)
        assert caught.value.headers() == {"Retry-After": str(seconds)}


def test_an_interactive_answer_is_expected_after_its_own_class_a_pack_of_bulk_and_its_share():
    made = admission(tokens_per_s=10.0)
    made.take_tokens(75, bulk=True)
    # 9 tokens, a third as many of bulk beside them, and a pack of 60 under way: 7.2 seconds. Bulk: 75, 9 and 60 more.
    made.take_tokens(9, within_s=7.25)
    made.give_back(tokens=9)
    with pytest.raises(Overloaded, match="7.2 s"):
        made.take_tokens(9, within_s=7.15)
    made.give_back(tokens=9, bulk=True)
    with pytest.raises(Overloaded, match="13.5 s"):
        made.take_tokens(9, within_s=13.0, bulk=True)


def test_while_interactive_requests_fill_packs_bulk_is_expected_at_its_share_of_the_rate():
    made = admission(tokens_per_s=10.0)
    made.take_tokens(60)
    made.take_tokens(10, bulk=True)
    # A quarter of the rate for 10 and 5 tokens, and a pack of 60.
    made.take_tokens(5, within_s=12.25, bulk=True)
    made.give_back(tokens=5, bulk=True)
    with pytest.raises(Overloaded, match="12.0 s"):
        made.take_tokens(5, within_s=11.75, bulk=True)
    with pytest.raises(Overloaded) as caught:
        made.take_tokens(40, bulk=True)
    # The queue is full, and its next pack of 60 leaves room.
    assert caught.value.headers() == {"Retry-After": "6"}


@pytest.mark.parametrize(("interactive", "seconds"), [(100, 10), (59, 6), (30, 3)])
def test_bulk_that_finds_a_queue_of_interactive_requests_waits_for_those(interactive: int, seconds: int) -> None:
    made = admission(tokens_per_s=10.0)
    made.take_tokens(interactive)
    assert made.retry_after_s(75, bulk=True) == seconds


def test_a_request_whose_images_all_failed_waits_for_nobody():
    made = admission(10.0)
    made.take_tokens(50)
    made.take_tokens(0, within_s=0.1)


def test_what_takes_no_tokens_fits_though_its_class_holds_more_than_it_could_take_now() -> None:
    made = admission()
    made.take_tokens(99)
    made.take_tokens(1, bulk=True)
    for bulk in (False, True):
        made.take_tokens(0, bulk=bulk)


def retry_after(made: Admission, size: int) -> str:
    with pytest.raises(Overloaded) as caught:
        made.take_bytes(size)
    return caught.value.headers()["Retry-After"]


@pytest.mark.parametrize(
    ("given_back", "seconds", "wanted", "retry"),
    [(0, 5, 600, "1"), (100, 10, 600, "20"), (500, 10, 600, "2"), (500, 10, 910, "9"), (900, 1, 990, "1")],
)
def test_retry_after_for_bytes_is_the_excess_over_their_outflow(
    given_back: int, seconds: int, wanted: int, retry: str
) -> None:
    clock = Clock()
    made = admission(clock=clock)
    made.take_bytes(1000)
    clock.now_s += seconds
    made.give_back(size=given_back)
    assert retry_after(made, wanted) == retry


def test_bulk_leaves_a_share_of_the_bytes_to_interactive_requests():
    made = admission()
    with Hold(made) as hold, Hold(made) as other:
        hold.bulk = True
        # Nothing else is held: otherwise a large body could never come.
        hold.reserve_bytes(800)
        made.check_bytes(200)
        with pytest.raises(Overloaded, match="of at most 750 .*interactive_queue_share"):
            made.check_bytes(1, bulk=True)
        other.bulk = True
        with pytest.raises(Overloaded):
            other.reserve_bytes(10)
        # What has begun to come goes on.
        hold.reserve_bytes(900)
        assert made.bytes == 900


def test_idle_time_does_not_lower_the_outflow_of_bytes() -> None:
    clock = Clock()
    made = admission(clock=clock)
    made.take_bytes(10)
    made.give_back(size=10)
    clock.now_s += 1000
    made.take_bytes(1000)
    clock.now_s += 1
    made.give_back(size=300)
    assert retry_after(made, 900) == "2"


def test_the_outflow_of_bytes_forgets() -> None:
    clock = Clock()
    made = admission(clock=clock)
    made.take_bytes(1000)
    clock.now_s += 1
    made.give_back(size=900)
    made.take_bytes(900)
    assert retry_after(made, 900) == "1"
    for _ in range(20):
        clock.now_s += 30
        answer = retry_after(made, 900)
    assert answer == "20"


def test_a_request_that_fails_gives_back_all_it_holds():
    made = admission()

    def request() -> None:
        with Hold(made) as hold:
            hold.take_tokens(5)
            hold.reserve_bytes(7)
            raise KeyError

    with pytest.raises(KeyError):
        request()
    assert (made.tokens, made.bytes) == (0, 0)


def test_a_decoded_image_is_let_go_and_its_bytes_are_given_back_once():
    made = admission()
    with Hold(made) as hold:
        hold.reserve_bytes(100)
        hold.keep([bytes(6), bytes(4)])
        assert made.bytes == 10
        hold.drop_image(0)
        hold.drop_image(0)
        assert made.bytes == 4
        assert hold.images == [b"", bytes(4)]
    assert made.bytes == 0
    assert hold.images == []


@pytest.mark.parametrize(("character", "size"), [("a", 1), ("\u00e9", 1), ("\u5b57", 2), ("\U0001f6b2", 4)])
def test_a_text_is_charged_with_the_memory_that_it_takes(character: str, size: int) -> None:
    made = admission()
    with Hold(made) as hold:
        hold.keep([], [character * 100])
        assert 100 * size <= made.bytes < 100 * size + 50
        hold.keep([b""], documents=[(0, character * 200)])
        assert 200 * size <= made.bytes < 200 * size + 50
        hold.keep([], [[70_000] * 10])
        assert made.bytes == 10 * (28 + 8)


def test_an_image_that_is_fetched_is_charged_while_it_comes():
    made = admission()
    url = parse_url("http://images.test/a")
    with Hold(made) as hold:
        hold.keep([b"", bytes(4)], urls={0: url})
        assert made.bytes == 4 + len(url)
        hold.check_coming(0, MAX_BYTES - made.bytes)
        with pytest.raises(Overloaded):
            hold.check_coming(0, MAX_BYTES - made.bytes + 1)
        with pytest.raises(Overloaded):
            hold.reserve_coming(0, MAX_BYTES)
        hold.reserve_coming(0, 9)
        hold.reserve_coming(0, 6)
        assert made.bytes == 4 + len(url) + 6
        hold.put_image(0, bytes(6))
        assert (made.bytes, hold.images, hold.urls) == (10, [bytes(6), bytes(4)], {})
        hold.drop_image(0)
        assert made.bytes == 4
    assert made.bytes == 0


def test_a_request_that_ends_while_an_image_comes_gives_its_bytes_back():
    made = admission()
    with Hold(made) as hold:
        hold.keep([b""], urls={0: parse_url("http://images.test/a")})
        # New texts beside the same images leave the URLs as they are.
        hold.keep(hold.images, ["a"])
        assert list(hold.urls) == [0]
        hold.reserve_coming(0, 50)
    assert made.bytes == 0


def test_a_written_answer_frees_its_queue_tokens_and_is_charged_even_over_the_limit():
    made = admission()
    with Hold(made) as hold:
        hold.take_tokens(MAX_TOKENS)
        hold.hand_over(MAX_BYTES + 1)
        assert (made.tokens, made.bytes) == (0, MAX_BYTES + 1)
        with pytest.raises(Overloaded):
            made.take_bytes(1)
    assert (made.tokens, made.bytes) == (0, 0)


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 600)), max_size=12))
def test_overlapping_requests_leave_nothing_charged(requests: list[tuple[int, int]]) -> None:
    made = admission()
    with ExitStack() as stack:
        for tokens, size in requests:
            hold = stack.enter_context(Hold(made))
            try:
                hold.reserve_bytes(size)
                hold.take_tokens(tokens)
            except ServiceError:
                continue
    assert (made.tokens, made.bytes) == (0, 0)
    assert gauges(made) == (0, 0)


class Requests(RuleBasedStateMachine):
    """Requests take, give back and end in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.made = admission()
        self.open: list[tuple[Hold, list[int]]] = []

    @rule(bulk=st.booleans())
    def begin(self, bulk: bool) -> None:
        hold = Hold(self.made).__enter__()
        hold.bulk = bulk
        self.open.append((hold, [0, 0]))

    @rule(tokens=st.integers(0, MAX_TOKENS + 1), which=st.integers(0, 5))
    def take_tokens(self, tokens: int, which: int) -> None:
        for hold, taken in self.open[which : which + 1]:
            fits = self.made.tokens + tokens <= MAX_TOKENS
            of_class = tokens + sum(own[0] for each, own in self.open if each.bulk == hold.bulk)
            try:
                hold.take_tokens(tokens)
                assert fits
                assert of_class <= (75 if hold.bulk else MAX_TOKENS)
                taken[0] += tokens
            except ServiceError:
                # A part may be kept for bulk, since its last request was just now.
                assert not fits or of_class > 75

    @rule(size=st.integers(0, MAX_BYTES + 1), which=st.integers(0, 5))
    def reserve_bytes(self, size: int, which: int) -> None:
        for hold, taken in self.open[which : which + 1]:
            fits = self.fits(hold, taken[1], size)
            try:
                hold.reserve_bytes(size)
                assert fits
                taken[1] = size
            except ServiceError:
                assert not fits

    def fits(self, hold: Hold, before: int, size: int) -> bool:
        """Whether a request that has `before` bytes may have `size`."""
        others = self.made.bytes - before
        begins = hold.bulk and not before and size > 0
        return others + size + (MAX_BYTES // 4 if begins and others else 0) <= MAX_BYTES

    @rule(sizes=st.lists(st.integers(0, MAX_BYTES // 2), max_size=3), which=st.integers(0, 5))
    def keep_images(self, sizes: list[int], which: int) -> None:
        for hold, taken in self.open[which : which + 1]:
            fits = self.fits(hold, taken[1], sum(sizes))
            try:
                hold.keep([bytes(size) for size in sizes])
                assert fits
                taken[1] = sum(sizes)
            except ServiceError:
                assert not fits

    @rule(which=st.integers(0, 5))
    def drop_an_image(self, which: int) -> None:
        for hold, taken in self.open[which : which + 1]:
            if taken[1] >= sum(map(len, hold.images)) > 0:
                taken[1] -= len(hold.images[0])
                hold.drop_image(0)

    @rule(which=st.integers(0, 5))
    def end(self, which: int) -> None:
        for hold, _ in self.open[which : which + 1]:
            hold.__exit__(None, None, None)
        del self.open[which : which + 1]

    @invariant()
    def accounts_are_the_sums_of_what_is_held(self) -> None:
        assert self.made.tokens == sum(taken[0] for _, taken in self.open) <= MAX_TOKENS
        assert self.made.bytes == sum(taken[1] for _, taken in self.open) <= MAX_BYTES
        assert not self.open or gauges(self.made) == (self.made.tokens, self.made.bytes)

    def teardown(self) -> None:
        for hold, _ in self.open:
            hold.__exit__(None, None, None)
        assert (self.made.tokens, self.made.bytes) == (0, 0)


TestRequests = Requests.TestCase
