"""The canary's pictures are the same everywhere, are what the model takes as it is, and are not alike."""

import io

import numpy as np
import pytest
from PIL import Image

from model.images.decode import decode_patches, read_header
from model.sizing.budget import Budget
from model.sizing.geometry import FixedInput, Geometry
from model.sizing.plan import plan_image
from service.canary.jobs import canary_pictures, digest_of
from service.canary.pictures import DRAWINGS, patch_rows

SQUARE = FixedInput(side=224, resize_side=224, resize="squash", resample="bicubic")
GEOMETRIES = {
    "naflex": Geometry.for_naflex(16, 256),
    "fixed": Geometry.for_fixed(32, SQUARE),
    "merging": Geometry.for_merging(14, 2, min_pixels=56 * 56, max_pixels=12_845_056),
    "pooling": Geometry.for_pooling(16, 3, budgets=(630, 1260)),
}


def test_the_drawings_are_those_that_vectors_were_recorded_of() -> None:
    """A change makes every server record anew, and is worth a line in the changelog."""
    assert digest_of(canary_pictures(GEOMETRIES["naflex"], 1024)) == "f30fac2dced66ca8"
    assert len({drawing.name for drawing in DRAWINGS}) == 6


@pytest.mark.parametrize("kind", GEOMETRIES)
def test_a_picture_sent_as_a_file_has_the_rows_that_the_engine_is_given(kind: str) -> None:
    geometry = GEOMETRIES[kind]
    pictures = canary_pictures(geometry, 2048)
    assert len(pictures) == len(DRAWINGS)
    for picture in pictures:
        file = io.BytesIO()
        Image.fromarray(picture.pixels).save(file, "PNG")
        data = file.getvalue()
        budget = Budget.of_tokens(picture.plan.token_cap, geometry.patch_size)
        size = read_header(data, max_decode_pixels=10**7).size
        plan = plan_image(size, geometry=geometry, budget=budget, strategy=geometry.default_strategy)
        upright, rows = decode_patches(data, plan, geometry=geometry, max_decode_pixels=10**7, decode="exact")
        assert upright.resized == picture.pixels.shape[:2]
        assert np.array_equal(rows, patch_rows(picture.pixels, geometry.patch_size))


def test_no_two_pictures_are_alike_in_small_either() -> None:
    small = [drawing.pixels(32, 32).astype(int) for drawing in DRAWINGS]
    for number, one in enumerate(small):
        assert all(np.abs(one - other).mean() > 20 for other in small[number + 1 :])


def test_under_a_small_limit_pictures_shrink_and_those_that_no_limit_allows_are_left_out() -> None:
    assert all(picture.plan.tokens <= 16 for picture in canary_pictures(GEOMETRIES["naflex"], 16))
    assert canary_pictures(GEOMETRIES["pooling"], 16) == []
