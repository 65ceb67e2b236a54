from dataclasses import replace
from typing import Any

import pytest

from model.sizing.anyres import parse_pinpoints
from model.sizing.geometry import FixedInput, Geometry

CLIP = FixedInput(336, "shortest_edge", 336, "bicubic")


@pytest.mark.parametrize(("default_max_tokens", "tile_side"), [(256, 256), (576, 384), (300, 272)])
def test_the_tile_of_a_naflex_model_is_the_largest_square_within_its_default_cap(
    default_max_tokens: int, tile_side: int
) -> None:
    assert Geometry.for_naflex(16, default_max_tokens).tile_side == tile_side


def test_the_tile_of_a_fixed_model_is_its_input() -> None:
    geometry = Geometry.for_fixed(14, CLIP)
    assert (geometry.tile_side, geometry.tile_grid, geometry.resample) == (336, (24, 24), "bicubic")
    assert geometry.strategies == ("square", "anyres")


def test_a_fixed_input_need_be_no_multiple_of_the_patch() -> None:
    assert Geometry.for_fixed(14, FixedInput(384, "squash", 384, "bicubic")).tile_grid == (27, 27)


def test_pinpoints_become_layouts_of_the_tile() -> None:
    geometry = Geometry.for_fixed(14, CLIP)
    assert geometry.tile_layouts == ((1, 2), (2, 1), (2, 2), (3, 1), (1, 3))
    assert replace(geometry, pinpoints=parse_pinpoints("1344x1344, 336x672")).tile_layouts == ((4, 4), (1, 2))


@pytest.mark.parametrize(
    "text", ["", "336", "336x", "336x672,", "336×672", "-336x672", "336x672;672x336", "0336x6720000"]
)
def test_pinpoints_that_are_no_sizes_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a pinpoint; sizes look like"):
        parse_pinpoints(text)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"pinpoints": ((336, 500),)},
            "a pinpoint is 336x500; both sides are multiples of a tile's, 256",
        ),
        ({"pinpoints": ((256, 256), (0, 256))}, "a pinpoint is 0x256"),
        ({"tile_side": 250}, "side of a tile is 250; it is a multiple of 16 pixels"),
        ({"tile_side": None}, "side of a tile is None"),
        ({"tile_side": 336, "native_factor": 2}, "multiple of 32 pixels"),
        ({"patch_size": 0}, "patch_size is 0"),
        ({"native_factor": 0}, "native_factor 0"),
        ({"strategies": ()}, "strategies are"),
        ({"strategies": ("round",)}, "strategies are"),
        ({"fixed": CLIP}, "no strategy but square and anyres"),
        ({"fixed": CLIP, "strategies": ("square", "anyres")}, "the tile of a fixed model is its input, 336 pixels"),
        ({"fixed": FixedInput(8, "squash", 8, "bilinear"), "strategies": ("square",)}, "has no patch of 16"),
    ],
    ids=str,
)
def test_values_that_do_not_go_together_are_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(Geometry.for_naflex(16, 256), **changed)


def test_a_crop_larger_than_what_it_is_cut_from_is_refused() -> None:
    with pytest.raises(ValueError, match="crop of 256 pixels"):
        FixedInput(256, "shortest_edge", 224, "bicubic")


def test_a_square_of_a_fixed_model_takes_the_models_own_tokens_and_fills_no_cap() -> None:
    fixed, any_grid = Geometry.for_fixed(14, CLIP), Geometry.for_naflex(16, 256)
    tokens = fixed.fixed_tokens("square"), fixed.fixed_tokens("anyres"), any_grid.fixed_tokens("square")
    assert tokens == (576, None, None)
    assert not any(fixed.fills_cap(strategy) for strategy in fixed.strategies)
    assert [strategy for strategy in any_grid.strategies if any_grid.fills_cap(strategy)] == ["naflex", "square"]
