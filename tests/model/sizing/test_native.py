"""The oracle: Qwen2-VL's `smart_resize` in Transformers."""

from random import Random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from model.errors import BudgetError
from model.sizing.budget import Budget
from model.sizing.geometry import Geometry
from model.sizing.native import native_size
from model.sizing.plan import plan_image
from tests.examples import many

SIDES = st.one_of(st.integers(1, 400), st.integers(1, 8000))
FACTORS = st.sampled_from([14, 16, 28, 32])

# Often halves of the factor: ties between two multiples, which round to the even one.
HALVES = st.builds(lambda halves: halves * 7, st.integers(1, 800))


@many(500)
@given(st.one_of(SIDES, HALVES), st.one_of(SIDES, HALVES), FACTORS, st.integers(1, 100_000), st.integers(1, 20_000_000))
@pytest.mark.slow
def test_the_size_equals_the_reference(height: int, width: int, factor: int, least: int, most: int) -> None:
    assume(least <= most)
    check_size(height, width, factor, least, most)


def test_tens_of_thousands_of_sizes_equal_the_reference() -> None:
    """Without hypothesis, which takes a hundred times as long to draw a size as it takes to compute it."""
    random = Random(0)
    for _ in range(20_000):
        height, width = (
            random.choice((random.randint(1, 400), random.randint(1, 8000), 7 * random.randint(1, 800)))
            for _ in range(2)
        )
        least = random.choice((random.randint(1, 1000), random.randint(1, 100_000)))
        most = random.choice((random.randint(least, 100_000), random.randint(least, 20_000_000)))
        check_size(height, width, random.choice((14, 16, 28, 32)), least, most)


def check_size(height: int, width: int, factor: int, least: int, most: int) -> None:
    try:
        expected = smart_resize(height, width, factor=factor, min_pixels=least, max_pixels=most)
    except ValueError:
        with pytest.raises(BudgetError) as caught:
            native_size((height, width), factor=factor, min_pixels=least, max_pixels=most)
        assert caught.value.param == "strategy"
        return
    assert native_size((height, width), factor=factor, min_pixels=least, max_pixels=most) == expected


@given(SIDES, SIDES, FACTORS, st.integers(1, 100_000), st.integers(1, 20_000_000))
def test_the_size_turns_with_the_image(height: int, width: int, factor: int, least: int, most: int) -> None:
    assume(max(height, width) <= 200 * min(height, width) and least <= most)
    upright = native_size((height, width), factor=factor, min_pixels=least, max_pixels=most)
    assert native_size((width, height), factor=factor, min_pixels=least, max_pixels=most) == upright[::-1]


@pytest.mark.parametrize(
    ("side", "rounded"), [(7, 0), (8, 14), (20, 14), (21, 28), (22, 28), (35, 28), (36, 42), (49, 56)]
)
def test_a_tie_goes_to_the_even_multiple(side: int, rounded: int) -> None:
    assert native_size((side, 140), factor=14, min_pixels=0, max_pixels=10**9) == (rounded, 140)


def test_an_aspect_ratio_over_200_is_refused_by_name() -> None:
    assert native_size((10, 2000), factor=16, min_pixels=1, max_pixels=10**9) == (16, 2000)
    with pytest.raises(BudgetError, match="10×2001 pixels is longer than 200 times the other") as caught:
        native_size((10, 2001), factor=16, min_pixels=1, max_pixels=10**9)
    assert caught.value.param == "strategy"


@pytest.mark.parametrize(
    ("size", "patch_size", "factor", "grid"),
    [
        ((600, 1500), 14, 1, (43, 107)),
        ((1792, 896), 14, 1, (128, 64)),
        ((600, 1500), 14, 2, (42, 108)),
        ((32, 48), 16, 1, (2, 3)),
        ((3, 3), 16, 1, (1, 1)),
    ],
)
def test_worked_sizes(size: tuple[int, int], patch_size: int, factor: int, grid: tuple[int, int]) -> None:
    geometry = Geometry(patch_size, ("native",), native_factor=factor)
    plan = plan_image(size, geometry=geometry, budget=Budget.of_tokens(10_000, patch_size), strategy="native")
    assert plan.segments[0].grid == grid
    assert plan.resized == (grid[0] * patch_size, grid[1] * patch_size)
    assert plan.tokens == grid[0] * grid[1]


@many(500)
@given(
    SIDES,
    SIDES,
    st.sampled_from([1, 2]),
    st.one_of(st.none(), st.integers(1, 4_000_000)),
    st.one_of(st.none(), st.integers(1, 1_000_000)),
    st.integers(256, 4_000_000),
)
def test_a_plan_asks_the_reference_for_the_bounds_of_model_and_budget(
    height: int, width: int, merge: int, asked: int | None, own: int | None, max_area: int
) -> None:
    assume(max(height, width) <= 200 * min(height, width) and (asked or 0) <= max_area)
    factor = 16 * merge
    geometry = Geometry(16, ("native",), native_factor=merge, native_min_pixels=own)
    least = asked or min(own or factor**2, max_area)
    expected = smart_resize(height, width, factor=factor, min_pixels=least, max_pixels=max_area)
    budget = Budget(max_area // 256, max_area, asked)
    if expected[0] * expected[1] > max_area:
        with pytest.raises(BudgetError, match="cannot be scaled down") as caught:
            plan_image((height, width), geometry=geometry, budget=budget, strategy="native")
        assert caught.value.param == "max_tokens"
        return
    plan = plan_image((height, width), geometry=geometry, budget=budget, strategy="native")
    assert plan.resized == expected
    assert 1 <= plan.tokens <= budget.token_cap


def test_the_area_is_not_rounded_down_to_whole_tokens_first() -> None:
    geometry = Geometry.for_naflex(16, 256)
    whole, more = Budget.of_tokens(99, 16), Budget(99, 99 * 256 + 255)
    sizes = {plan_image((990, 1000), geometry=geometry, budget=b, strategy="native").resized for b in (whole, more)}
    assert len(sizes) == 1
    expected = smart_resize(1601, 3211, factor=16, min_pixels=256, max_pixels=50 * 256 + 100)
    budget = Budget(50, 50 * 256 + 100)
    assert plan_image((1601, 3211), geometry=geometry, budget=budget, strategy="native").resized == expected
    assert smart_resize(1601, 3211, factor=16, min_pixels=256, max_pixels=50 * 256) != expected
