import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers.models.siglip2.image_processing_pil_siglip2 import get_image_size_for_max_num_patches

from model.errors import BudgetError
from model.sizing.budget import Budget
from model.sizing.geometry import FixedInput, Geometry, Strategy
from model.sizing.plan import ImagePlan, naflex_grid, plan_image, turn_plan

NAFLEX = Geometry.for_naflex(16, 256)
CLIP = Geometry.for_fixed(14, FixedInput(336, "shortest_edge", 336, "bicubic"))
SIGLIP = Geometry.for_fixed(14, FixedInput(384, "squash", 384, "bicubic"))
QWEN = Geometry(14, ("native", "square"), resample="bicubic", native_factor=2)

SIDES = st.one_of(st.integers(1, 4000), st.integers(1, 60_000))
CAPS = st.integers(1, 1024)


@pytest.mark.parametrize(
    ("size", "grids"),
    [
        ((480, 640), [(9, 12), (14, 18), (21, 27), (27, 36)]),
        ((1080, 1920), [(8, 15), (12, 21), (18, 32), (24, 42)]),
        ((224, 1024), [(5, 23), (7, 32), (11, 51), (15, 68)]),
        ((2853, 1000), [(18, 7), (26, 9), (40, 14), (53, 19)]),
        ((500, 500), [(11, 11), (16, 16), (24, 24), (32, 32)]),
    ],
)
def test_worked_sizes(size: tuple[int, int], grids: list[tuple[int, int]]) -> None:
    assert [naflex_grid(*size, 16, cap) for cap in (128, 256, 576, 1024)] == grids


@given(SIDES, SIDES, st.sampled_from([14, 16, 32]), CAPS)
def test_naflex_equals_the_reference(height: int, width: int, patch_size: int, cap: int) -> None:
    expected = get_image_size_for_max_num_patches(height, width, patch_size, cap)
    grid_h, grid_w = naflex_grid(height, width, patch_size, cap)
    assert (grid_h * patch_size, grid_w * patch_size) == tuple(expected)


@given(SIDES, SIDES, CAPS)
def test_naflex_never_passes_the_cap_and_turns_with_the_image(height: int, width: int, cap: int) -> None:
    grid_h, grid_w = naflex_grid(height, width, 16, cap)
    assert 1 <= grid_h * grid_w <= cap
    assert naflex_grid(width, height, 16, cap) == (grid_w, grid_h)


def test_a_single_pixel_is_scaled_up_at_most_a_hundredfold() -> None:
    assert naflex_grid(1, 1, 16, 256) == (7, 7)


def plan(size: tuple[int, int], cap: int, strategy: Strategy, geometry: Geometry = NAFLEX) -> ImagePlan:
    budget = Budget.of_tokens(cap, geometry.patch_size)
    return plan_image(size, geometry=geometry, budget=budget, strategy=strategy)


def test_an_image_too_long_for_the_search_is_refused_rather_than_over_budget() -> None:
    with pytest.raises(BudgetError, match="cannot be scaled down to 2 tokens"):
        plan((1, 89_000_000), 2, "naflex")


@given(st.integers(1, 5000), st.integers(1, 5000), CAPS)
def test_square_is_the_largest_within_the_cap(height: int, width: int, cap: int) -> None:
    planned = plan((height, width), cap, "square")
    side, other = planned.segments[0].grid
    assert side == other
    assert side**2 <= cap < (side + 1) ** 2
    assert planned.resized == (side * 16, side * 16)
    assert planned.tokens == side**2


def test_square_keeps_to_the_factor_of_a_model_that_merges_patches() -> None:
    assert [plan((500, 700), cap, "square", QWEN).segments[0].grid[0] for cap in (4, 15, 16, 35, 36)] == [2, 2, 4, 4, 6]
    with pytest.raises(BudgetError, match="cannot be scaled down to 3 tokens"):
        plan((500, 700), 3, "square", QWEN)


def test_square_on_a_fixed_model_is_its_own_input_whatever_the_image() -> None:
    for size in [(1, 1), (1792, 896), (150, 30_000)]:
        assert (plan(size, 5000, "square", CLIP).resized, plan(size, 5000, "square", CLIP).tokens) == ((336, 336), 576)
    assert plan((640, 480), 729, "square", SIGLIP).segments[0].grid == (27, 27)


def test_a_fixed_model_cannot_be_lowered() -> None:
    with pytest.raises(
        BudgetError, match=r"cannot be scaled down to 575 tokens by strategy=square: it takes 576"
    ) as caught:
        plan((640, 480), 575, "square", CLIP)
    assert caught.value.param == "max_tokens"


def test_a_shortest_edge_is_not_resized_where_the_longer_would_fill_the_memory() -> None:
    with pytest.raises(BudgetError, match="longer than 200 times") as caught:
        plan((1, 50_000_000), 576, "square", CLIP)
    assert caught.value.param == "strategy"
    assert plan((1, 50_000_000), 729, "square", SIGLIP).tokens == 729


def test_one_picture_under_every_strategy() -> None:
    size = (1792, 896)
    assert plan(size, 10_000, "square", CLIP).tokens == 576
    assert plan(size, 10_000, "anyres", CLIP).tokens == 1728
    assert plan(size, 10_000, "native", Geometry.for_naflex(14, 576)).tokens == 8192
    assert plan(size, 576, "naflex", Geometry.for_naflex(14, 576)).tokens == 561


@pytest.mark.parametrize(
    ("geometry", "lacking", "others"),
    [(CLIP, "naflex", "square, anyres"), (CLIP, "native", "square, anyres"), (QWEN, "anyres", "native, square")],
)
def test_a_strategy_that_the_model_lacks_is_refused_by_name(geometry: Geometry, lacking: Strategy, others: str) -> None:
    with pytest.raises(BudgetError, match=f"does not take strategy={lacking}; it takes {others}") as caught:
        plan((100, 100), 1024, lacking, geometry)
    assert caught.value.param == "strategy"


@pytest.mark.parametrize("strategy", NAFLEX.strategies)
@pytest.mark.parametrize(("size", "param"), [((0, 10), "height"), ((10, 0), "width"), ((-1, 0), "height")])
def test_a_side_of_no_pixels_is_refused_by_name(strategy: Strategy, size: tuple[int, int], param: str) -> None:
    with pytest.raises(BudgetError, match=f"{param} is") as caught:
        plan(size, 1024, strategy)
    assert caught.value.param == param


@given(SIDES, SIDES, st.integers(768, 4096), st.sampled_from(NAFLEX.strategies))
def test_a_turned_plan_is_that_of_the_turned_picture(height: int, width: int, cap: int, strategy: Strategy) -> None:
    try:
        planned = plan((height, width), cap, strategy)
    except BudgetError:
        with pytest.raises(BudgetError):
            plan((width, height), cap, strategy)
        return
    turned = turn_plan(planned, geometry=NAFLEX)
    assert turned == plan((width, height), cap, strategy)
    assert turned.tokens == planned.tokens <= cap
