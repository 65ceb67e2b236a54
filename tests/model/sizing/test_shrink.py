"""The oracles: the sizes that Transformers' processors of Pixtral and Kimi K2.5 give."""

import random
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided
from transformers.models.pixtral.image_processing_pil_pixtral import get_resize_output_image_size

from model.errors import BudgetError
from model.sizing.budget import Budget
from model.sizing.geometry import Geometry
from model.sizing.plan import plan_image
from model.sizing.shrink import Shrink, rounded_up, shrunk_size
from tests.language_towers import navit_resize

NAVIT_RESIZE = navit_resize()
NO_CAP = 10**9


def sizes(count: int) -> Iterator[tuple[tuple[int, int], random.Random]]:
    """Icons, photographs, pages and strips, and what else to draw from."""
    draw = random.Random(0)
    for _ in range(count):
        sides = (draw.randint(1, draw.choice([60, 1600, 20_000])) for _ in range(2))
        yield (next(sides), next(sides)), draw


def pixtrals_size(size: tuple[int, int], side: int, patch: int) -> tuple[int, int]:
    picture = as_strided(np.zeros(1, np.uint8), (3, *size), (0, 0, 0))
    height, width = get_resize_output_image_size(picture, side, patch, "channels_first")
    # It rounds the shorter side of a strip to nothing, and its processor then raises.
    return max(patch, height), max(patch, width)


def test_sizes_of_pixtral_equal_the_reference() -> None:
    for size, draw in sizes(5000):
        patch, multiple, side = draw.choice([14, 16]), draw.choice([1, 2]), draw.choice([1024, 1540, 777, 50, 1])
        shrink = Shrink(side, multiple=multiple)
        picture = shrunk_size(size, shrink, patch_size=patch, token_cap=NO_CAP, min_pixels=None)
        ours = rounded_up(picture, patch * multiple)
        assert ours == pixtrals_size(size, side, patch * multiple), (size, shrink)
        assert ours[0] * ours[1] <= shrink.most_patches(patch) * patch**2


def test_sizes_of_kimi_equal_the_reference() -> None:
    for size, draw in sizes(5000):
        merge, patches, side = draw.choice([2, 1, 3]), draw.choice([16_384, 400, 57, 1]), draw.choice([512, 64, 33])
        shrink = Shrink(side * 14, patches, multiple=merge, pads=True)
        ours = shrunk_size(size, shrink, patch_size=14, token_cap=NO_CAP, min_pixels=None)
        picture, padded = NAVIT_RESIZE(*size, 14, merge, patches, side)
        assert (ours, rounded_up(ours, 14 * merge)) == (picture, padded), (size, shrink)
        assert padded[0] * padded[1] <= shrink.most_patches(14) * 14**2


def test_a_cap_asks_pixtrals_processor_for_the_longest_edge_that_fits() -> None:
    for size, draw in sizes(40):
        cap = draw.randint(1, 2000)
        ours = rounded_up(shrunk_size(size, Shrink(500), patch_size=16, token_cap=cap, min_pixels=None), 16)
        theirs = [pixtrals_size(size, side, 16) for side in range(1, 501)]
        assert ours == [each for each in theirs if each[0] * each[1] <= cap * 16**2][-1]


def test_a_cap_asks_kimis_processor_for_the_most_patches_that_fit() -> None:
    geometry = Geometry.for_shrinking(14, Shrink(512 * 14, 500, multiple=2, pads=True), factor=2)
    refused = 0
    for size, draw in sizes(100):
        budget = Budget.of_tokens(draw.choice([8, 40, 300, 600]), 14)
        theirs = [NAVIT_RESIZE(*size, 14, 2, patches, 512)[1] for patches in range(1, 501)]
        fitting = [each for each in theirs if each[0] * each[1] <= budget.token_cap * 14**2]
        if fitting:
            assert plan_image(size, geometry=geometry, budget=budget, strategy="native").resized == fitting[-1]
            continue
        with pytest.raises(BudgetError, match="cannot be scaled down") as caught:
            plan_image(size, geometry=geometry, budget=budget, strategy="native")
        assert caught.value.param == "max_tokens"
        refused += 1
    assert 0 < refused < 50


def test_the_size_turns_with_the_image() -> None:
    for size, draw in sizes(500):
        shrink = draw.choice([Shrink(7168, 4000, multiple=2, pads=True), Shrink(1024)])
        cap = draw.randint(4, 5000)
        turned = shrunk_size(size[::-1], shrink, patch_size=14, token_cap=cap, min_pixels=None)
        assert turned == shrunk_size(size, shrink, patch_size=14, token_cap=cap, min_pixels=None)[::-1]


def test_min_pixels_enlarges_a_picture_that_the_processor_would_keep() -> None:
    geometry = Geometry.for_shrinking(16, Shrink(1024))

    def resized(size: tuple[int, int], least: int | None) -> tuple[int, int]:
        budget = Budget(4096, 4096 * 256, least)
        return plan_image(size, geometry=geometry, budget=budget, strategy="native").resized

    assert resized((30, 90), None) == resized((30, 90), 32 * 96) == (32, 96)
    assert resized((30, 90), 32 * 96 + 1) == (48, 112)
    assert resized((30, 90), 100_000) == (192, 560)
    with pytest.raises(BudgetError, match="cannot be scaled down to 4096 tokens"):
        resized((1, 3), 4096 * 256)


def test_a_square_keeps_to_the_multiple() -> None:
    geometry = Geometry.for_shrinking(14, Shrink(1540, multiple=2))
    plan = plan_image((500, 300), geometry=geometry, budget=Budget.of_tokens(500, 14), strategy="square")
    assert plan.segments[0].grid == (22, 22)
    with pytest.raises(ValueError, match="grids are multiples of 3, and 2 are merged"):
        Geometry.for_shrinking(14, Shrink(1540, multiple=3), factor=2)
