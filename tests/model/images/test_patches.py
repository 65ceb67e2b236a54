"""The oracles: Transformers' Pillow processors of the models that a strategy follows, and Pillow itself."""

from dataclasses import replace
from io import BytesIO
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from model.images.patches import patch_rows, picture_of
from model.sizing.anyres import fitted_size
from model.sizing.budget import Budget
from model.sizing.geometry import FixedInput, Geometry, Strategy
from model.sizing.plan import ImagePlan, plan_image
from tests.examples import many
from tests.pictures import noise, photograph_file, picture, random_size, sizes

NAFLEX = Geometry.for_naflex(16, 256)
RAW: dict[str, Any] = {"do_rescale": False, "do_normalize": False}


def plan(size: tuple[int, int], strategy: Strategy, geometry: Geometry, cap: int = 100_000) -> ImagePlan:
    budget = Budget.of_tokens(cap, geometry.patch_size)
    return plan_image(size, geometry=geometry, budget=budget, strategy=strategy)


def unfolded(rows: NDArray[np.uint8], grid: tuple[int, int], patch_size: int) -> NDArray[np.uint8]:
    """The pixels that rows were cut from, in the processors' layout: uint8 `[3, height, width]`."""
    patches = rows.reshape(*grid, patch_size, patch_size, 3).transpose(4, 0, 2, 1, 3)
    return patches.reshape(3, grid[0] * patch_size, grid[1] * patch_size)


def planned(pixels: NDArray[np.uint8], strategy: Strategy, geometry: Geometry) -> list[NDArray[np.uint8]]:
    """The pixels of each segment, `[3, height, width]`, reassembled from the rows."""
    image_plan = plan(pixels.shape[:2], strategy, geometry)
    rows = patch_rows(Image.fromarray(pixels), image_plan, geometry)
    assert len(rows) == image_plan.tokens
    return [
        unfolded(rows[offset : offset + segment.tokens], segment.grid, geometry.patch_size)
        for segment, offset in zip(image_plan.segments, image_plan.offsets, strict=False)
    ]


def processed(processor: Any, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    values = np.asarray(processor(Image.fromarray(pixels), return_tensors=None)["pixel_values"][0])
    assert values.dtype == np.uint8
    return values


@many(200)
@given(sizes(), st.sampled_from([16, 32]), st.integers(0, 2**32 - 1))
@pytest.mark.slow
def test_anyres_equals_llava_next_bit_for_bit(size: tuple[int, int], side: int, seed: int) -> None:
    check_llava_next(size, side, seed)


@pytest.mark.slow
def test_thousands_of_pictures_equal_llava_next_bit_for_bit() -> None:
    random = Random(0)
    for seed in range(2000):
        check_llava_next(random_size(random), random.choice((16, 32)), seed)


def check_llava_next(size: tuple[int, int], side: int, seed: int) -> None:
    pixels = noise(*size, seed=seed)
    layouts = [(1, 2), (2, 1), (2, 2), (3, 1), (1, 3)]
    processor = LlavaNextImageProcessorPil(
        size={"shortest_edge": side}, crop_size={"height": side, "width": side},
        image_grid_pinpoints=[[rows * side, columns * side] for rows, columns in layouts], **RAW,
    )  # fmt: skip
    geometry = Geometry.for_fixed(8, FixedInput(side, "shortest_edge", side, "bicubic"))
    np.testing.assert_array_equal(planned(pixels, "anyres", geometry), processed(processor, pixels))


@many(200)
@given(sizes(), st.integers(0, 2**32 - 1))
@pytest.mark.slow
def test_anyres_equals_llava_onevision_but_for_the_strips_that_its_convolution_drops(size, seed: int) -> None:
    check_onevision(size, seed)


@pytest.mark.slow
def test_thousands_of_pictures_equal_llava_onevision() -> None:
    random = Random(0)
    for seed in range(2000):
        check_onevision(random_size(random), seed)


def check_onevision(size: tuple[int, int], seed: int) -> None:
    pixels = noise(*size, seed=seed)
    side, patch_size = 34, 8
    pinpoints = [[rows * side, columns * side] for rows in range(1, 7) for columns in range(1, 7)]
    processor = LlavaOnevisionImageProcessorPil(
        size={"height": side, "width": side}, image_grid_pinpoints=pinpoints, **RAW
    )
    geometry = Geometry.for_fixed(patch_size, FixedInput(side, "squash", side, "bicubic"))
    geometry = replace(geometry, pinpoints=tuple((height, width) for height, width in pinpoints))
    expected = processed(processor, pixels)[..., :32, :32]
    np.testing.assert_array_equal(planned(pixels, "anyres", geometry), expected)


@pytest.mark.parametrize("name", ["astronaut.png", "rocket.jpg", "page.png"])
def test_anyres_of_a_photograph_equals_the_processors_as_their_checkpoints_set_them(name: str) -> None:
    pixels = np.asarray(Image.open(BytesIO(photograph_file(name))).convert("RGB"))
    processor = LlavaNextImageProcessorPil(size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336}, **RAW)
    geometry = Geometry.for_fixed(14, FixedInput(336, "shortest_edge", 336, "bicubic"))
    np.testing.assert_array_equal(planned(pixels, "anyres", geometry), processed(processor, pixels))

    onevision = LlavaOnevisionImageProcessorPil(**RAW)
    geometry = replace(
        Geometry.for_fixed(14, FixedInput(384, "squash", 384, "bicubic")),
        pinpoints=tuple((height, width) for height, width in onevision.image_grid_pinpoints),
    )
    # 384 is not a multiple of 14.
    np.testing.assert_array_equal(planned(pixels, "anyres", geometry), processed(onevision, pixels)[..., :378, :378])


def test_anyres_on_a_naflex_model_takes_the_models_own_filter() -> None:
    pixels = noise(300, 700)
    thumbnail, *tiles = planned(pixels, "anyres", NAFLEX)
    image = Image.fromarray(pixels)
    np.testing.assert_array_equal(
        thumbnail.transpose(1, 2, 0), np.asarray(image.resize((256, 256), Image.Resampling.BILINEAR))
    )
    assert len(tiles) == 3
    canvas = np.concatenate(tiles, axis=2).transpose(1, 2, 0)
    # 300×700 on 256×768: 256 high and 598 wide, 85 black columns on either side.
    np.testing.assert_array_equal(canvas[:, 85:683], np.asarray(image.resize((598, 256), Image.Resampling.BILINEAR)))
    assert not canvas[:, :85].any()
    assert not canvas[:, 683:].any()


@many(300)
@given(
    sizes(),
    st.sampled_from([(24, 24), (24, 29)]),
    st.sampled_from(["squash", "shortest_edge"]),
    st.integers(0, 2**32 - 1),
)
@pytest.mark.slow
def test_square_on_a_fixed_model_equals_clips_resize_and_crop(size, sides, resize, seed: int) -> None:
    height, width = size
    if max(size) > 200 * min(size):
        height = width = max(size) // 4
    pixels = noise(height, width, seed=seed)
    side, resize_side = sides
    squash = {"height": resize_side, "width": resize_side}
    wanted = {"shortest_edge": resize_side} if resize == "shortest_edge" else squash
    processor = CLIPImageProcessorPil(size=wanted, crop_size={"height": side, "width": side}, **RAW)
    geometry = Geometry.for_fixed(8, FixedInput(side, resize, resize_side, "bicubic"))
    np.testing.assert_array_equal(planned(pixels, "square", geometry), [processed(processor, pixels)])


@many(300)
@given(sizes(), st.sampled_from([("bilinear", 2), ("bicubic", 3)]), st.integers(0, 2**32 - 1))
def test_square_on_a_fixed_model_equals_siglips_resize(size, resample, seed: int) -> None:
    pixels = noise(*size, seed=seed)
    name, number = resample
    processor = SiglipImageProcessorPil(size={"height": 27, "width": 27}, resample=number, **RAW)
    geometry = Geometry.for_fixed(8, FixedInput(27, "squash", 27, name))
    # 27 is not a multiple of 8: the convolution drops the last three rows and columns.
    np.testing.assert_array_equal(planned(pixels, "square", geometry), [processed(processor, pixels)[:, :24, :24]])


@many(200)
@given(st.integers(1, 200), st.integers(1, 200), st.integers(0, 2**32 - 1))
@pytest.mark.slow
def test_native_equals_qwens_processor(height: int, width: int, seed: int) -> None:
    check_qwen(height, width, seed)


@pytest.mark.slow
def test_thousands_of_pictures_equal_qwens_processor() -> None:
    random = Random(0)
    for seed in range(2000):
        check_qwen(random.randint(1, 200), random.randint(1, 200), seed)


def check_qwen(height: int, width: int, seed: int) -> None:
    pixels = noise(height, width, seed=seed)
    processor = Qwen2VLImageProcessorPil(
        patch_size=8, merge_size=1, temporal_patch_size=1, min_pixels=2000, max_pixels=20_000, **RAW
    )
    geometry = Geometry(8, ("native",), resample="bicubic", native_min_pixels=2000)
    budget = Budget(20_000 // 64, 20_000)
    image_plan = plan_image((height, width), geometry=geometry, budget=budget, strategy="native")
    rows = patch_rows(Image.fromarray(pixels), image_plan, geometry)
    batch = processor(Image.fromarray(pixels), return_tensors=None)
    # Its rows are (channel, ph, pw).
    expected = np.asarray(batch["pixel_values"]).reshape(-1, 3, 8, 8).transpose(0, 2, 3, 1).reshape(-1, 192)
    assert tuple(np.asarray(batch["image_grid_thw"]).ravel()[1:]) == image_plan.segments[0].grid
    np.testing.assert_array_equal(rows, expected)


@pytest.mark.parametrize("size", [(48, 64), (50, 61), (600, 100)])
def test_native_on_a_naflex_model_takes_the_models_own_filter(size: tuple[int, int]) -> None:
    pixels = noise(*size)
    height, width = plan(size, "native", NAFLEX).resized
    expected = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(planned(pixels, "native", NAFLEX)[0].transpose(1, 2, 0), expected)


def test_an_image_on_the_grid_keeps_its_pixels_under_native() -> None:
    pixels = noise(48, 64)
    np.testing.assert_array_equal(planned(pixels, "native", NAFLEX)[0].transpose(1, 2, 0), pixels)


def test_rows_go_along_the_grid_and_inside_a_patch_along_its_pixels() -> None:
    pixels = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    geometry = Geometry.for_naflex(2, 4)
    rows = patch_rows(Image.fromarray(pixels), plan((4, 6), "native", geometry), geometry)
    assert rows.shape == (6, 12)
    np.testing.assert_array_equal(rows[0], [0, 1, 2, 3, 4, 5, 18, 19, 20, 21, 22, 23])
    np.testing.assert_array_equal(rows[1, :3], pixels[0, 2])
    np.testing.assert_array_equal(rows[3, :3], pixels[2, 0])


@pytest.mark.parametrize("strategy", NAFLEX.strategies)
def test_rows_are_contiguous_writable_bytes(strategy: Strategy) -> None:
    rows = patch_rows(picture(), plan((24, 40), strategy, NAFLEX, cap=2000), NAFLEX)
    assert rows.dtype == np.uint8
    assert rows.flags.c_contiguous
    assert rows.flags.writeable
    assert rows.flags.owndata


@many(200)
@given(
    st.tuples(st.integers(4, 400), st.integers(4, 400)),
    st.sampled_from(["naflex", "native", "square", "anyres"]),
    st.integers(0, 2**32 - 1),
)
def test_rows_become_the_picture_that_was_cut(size: tuple[int, int], strategy: Strategy, seed: int) -> None:
    image = Image.fromarray(noise(*size, seed=seed))
    image_plan = plan(size, strategy, NAFLEX, cap=1024)
    seen = picture_of(patch_rows(image, image_plan, NAFLEX), image_plan, NAFLEX)
    height, width = fitted_size(size, image_plan.resized) if strategy == "anyres" else image_plan.resized
    np.testing.assert_array_equal(
        np.asarray(seen), np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
    )


@pytest.mark.parametrize("strategy", ["square", "anyres"])
def test_rows_of_a_fixed_model_become_the_picture_without_the_strips_that_fill_no_patch(strategy: Strategy) -> None:
    geometry = Geometry.for_fixed(14, FixedInput(384, "squash", 384, "bicubic"))
    pixels = noise(300, 700)
    image_plan = plan((300, 700), strategy, geometry)
    seen = picture_of(patch_rows(Image.fromarray(pixels), image_plan, geometry), image_plan, geometry)
    # Two tiles side by side hold 756 by 378 pixels.
    assert (seen.height, seen.width) == ((378, 378) if strategy == "square" else (324, 756))
    if strategy == "square":
        (expected,) = planned(pixels, strategy, geometry)
        np.testing.assert_array_equal(np.asarray(seen).transpose(2, 0, 1), expected)
