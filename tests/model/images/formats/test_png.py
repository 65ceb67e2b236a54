"""PNGs with large texts and colour profiles, which plain Pillow refuses or misreads."""

import tracemalloc
import zlib
from collections.abc import Callable

import numpy as np
import pytest

from model.images.decode import decode_rgb, read_header
from tests.hostile import png_with
from tests.pictures import exif, picture, save, with_late_chunk

LIMIT = 50_000_000
SIZE = 3 * 1024 * 1024
PACKED = zlib.compress(b"a" * SIZE)
LARGE: dict[str, tuple[bytes, bytes]] = {
    "tEXt": (b"tEXt", b"Comment\0" + b"a" * SIZE),
    "zTXt": (b"zTXt", b"Comment\0\0" + PACKED),
    "iTXt": (b"iTXt", b"Comment\0\0\0en\0Comment\0" + b"a" * SIZE),
    "packed iTXt": (b"iTXt", b"Comment\0\1\0en\0Comment\0" + PACKED),
    "iCCP": (b"iCCP", b"Profile\0\0" + PACKED),
}
EXIF = (b"eXIf", exif(6).removeprefix(b"Exif\0\0"))


def before_pixels(*chunks: tuple[bytes, bytes]) -> bytes:
    return png_with(*chunks, data=save(picture(), "PNG"))


def behind_pixels(*chunks: tuple[bytes, bytes], data: bytes | None = None) -> bytes:
    data = data or save(picture(), "PNG")
    for chunk in chunks:
        data = with_late_chunk(data, *chunk)
    return data


PLACES: list[Callable[..., bytes]] = [before_pixels, behind_pixels]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", LARGE)
def test_a_png_with_a_large_text_or_profile_gives_its_pixels(name, place):
    data = place(LARGE[name])
    assert read_header(data, max_decode_pixels=LIMIT).size == (24, 40)
    np.testing.assert_array_equal(decode_rgb(data, max_decode_pixels=LIMIT), np.asarray(picture()))


@pytest.mark.parametrize("place", PLACES)
def test_a_png_with_large_texts_is_turned_upright(place):
    data = place(*LARGE.values(), EXIF, LARGE["zTXt"])
    upright = np.rot90(np.asarray(picture()), -1)
    np.testing.assert_array_equal(decode_rgb(data, max_decode_pixels=LIMIT), upright)
    if place is before_pixels:
        assert read_header(data, max_decode_pixels=LIMIT).size == (40, 24)


@pytest.mark.parametrize("keyword", [b"interlace", b"transparency", b"bbox", b"xmp", b"exif", b"loop"])
def test_a_text_is_not_taken_for_what_a_header_says(keyword):
    data = before_pixels((b"tEXt", keyword + b"\0anything"))
    np.testing.assert_array_equal(decode_rgb(data, max_decode_pixels=LIMIT), np.asarray(picture()))


@pytest.mark.parametrize("place", PLACES)
def test_a_png_cut_in_a_text_is_refused(place):
    data = place(LARGE["zTXt"])
    start = data.index(b"zTXt")
    with pytest.raises(Exception, match="this PNG is truncated"):
        decode_rgb(data[: start + 100], max_decode_pixels=LIMIT)


def test_texts_and_profiles_that_inflate_without_end_take_no_memory():
    bomb = zlib.compress(bytes(100_000_000))
    chunks = [
        (b"zTXt", b"Comment\0\0" + bomb),
        (b"iTXt", b"Comment\0\1\0\0\0" + bomb),
        (b"iCCP", b"Profile\0\0" + bomb),
    ]
    data = behind_pixels(*chunks, data=before_pixels(*chunks))
    tracemalloc.start()
    np.testing.assert_array_equal(decode_rgb(data, max_decode_pixels=LIMIT), np.asarray(picture()))
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 2_000_000
