"""Files that would take more time or memory than their pictures are worth."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing

import numpy as np
import pytest
from PIL import AvifImagePlugin

from model.images.container import sniff
from model.images.decode import DECODE_MODES, DecodeMode, ImageHeader, decode_rgb
from model.images.reader import ImageReader
from model.sizing.budget import Budget
from model.sizing.geometry import Geometry
from model.sizing.plan import plan_image
from tests.hostile import HOSTILE

LIMIT = 50_000_000
NAFLEX = Geometry.for_naflex(16, 256)
SMALL = Geometry.for_naflex(1, 16)  # makes a picture of 24×40 many times as large as its resized size

# Warnings are errors in tests only; here they would hide what follows.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")


@pytest.fixture(scope="module")
def images() -> Iterator[ImageReader]:
    with closing(ImageReader(processes=1, max_decode_pixels=LIMIT)) as reader:
        yield reader


def embeddable(images: ImageReader, data: bytes, decode: DecodeMode = "exact") -> ImageHeader:
    header = images.read_header(data)
    geometry = NAFLEX if decode == "exact" else SMALL
    plan = plan_image(header.size, geometry=geometry, budget=Budget.of_tokens(16, 16), strategy="square")
    images.decode_patches(data, plan, geometry=geometry, decode=decode)
    return header


@pytest.mark.parametrize(
    "name",
    [
        # Refused by the limit on processor time, so it takes that long.
        pytest.param(name, marks=pytest.mark.slow) if "precincts" in name else name
        for name, hostile in HOSTILE.items()
        if hostile.refused
    ],
)
def test_a_hostile_file_is_refused_by_name(name, images):
    hostile = HOSTILE[name]
    data = hostile.build()
    assert hostile.refused
    for decode in DECODE_MODES if sniff(data) == "JPEG" else DECODE_MODES[:1]:
        with pytest.raises(hostile.refused) as raised:
            embeddable(images, data, decode)
        assert type(raised.value) is hostile.refused
        assert hostile.says in str(raised.value)


@pytest.mark.parametrize("name", [name for name, hostile in HOSTILE.items() if not hostile.refused])
def test_an_odd_file_gives_its_picture(name, images):
    hostile = HOSTILE[name]
    data = hostile.build()
    assert embeddable(images, data).size == hostile.size
    pixels = np.asarray(decode_rgb(data, max_decode_pixels=LIMIT))
    assert pixels.shape == (*hostile.size, 3)
    if hostile.pixel:
        np.testing.assert_allclose(pixels[0, 0], hostile.pixel, atol=8)
    embeddable(images, data, "fast")


@pytest.mark.slow
def test_nothing_is_written_past_the_log():
    # In a process of its own, warnings are not errors and file descriptor 2 can be captured. The log goes to standard
    # output: on a machine that stands still for seconds, a decoding process reaches its limit of processor time.
    run = subprocess.run([sys.executable, "-c", READ_ALL], input=b"", capture_output=True, check=True)
    assert run.stdout.endswith(b"done\n")
    assert run.stderr == b""


def test_an_image_is_decoded_by_one_thread():
    decode_rgb(HOSTILE["animated avif"].build(), max_decode_pixels=LIMIT)
    assert AvifImagePlugin.DEFAULT_MAX_THREADS == 1


READ_ALL = """
import logging, sys

from model.errors import ImageError
from model.images.reader import ImageReader
from tests.hostile import HOSTILE, red
from tests.model.images.test_container import LIMIT, embeddable

logging.basicConfig(stream=sys.stdout)
images = ImageReader(processes=1, max_decode_pixels=LIMIT)
packed = red("TIFF", compression="tiff_deflate")
files = [hostile.build() for name, hostile in HOSTILE.items() if "precincts" not in name]
for data in [*files, packed.replace(b"\\x78\\x9c", b"\\x78\\0"), packed[:200] + packed[220:]]:
    try:
        embeddable(images, data)
    except ImageError:
        pass
images.close()
print("done")
"""
