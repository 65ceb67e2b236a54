"""The cost of packs: the fit finds what made the times, follows when that changes, and knows how wrong it is."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.engine.cost.fit import FIRST_FIT_PACKS, CostFit, CostModel
from tests.examples import many

Truth = tuple[float, float, float]


def pack(source: random.Random) -> tuple[int, int]:
    """Σn and Σn² of a random pack."""
    lengths = [source.randint(16, 1024) for _ in range(source.randint(1, 12))]
    return sum(lengths), sum(n * n for n in lengths)


def seconds(truth: Truth, sums: tuple[int, int]) -> float:
    return truth[0] * sums[0] + truth[1] * sums[1] + truth[2]


def observed(model: CostModel, truth: Truth, packs: int, *, seed: int = 0, noise: float = 0.0) -> CostFit:
    source = random.Random(seed)
    for _ in range(packs):
        sums = pack(source)
        model.observe(*sums, seconds(truth, sums) * source.lognormvariate(0, noise))
    assert model.fit is not None
    return model.fit


def test_there_is_no_fit_before_enough_packs():
    model = CostModel()
    for number in range(FIRST_FIT_PACKS):
        assert model.fit is None
        model.observe(100 * (number + 1), 10_000, 0.1)
    assert model.fit is not None
    assert model.fit.error is None, "no pack has been predicted yet"


@many(30)
@given(st.tuples(st.floats(1e-7, 1e-3), st.floats(1e-10, 1e-7), st.floats(0, 0.05)), st.integers(0, 10**6))
def test_packs_like_those_seen_are_predicted(truth: Truth, seed: int):
    fit = observed(CostModel(), truth, 200, seed=seed)
    for _ in range(10):
        sums = pack(source := random.Random(seed + 1))
        assert fit.seconds(*sums) == pytest.approx(seconds(truth, sums), rel=0.05), source


def rate_after(*packs: tuple[int, float], known: bool = True) -> float:
    """Tokens and seconds of each. known: full packs of 4,000 tokens in 0.4 s were run before."""
    model = CostModel()
    if known:
        model.know_rate(4000, 0.4)
    for tokens, took_s in packs:
        model.observe_rate(tokens, took_s)
    assert model.tokens_per_s is not None
    return model.tokens_per_s


def test_small_packs_do_not_hide_how_fast_large_ones_are():
    """A pack of one token takes 0.01 s, as nearly all of any pack's fixed cost."""
    assert rate_after(*[(1, 0.01)] * 300) == pytest.approx(10_000, rel=0.05)
    assert rate_after((1, 60.0)) == pytest.approx(10_000, rel=0.01), "a pack that was held up"
    assert rate_after(*[(1, 0.01)] * 10, known=False) == pytest.approx(100)
    # One large pack is enough to tell.
    assert rate_after(*[(1, 0.01)] * 300, (4000, 0.4), known=False) == pytest.approx(10_000, rel=0.05)


@pytest.mark.parametrize("tokens", [4000, 1000])
def test_a_device_that_becomes_slow_is_found_out(tokens: int):
    """Within ten full packs, or as many tokens in smaller ones."""
    slow = (tokens, 3 * tokens / 10_000)
    assert rate_after(*[slow] * (40_000 // tokens)) == pytest.approx(10_000 / 3, rel=0.3)


@many(50)
@given(st.lists(st.tuples(st.integers(1, 10**5), st.floats(1e-3, 1e3)), min_size=1, max_size=60), st.booleans())
def test_the_rate_lies_among_those_seen(packs: list[tuple[int, float]], known: bool):
    rates = [tokens / took_s for tokens, took_s in packs] + [10_000.0] * known
    assert min(rates) * 0.999 <= rate_after(*packs, known=known) <= max(rates) * 1.001


@many(50)
@given(st.lists(st.tuples(st.integers(1, 10**5), st.integers(1, 10**9), st.floats(1e-6, 1e3)), min_size=8, max_size=60))
def test_no_part_of_the_cost_is_ever_negative(packs: list[tuple[int, int, float]]):
    model = CostModel()
    for one in packs:
        model.observe(*one)
    assert model.fit is not None
    assert min(model.fit.a, model.fit.b, model.fit.c) >= 0
    assert model.fit.seconds(1000, 10**6) > 0


def test_the_fit_follows_a_machine_that_becomes_slower():
    model = CostModel()
    truth, slower = (5e-5, 2e-8, 5e-3), (2e-4, 8e-8, 2e-2)
    observed(model, truth, 150, noise=0.05)
    fit = observed(model, slower, 100, seed=1, noise=0.05)
    assert fit.seconds(2048, 2 * 1024**2) == pytest.approx(seconds(slower, (2048, 2 * 1024**2)), rel=0.2)
    assert fit.packs == 250


def test_a_few_delayed_packs_change_little():
    model, source, truth = CostModel(), random.Random(3), (5e-5, 2e-8, 5e-3)
    for number in range(150):
        sums = pack(source)
        model.observe(*sums, seconds(truth, sums) * (8 if number % 10 == 0 else 1))
    assert model.fit is not None
    assert model.fit.seconds(3000, 10**6) == pytest.approx(seconds(truth, (3000, 10**6)), rel=0.1)


def test_many_equal_packs_do_not_erase_the_fit_of_others():
    model, truth = CostModel(), (5e-5, 2e-8, 5e-3)
    observed(model, truth, 100)
    for _ in range(300):
        model.observe(256, 256**2, seconds(truth, (256, 256**2)))
    assert model.fit is not None
    assert model.fit.seconds(4096, 4 * 1024**2) == pytest.approx(seconds(truth, (4096, 4 * 1024**2)), rel=0.15)


def test_the_error_is_of_predictions_made_before_the_pack_was_seen():
    model, truth = CostModel(), (5e-5, 0.0, 0.0)
    before = observed(model, truth, 50)
    assert before.error == pytest.approx(0, abs=0.01)
    for _ in range(33):
        sums = (1000, 10**6)
        predicted = model.fit.seconds(*sums) if model.fit else 0.0
        model.observe(*sums, 2 * predicted)
    assert model.fit is not None
    assert model.fit.error == pytest.approx(0.5)
