"""Images that are decoded in worker processes: the same answers, and what happens when one ends."""

from collections.abc import Iterator
from contextlib import closing

import numpy as np
import pytest

from model.images.decode import decode_patches, read_header
from model.images.reader import ImageReader
from model.sizing.budget import Budget
from model.sizing.geometry import Geometry
from model.sizing.plan import plan_image
from tests.pictures import exif, picture, save

LIMIT = 1_000_000
NAFLEX = Geometry.for_naflex(16, 64)


@pytest.fixture(scope="module")
def images() -> Iterator[ImageReader]:
    with closing(ImageReader(processes=2, max_decode_pixels=LIMIT)) as reader:
        yield reader


@pytest.mark.parametrize("format", ["AVIF", "JPEG2000", "TIFF"])
def test_a_worker_gives_what_a_thread_gives(format: str, images: ImageReader) -> None:
    data = save(picture(24, 40), format, **({"exif": exif(6)} if format != "JPEG2000" else {}))
    header = images.read_header(data)
    assert header == read_header(data, max_decode_pixels=LIMIT)
    plan = plan_image(header.size, geometry=NAFLEX, budget=Budget.of_tokens(64, 16), strategy="naflex")
    new_plan, rows = images.decode_patches(data, plan, geometry=NAFLEX)
    wanted_plan, wanted = decode_patches(data, plan, geometry=NAFLEX, max_decode_pixels=LIMIT)
    assert new_plan == wanted_plan
    np.testing.assert_array_equal(rows, wanted)
    assert rows.flags.writeable
