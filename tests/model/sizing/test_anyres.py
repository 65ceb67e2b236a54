"""The oracles: LLaVA-NeXT's choice of a layout and its sizes in Transformers."""

import math
from dataclasses import replace
from random import Random

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from transformers.image_processing_utils import get_patch_output_size, select_best_resolution
from transformers.image_utils import ChannelDimension
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil

from model.errors import BudgetError
from model.sizing.anyres import best_layout, fitted_size
from model.sizing.budget import Budget
from model.sizing.geometry import FixedInput, Geometry
from model.sizing.plan import Segment, plan_image, turn_plan
from tests.examples import many

LLAVA_NEXT = Geometry.for_fixed(14, FixedInput(336, "shortest_edge", 336, "bicubic"))
# LLaVA-OneVision: SigLIP so400m/14 at 384, and every layout from one tile to six by six.
ONEVISION = replace(
    Geometry.for_fixed(14, FixedInput(384, "squash", 384, "bicubic")),
    pinpoints=tuple((384 * rows, 384 * columns) for rows in range(1, 7) for columns in range(1, 7)),
)
PLENTY = Budget.of_tokens(100_000, 14)

MOST = (400, 5000, 10**7)
SIDES = st.one_of([st.integers(1, most) for most in MOST])
SIZES = st.tuples(SIDES, SIDES)
LAYOUTS = st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=12)


def test_the_examples_are_those_of_the_reference() -> None:
    assert [[rows * 336, columns * 336] for rows, columns in LLAVA_NEXT.tile_layouts] == (
        LlavaNextImageProcessorPil.image_grid_pinpoints
    )
    assert [list(pinpoint) for pinpoint in ONEVISION.pinpoints] == LlavaOnevisionImageProcessorPil.image_grid_pinpoints


def random_size(random: Random) -> tuple[int, int]:
    """As `SIZES`, without hypothesis, which takes a hundred times as long to draw a size as it takes to plan for it."""
    return random.randint(1, random.choice(MOST)), random.randint(1, random.choice(MOST))


def random_layouts(random: Random) -> list[tuple[int, int]]:
    """As `LAYOUTS`."""
    return [(random.randint(1, 6), random.randint(1, 6)) for _ in range(random.randint(1, 12))]


@many(500)
@given(SIZES, st.sampled_from([224, 256, 336, 384]), st.one_of(LAYOUTS, st.just(list(LLAVA_NEXT.tile_layouts))))
@pytest.mark.slow
def test_the_layout_equals_the_reference(size: tuple[int, int], side: int, layouts: list[tuple[int, int]]) -> None:
    check_layout(size, side, layouts)


@pytest.mark.slow
def test_thousands_of_layouts_equal_the_reference() -> None:
    random = Random(0)
    for number in range(5000):
        layouts = random_layouts(random) if number % 2 else list(LLAVA_NEXT.tile_layouts)
        check_layout(random_size(random), random.choice((224, 256, 336, 384)), layouts)


def check_layout(size: tuple[int, int], side: int, layouts: list[tuple[int, int]]) -> None:
    rows, columns = best_layout(size, layouts, side)
    expected = select_best_resolution(size, [(rows * side, columns * side) for rows, columns in layouts])
    assert (rows * side, columns * side) == expected


@many(300)
@given(st.one_of(st.tuples(st.integers(1, 400), st.integers(1, 400)), SIZES), st.integers(1, 6), st.integers(1, 6))
@pytest.mark.slow
def test_the_fitted_size_equals_the_reference(size: tuple[int, int], rows: int, columns: int) -> None:
    check_fitted_size(size, rows, columns)


@pytest.mark.slow
def test_thousands_of_fitted_sizes_equal_the_reference() -> None:
    random = Random(0)
    for _ in range(5000):
        check_fitted_size(random_size(random), random.randint(1, 6), random.randint(1, 6))


def check_fitted_size(size: tuple[int, int], rows: int, columns: int) -> None:
    canvas = (rows * 336, columns * 336)
    image = np.broadcast_to(np.uint8(0), (3, *size))
    fitted = fitted_size(size, canvas)
    assert fitted == get_patch_output_size(image, canvas, ChannelDimension.FIRST)
    assert min(fitted) >= 1
    assert fitted[0] <= canvas[0]
    assert fitted[1] <= canvas[1]


def test_llava_next_at_672_square_takes_five_segments_and_2880_tokens() -> None:
    plan = plan_image((672, 672), geometry=LLAVA_NEXT, budget=PLENTY, strategy="anyres")
    tile = (24, 24)
    assert plan.segments == (
        Segment(tile, "thumbnail"),
        Segment(tile, "tile", 0, 0),
        Segment(tile, "tile", 0, 1),
        Segment(tile, "tile", 1, 0),
        Segment(tile, "tile", 1, 1),
    )
    assert (plan.tokens, plan.offsets, plan.resized) == (2880, (0, 576, 1152, 1728, 2304, 2880), (672, 672))


@pytest.mark.parametrize(
    ("size", "pinpoints", "resized", "tokens"),
    [
        ((1344, 1344), ((1344, 1344),), (1344, 1344), 9792),
        ((1792, 896), (), (672, 336), 1728),
        ((896, 1792), (), (336, 672), 1728),
        ((100, 100), (), (336, 672), 1728),
        ((300, 2000), (), (336, 1008), 2304),
    ],
)
def test_worked_sizes(
    size: tuple[int, int], pinpoints: tuple[tuple[int, int], ...], resized: tuple[int, int], tokens: int
) -> None:
    geometry = replace(LLAVA_NEXT, pinpoints=pinpoints)
    plan = plan_image(size, geometry=geometry, budget=PLENTY, strategy="anyres")
    assert (plan.resized, plan.tokens) == (resized, tokens)


def test_a_tile_that_is_no_multiple_of_the_patch_has_the_patches_that_fit() -> None:
    plan = plan_image((768, 1152), geometry=ONEVISION, budget=PLENTY, strategy="anyres")
    assert plan.resized == (768, 1152)
    assert plan.tokens == 7 * 729


@pytest.mark.parametrize(("cap", "tokens"), [(1024, 1024), (1023, 768), (768, 768), (1279, 1024), (1280, 1280)])
def test_layouts_over_the_cap_are_left_out(cap: int, tokens: int) -> None:
    geometry = Geometry.for_naflex(16, 256)
    budget = Budget.of_tokens(cap, 16)
    most = max(plan_image(size, geometry=geometry, budget=budget, strategy="anyres").tokens for size in SHAPES)
    assert most == tokens


SHAPES = [(1000, 1000), (3000, 1000), (1000, 3000), (1000, 2000), (2000, 1000)]


def test_no_layout_within_the_cap_is_refused_by_the_name_of_the_cap() -> None:
    geometry = Geometry.for_naflex(16, 256)
    for bound in ("max_tokens", "max_pixels"):
        with pytest.raises(BudgetError, match=rf"takes 768 tokens.*the cap is 767 \({bound}\)") as caught:
            plan_image((9, 9), geometry=geometry, budget=Budget(767, 767 * 256, bound=bound), strategy="anyres")
        assert caught.value.param == bound


@many(200)
@given(SIZES, LAYOUTS, st.integers(256 * 2, 256 * 40))
@example(size=(400, 300), layouts=[(2, 1), (1, 3)], cap=10_000)
@pytest.mark.slow
def test_a_turned_plan_takes_as_many_tokens(size: tuple[int, int], layouts: list[tuple[int, int]], cap: int) -> None:
    check_turned_tokens(size, layouts, cap)


@pytest.mark.slow
def test_thousands_of_turned_plans_take_as_many_tokens() -> None:
    random = Random(0)
    for _ in range(2000):
        check_turned_tokens(random_size(random), random_layouts(random), random.randint(256 * 2, 256 * 40))


def check_turned_tokens(size: tuple[int, int], layouts: list[tuple[int, int]], cap: int) -> None:
    layouts.append((1, 1))
    pinpoints = tuple((256 * rows, 256 * columns) for rows, columns in layouts)
    geometry = replace(Geometry.for_naflex(16, 256), pinpoints=pinpoints)
    budget = Budget.of_tokens(cap, 16)
    plan = plan_image(size, geometry=geometry, budget=budget, strategy="anyres")
    turned = turn_plan(plan, geometry=geometry)
    assert (turned.tokens, turned.size) == (plan.tokens, size[::-1])
    assert turned.resized in pinpoints


@many(200)
@given(SIZES, st.integers(256 * 3, 256 * 10))
def test_with_symmetric_layouts_a_turned_plan_is_the_plan_of_the_turned_picture(
    size: tuple[int, int], cap: int
) -> None:
    check_turned_plan(size, cap)


@pytest.mark.slow
def test_thousands_of_turned_plans_are_those_of_the_turned_pictures() -> None:
    random = Random(0)
    for _ in range(2000):
        check_turned_plan(random_size(random), random.randint(256 * 3, 256 * 10))


def check_turned_plan(size: tuple[int, int], cap: int) -> None:
    geometry, budget = Geometry.for_naflex(16, 256), Budget.of_tokens(cap, 16)
    plan = plan_image(size, geometry=geometry, budget=budget, strategy="anyres")
    assert turn_plan(plan, geometry=geometry) == plan_image(
        size[::-1], geometry=geometry, budget=budget, strategy="anyres"
    )


@given(SIZES, st.integers(256 * 3, 256 * 10))
def test_tokens_never_fall_as_the_cap_rises(size: tuple[int, int], cap: int) -> None:
    geometry = Geometry.for_naflex(16, 256)
    fewer, more = (
        plan_image(size, geometry=geometry, budget=Budget.of_tokens(n, 16), strategy="anyres") for n in (cap, cap + 256)
    )
    assert fewer.tokens <= more.tokens <= cap + 256
    assert math.prod(fewer.resized) <= math.prod(more.resized)
