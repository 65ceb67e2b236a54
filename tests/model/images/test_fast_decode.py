"""`decode=fast` against `decode=exact`: the same plans, the same refusals, and close pixels."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from model.errors import BudgetError, ImageTooLarge, UndecodableImage
from model.images.decode import DecodeMode, decode_patches, read_header
from model.images.patches import largest_resize, patch_rows
from model.sizing.budget import Budget
from model.sizing.geometry import FixedInput, Geometry, Strategy
from model.sizing.plan import ImagePlan, plan_image
from tests.examples import many
from tests.model.images.test_decode import ENCODINGS, encoded
from tests.pictures import exif, photograph_file, picture, save

LIMIT = 50_000_000
NAFLEX = Geometry.for_naflex(4, 16)
SQUASHED = Geometry.for_fixed(4, FixedInput(12, "squash", 12, "bicubic"))
CROPPED = Geometry.for_fixed(4, FixedInput(12, "shortest_edge", 14, "bicubic"))
WAYS: list[tuple[Geometry, Strategy]] = [
    *((NAFLEX, strategy) for strategy in NAFLEX.strategies),
    *((geometry, strategy) for geometry in (SQUASHED, CROPPED) for strategy in geometry.strategies),
]
WAY_IDS = [f"{geometry.fixed.resize if geometry.fixed else 'naflex'}-{strategy}" for geometry, strategy in WAYS]
MODES = ("RGB", "L", "CMYK", "YCCK")


def planned(data: bytes, geometry: Geometry, strategy: Strategy, cap: int = 100) -> ImagePlan:
    size = read_header(data, max_decode_pixels=LIMIT).size
    budget = Budget.of_tokens(cap, geometry.patch_size)
    return plan_image(size, geometry=geometry, budget=budget, strategy=strategy)


def rows_of(data: bytes, plan: ImagePlan, geometry: Geometry, decode: DecodeMode) -> NDArray[np.uint8]:
    new_plan, rows = decode_patches(data, plan, geometry=geometry, max_decode_pixels=LIMIT, decode=decode)
    assert new_plan == plan
    return rows


def both(data: bytes, plan: ImagePlan, geometry: Geometry) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    exact, fast = (rows_of(data, plan, geometry, decode).astype(np.int16) for decode in ("exact", "fast"))
    assert exact.shape == fast.shape == (plan.tokens, 3 * geometry.patch_size**2)
    return exact, fast


def ramp(height: int, width: int) -> Image.Image:
    """Darker to the right, greener to the bottom: a displaced pixel has another colour."""
    across, down = np.meshgrid(np.linspace(255, 0, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([across, down, 255 - down], axis=-1).round().astype(np.uint8))


def jpeg(image: Image.Image, mode: str = "RGB", orientation: int = 1, **options: Any) -> bytes:
    """A file of `mode`; YCCK as Photoshop writes it, with a flag in Adobe's segment."""
    data = save(
        image.convert(mode.replace("YCCK", "CMYK")), "JPEG", **{"quality": 95, "exif": exif(orientation)} | options
    )
    if mode == "YCCK":
        at = data.index(b"\xff\xee\x00\x0eAdobe") + 15
        assert data[at] == 0
        data = data[:at] + b"\2" + data[at + 1 :]
    return data


@cache
def ramp_file(mode: str, orientation: int) -> bytes:
    """A picture with sides that no scale divides."""
    return jpeg(ramp(253, 503), mode, orientation)


@contextmanager
def watching() -> Iterator[list[Image.Image]]:
    """The decoded pictures that patches are cut from."""
    seen: list[Image.Image] = []

    def watched(image: Image.Image, *args: Any, **options: Any) -> NDArray[np.uint8]:
        seen.append(image)
        return patch_rows(image, *args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("model.images.decode.patch_rows", watched)
        yield seen


@pytest.fixture
def cut() -> Iterator[list[Image.Image]]:
    with watching() as seen:
        yield seen


# What is the same


@pytest.mark.parametrize("name", [name for name in ENCODINGS if ENCODINGS[name][0] != "JPEG"])
def test_a_picture_of_another_format_is_decoded_exactly(name: str) -> None:
    data = encoded(name, picture(90, 130))
    exact, fast = both(data, planned(data, NAFLEX, "naflex", 4), NAFLEX)
    np.testing.assert_array_equal(exact, fast)


@many(300)
@given(st.integers(1, 70), st.integers(1, 70), st.integers(1, 8), st.integers(0, 99))
def test_a_picture_less_than_four_times_as_large_is_decoded_exactly(height: int, width: int, side: int, seed: int):
    data = jpeg(picture(height, width, seed=seed))
    plan = planned(data, NAFLEX, "square", side * side)
    exact, fast = both(data, plan, NAFLEX)
    if min(height, width) < 4 * plan.resized[0]:
        np.testing.assert_array_equal(exact, fast)
    else:
        assert (exact != fast).any()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("geometry", "strategy"), WAYS, ids=WAY_IDS)
def test_the_plan_is_the_same_and_pixels_are_close_whatever_the_mode_and_the_turn(
    geometry: Geometry, strategy: Strategy, mode: str, orientation: int, cut: list[Image.Image]
) -> None:
    data = ramp_file(mode, orientation)
    plan = planned(data, geometry, strategy)
    assert plan.size == ((253, 503) if orientation < 5 else (503, 253))
    exact, fast = both(data, plan, geometry)
    assert cut[0].size == plan.size[::-1]
    assert cut[1].width < cut[0].width
    # A picture displaced by a quarter of a pixel after resizing differs by more.
    assert np.abs(exact - fast).max() <= (3 if mode != "YCCK" else 16)
    assert np.abs(exact - fast).mean() <= 1


def test_the_first_picture_of_several_in_a_jpeg_is_decoded_small_as_well(cut: list[Image.Image]) -> None:
    data = save(ramp(400, 400), "MPO", quality=95, save_all=True, append_images=[picture(400, 400)])
    exact, fast = both(data, planned(data, NAFLEX, "naflex", 16), NAFLEX)
    assert cut[1].size == (50, 50)
    assert np.abs(exact - fast).max() <= 3


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("name", ["astronaut.png", "chelsea.png", "coffee.png", "hubble_deep_field.jpg", "rocket.jpg"])
def test_a_photograph_differs_by_less_than_two_grays_on_the_average(
    name: str, subsampling: str, progressive: bool
) -> None:
    photograph = Image.open(BytesIO(photograph_file(name))).convert("RGB")
    data = jpeg(photograph, quality=85, subsampling=subsampling, progressive=progressive)
    exact, fast = both(data, planned(data, NAFLEX, "naflex", 256), NAFLEX)
    assert (exact != fast).any()
    assert np.abs(exact - fast).mean() <= 2


# How small


@many(300)
@given(st.integers(1, 400), st.integers(1, 400), st.integers(1, 200), st.integers(1, 8), st.sampled_from(WAYS))
def test_nothing_is_decoded_below_twice_what_it_is_resized_to_nor_larger_than_need_be(
    height: int, width: int, cap: int, orientation: int, way: tuple[Geometry, Strategy]
) -> None:
    geometry, strategy = way
    data = jpeg(Image.new("RGB", (width, height)), orientation=orientation)
    try:
        plan = planned(data, geometry, strategy, cap)
    except BudgetError:
        assume(False)
    with watching() as seen:
        rows_of(data, plan, geometry, "fast")
    wanted = largest_resize(plan, geometry)
    decoded = seen[0].height, seen[0].width
    scale = next(scale for scale in (1, 2, 4, 8) if decoded == tuple(-(-full // scale) for full in plan.size))
    sides = list(zip(plan.size, wanted, strict=True))
    assert scale == 1 or all(full / scale >= 2 * least for full, least in sides)
    assert scale == 8 or any(full / (2 * scale) < 2 * least for full, least in sides)


@pytest.mark.parametrize(
    ("side", "small"), [(63, 63), (64, 32), (127, 64), (128, 32), (255, 64), (256, 32), (999, 125)]
)
def test_scales_are_a_half_a_quarter_and_an_eighth(side: int, small: int, cut: list[Image.Image]) -> None:
    data = jpeg(picture(side, side))
    rows_of(data, planned(data, NAFLEX, "square", 16), NAFLEX, "fast")
    assert cut[0].size == (small, small)


def test_the_narrower_of_both_directions_decides(cut: list[Image.Image]) -> None:
    data = jpeg(picture(60, 600))
    rows_of(data, planned(data, NAFLEX, "square", 1), NAFLEX, "fast")
    rows_of(data, planned(data, NAFLEX, "square", 16), NAFLEX, "fast")
    assert [image.size for image in cut] == [(150, 15), (600, 60)]


def test_gray_stays_gray_until_it_is_small(cut: list[Image.Image]) -> None:
    data = jpeg(picture(300, 300), "L")
    both(data, planned(data, NAFLEX, "naflex", 16), NAFLEX)
    assert [image.mode for image in cut] == ["L", "L"]


# What is refused


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_cut_anywhere_is_refused_as_by_exact(progressive: bool) -> None:
    data = jpeg(picture(200, 200), progressive=progressive)
    plan = planned(data, NAFLEX, "naflex", 16)
    for length in range(len(data) // 3, len(data), 997):
        with pytest.raises(UndecodableImage, match="truncated"):
            rows_of(data[:length], plan, NAFLEX, "fast")


def test_a_picture_over_the_limit_is_refused_however_small_it_would_be_decoded() -> None:
    data = jpeg(picture(400, 400))
    plan = planned(data, NAFLEX, "naflex", 16)
    with pytest.raises(ImageTooLarge, match="max_decode_pixels"):
        decode_patches(data, plan, geometry=NAFLEX, max_decode_pixels=159_999, decode="fast")


def test_a_picture_of_another_size_than_planned_is_refused() -> None:
    plan = planned(jpeg(picture(400, 300)), NAFLEX, "naflex", 16)
    with pytest.raises(UndecodableImage, match="400×400 pixels; its header announced 400×300"):
        rows_of(jpeg(picture(400, 400)), plan, NAFLEX, "fast")


def test_a_picture_planned_on_its_side_is_turned_as_by_exact() -> None:
    data = jpeg(picture(400, 300))
    plan = planned(jpeg(picture(300, 400)), NAFLEX, "naflex", 15)
    answers = [
        decode_patches(data, plan, geometry=NAFLEX, max_decode_pixels=LIMIT, decode=decode)
        for decode in ("exact", "fast")
    ]
    assert answers[0][0] == answers[1][0]
    assert answers[1][0].size == (400, 300)
    np.testing.assert_array_equal(answers[0][1], answers[1][1])
