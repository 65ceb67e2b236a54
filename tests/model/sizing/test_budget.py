from typing import Any

import pytest

from model.errors import BudgetError
from model.sizing.budget import Budget, settle_budget
from model.sizing.geometry import FixedInput, Geometry, Strategy

NAFLEX = Geometry.for_naflex(16, 256)
CLIP = Geometry.for_fixed(16, FixedInput(384, "squash", 384, "bilinear"))
QWEN = Geometry(16, ("native", "square"), native_factor=2, native_max_pixels=700 * 256 + 9)


def settle(asked: dict[str, int], strategy: Strategy = "naflex", geometry: Geometry = NAFLEX) -> Budget:
    bounds: dict[str, Any] = {"max_tokens": None, "max_pixels": None, "min_pixels": None} | asked
    return settle_budget(geometry=geometry, strategy=strategy, default_max_tokens=256, max_image_tokens=1024, **bounds)


@pytest.mark.parametrize(
    ("asked", "cap", "bound"),
    [
        ({}, 256, "default_max_tokens"),
        ({"max_tokens": 100}, 100, "max_tokens"),
        ({"max_tokens": 1024}, 1024, "max_tokens"),
        ({"max_tokens": 5000}, 1024, "max_image_tokens"),
        ({"max_pixels": 256 * 16**2 + 255}, 256, "max_pixels"),
        ({"max_pixels": 10**9}, 1024, "max_image_tokens"),
        ({"max_tokens": 300, "max_pixels": 200 * 256}, 200, "max_pixels"),
        ({"max_tokens": 100, "max_pixels": 200 * 256}, 100, "max_tokens"),
        ({"max_tokens": 1, "max_pixels": 256}, 1, "max_tokens"),
    ],
)
def test_the_smallest_bound_is_the_cap_and_is_remembered(asked: dict[str, int], cap: int, bound: str) -> None:
    budget = settle(asked)
    assert (budget.token_cap, budget.bound) == (cap, bound)


def test_the_area_keeps_what_is_over_whole_tokens() -> None:
    assert settle({"max_pixels": 1000}, "native").max_area == 1000
    assert settle({"max_tokens": 3}, "native").max_area == 768


@pytest.mark.parametrize(
    ("geometry", "strategy", "cap"),
    [
        (NAFLEX, "naflex", 256),
        (NAFLEX, "square", 256),
        (NAFLEX, "native", 1024),
        (NAFLEX, "anyres", 1024),
        (CLIP, "square", 1024),
        (CLIP, "anyres", 1024),
        (QWEN, "native", 700),
        (QWEN, "square", 256),
    ],
)
def test_the_default_cap_is_for_strategies_that_fill_it(geometry: Geometry, strategy: Strategy, cap: int) -> None:
    assert settle({}, strategy, geometry).token_cap == cap


@pytest.mark.parametrize(
    ("param", "value"), [("max_tokens", 0), ("max_tokens", -5), ("max_pixels", 255), ("max_pixels", 0)]
)
def test_less_than_one_patch_is_refused_by_name(param: str, value: int) -> None:
    with pytest.raises(BudgetError, match=f"{param} is {value}") as caught:
        settle({param: value})
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("strategy", "asked", "message"),
    [
        ("naflex", {"min_pixels": 500}, "strategy=native only, not naflex"),
        ("anyres", {"min_pixels": 500}, "strategy=native only, not anyres"),
        ("native", {"min_pixels": 0}, "min_pixels is 0"),
        ("native", {"min_pixels": 1001, "max_pixels": 1000}, "min_pixels is 1001; max_pixels allows an area of 1000"),
        ("native", {"min_pixels": 1024 * 256 + 1}, "max_image_tokens allows an area of 262144"),
    ],
)
def test_least_pixels_without_a_meaning_or_without_room_are_refused(
    strategy: Strategy, asked: dict[str, int], message: str
) -> None:
    with pytest.raises(BudgetError, match=message) as caught:
        settle(asked, strategy)
    assert caught.value.param == "min_pixels"


def test_a_lowered_budget_says_what_lowered_it_and_a_higher_cap_changes_nothing() -> None:
    budget = Budget(10, 10 * 256 + 7, min_pixels=300)
    assert budget.lowered(10, 16, bound="max_request_tokens") is budget
    assert budget.lowered(9, 16, bound="max_request_tokens") == Budget(9, 9 * 256, 300, "max_request_tokens")


def test_a_refusal_names_a_parameter_that_the_caller_has() -> None:
    params = [Budget(1, 1, bound=bound).refusal("too long").param for bound in ("max_pixels", "max_image_tokens")]
    assert params == ["max_pixels", "max_tokens"]
