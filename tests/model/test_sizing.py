import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers.models.siglip2.image_processing_pil_siglip2 import get_image_size_for_max_num_patches

from model.errors import BudgetError
from model.sizing import naflex_grid, plan_image, resolve_token_cap, share_request_tokens

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


def test_an_image_too_long_for_the_search_is_refused_rather_than_over_budget() -> None:
    with pytest.raises(BudgetError, match="cannot be scaled down to 2 tokens"):
        plan_image((1, 89_000_000), patch_size=16, token_cap=2, strategy="naflex")


@given(st.integers(1, 5000), st.integers(1, 5000), CAPS)
def test_square_is_the_largest_within_the_cap(height: int, width: int, cap: int) -> None:
    plan = plan_image((height, width), patch_size=16, token_cap=cap, strategy="square")
    side, other = plan.segments[0].grid
    assert side == other
    assert side**2 <= cap < (side + 1) ** 2
    assert plan.resized == (side * 16, side * 16)
    assert plan.tokens == side**2


@pytest.mark.parametrize(
    ("max_tokens", "max_pixels", "cap"),
    [
        (None, None, 256),
        (100, None, 100),
        (5000, None, 1024),
        (None, 256 * 16**2 + 255, 256),
        (None, 10**9, 1024),
        (300, 200 * 256, 200),
        (100, 200 * 256, 100),
        (1, 256, 1),
    ],
)
def test_the_smallest_bound_is_the_cap(max_tokens: int | None, max_pixels: int | None, cap: int) -> None:
    resolved = resolve_token_cap(
        max_tokens=max_tokens, max_pixels=max_pixels, patch_size=16, default_max_tokens=256, max_image_tokens=1024
    )
    assert resolved == cap


@pytest.mark.parametrize(
    ("param", "value"), [("max_tokens", 0), ("max_tokens", -5), ("max_pixels", 255), ("max_pixels", 0)]
)
def test_less_than_one_patch_is_refused_by_name(param: str, value: int) -> None:
    bounds: dict[str, int | None] = {"max_tokens": None, "max_pixels": None} | {param: value}
    with pytest.raises(BudgetError, match=f"{param} is {value}") as caught:
        resolve_token_cap(**bounds, patch_size=16, default_max_tokens=256, max_image_tokens=1024)
    assert caught.value.param == param


SIZES = st.lists(st.tuples(st.integers(1, 3000), st.integers(1, 3000), CAPS), min_size=1, max_size=6)


@given(SIZES, st.integers(1, 4096))
def test_request_tokens_are_shared_at_the_highest_level_that_fits(images, limit: int) -> None:
    sizes, caps = [(h, w) for h, w, _ in images], [cap for *_, cap in images]
    if limit < len(images):
        with pytest.raises(BudgetError, match="max_request_tokens"):
            share_request_tokens(sizes, caps, patch_size=16, strategy="naflex", max_request_tokens=limit)
        return
    shared = share_request_tokens(sizes, caps, patch_size=16, strategy="naflex", max_request_tokens=limit)
    level = max(shared)
    assert shared == [min(cap, level) for cap in caps]
    assert _total(sizes, shared) <= limit
    if shared != caps:
        assert _total(sizes, [min(cap, level + 1) for cap in caps]) > limit


def _total(sizes: list[tuple[int, int]], caps: list[int]) -> int:
    return sum(
        plan_image(size, patch_size=16, token_cap=cap, strategy="naflex").tokens
        for size, cap in zip(sizes, caps, strict=True)
    )
