"""Which reader takes a TIFF, and what it is refused for before its pixels are decoded."""

import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from model.errors import ImageTooLarge, UndecodableImage, UnsupportedFormat
from model.images.decode import decode_rgb, read_header
from tests.model.images.matrix.drawing import samples
from tests.model.images.matrix.tiff_cells import BLACK_IS_ZERO, RGB
from tests.model.images.matrix.tiff_file import Layout, tiff_file
from tests.pictures import picture, save

LIMIT = 10_000_000


def test_the_readers_are_loaded_only_for_a_picture_that_needs_them():
    usual = [save(picture(), format) for format in ("TIFF", "JPEG", "PNG")]
    for data, loaded in [*((file, False) for file in usual), (deep_file(), True)]:
        program = f"""
import sys
from model.images.decode import decode_rgb
decode_rgb({data!r}, max_decode_pixels={LIMIT})
sys.exit(len({{"tifffile", "imagecodecs"}} & set(sys.modules)))
"""
        status = subprocess.run([sys.executable, "-c", program], check=False).returncode
        assert bool(status) == loaded


def deep_file(compression: str = "no compression") -> bytes:
    return tiff_file(samples(16, 3), 16, RGB, Layout(planes=True, compression=compression))


def test_a_header_is_read_without_the_pixels():
    whole = deep_file("deflate")
    broken = whole.replace(zlib.compress(b"")[:2], b"\0\0")
    assert read_header(broken, max_decode_pixels=LIMIT).size == (13, 21)
    with pytest.raises(UndecodableImage, match="TIFF"):
        decode_rgb(broken, max_decode_pixels=LIMIT)


@pytest.mark.parametrize("bits", [8, 16])
def test_whole_tiles_count_as_pixels_to_decode(bits):
    # 100 tiles of which each shows one column.
    data = tiff_file(samples(bits, 1, height=16, width=1600), bits, BLACK_IS_ZERO, Layout(tile=(1600, 16)))
    assert read_header(data, max_decode_pixels=1600 * 1600).size == (16, 1600)
    with pytest.raises(ImageTooLarge, match="2,560,000"):
        read_header(data, max_decode_pixels=1600 * 1600 - 1)


def test_a_picture_over_the_limit_is_refused_before_it_is_decoded():
    with pytest.raises(ImageTooLarge, match="max_decode_pixels"):
        read_header(deep_file(), max_decode_pixels=13 * 21 - 1)


@pytest.mark.parametrize("bits", [16, 32, 64])
def test_floating_point_of_any_depth_is_refused_by_name_in_its_header(bits):
    # As in the stack of frames that tifffile writes from an array of floats: RGB in planes.
    values = np.zeros((8, 8, 3), np.int64)
    data = tiff_file(values, bits, RGB, Layout(planes=True), format=[3, 3, 3])
    with pytest.raises(UnsupportedFormat, match="floating-point"):
        read_header(data, max_decode_pixels=LIMIT)


def test_8_bits_have_the_same_pixels_in_planes_and_side_by_side():
    pixels = np.asarray(picture())
    beside, apart = (tiff_file(pixels.astype(np.int64), 8, RGB, Layout(planes=planes)) for planes in (False, True))
    for data in (beside, apart, save(Image.fromarray(pixels), "TIFF")):
        np.testing.assert_array_equal(np.asarray(decode_rgb(data, max_decode_pixels=LIMIT)), pixels)


def test_what_is_left_out_of_a_sparse_file_is_zero():
    data = bytearray(tiff_file(samples(16, 1) | 0x8000, 16, BLACK_IS_ZERO, Layout(rows=5, compression="LZW")))
    start = data.rindex(b"\x17\x01\x04\0\3\0\0\0") + 8  # StripByteCounts, three of them
    counts = int.from_bytes(data[start : start + 4], "little")
    data[counts + 4 : counts + 8] = bytes(4)
    pixels = np.asarray(decode_rgb(bytes(data), max_decode_pixels=LIMIT))
    assert (pixels[5:10] == 0).all()
    assert (pixels[:5] >= 128).all()
    assert (pixels[10:] >= 128).all()
