"""JPEGs without an end marker: read if at most the last row of blocks lacks, and refused otherwise."""

from io import BytesIO
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from model.errors import UndecodableImage
from model.images.decode import decode_rgb, read_header
from tests.pictures import picture, save

LIMIT = 1_000_000
END = b"\xff\xd9"
HEIGHT, WIDTH = 70, 50
KINDS: dict[str, dict[str, Any]] = {
    "4:4:4": {"subsampling": 0},
    "4:2:0": {"subsampling": 2},
    "4:2:2": {"subsampling": 1},
    "restart markers": {"subsampling": 0, "restart_marker_blocks": 3},
    "a restart marker a row": {"subsampling": 2, "restart_marker_rows": 1},
    "progressive": {"subsampling": 2, "progressive": True},
    "progressive, quality 100": {"subsampling": 0, "progressive": True, "quality": 100},
    "progressive with restart markers": {"progressive": True, "restart_marker_blocks": 5},
    "gray": {"mode": "L"},
    "CMYK": {"mode": "CMYK"},
}
TRAILERS = {
    "nothing": b"",
    "half of the end marker": b"\xff",
    "Samsung's table": b"\0\0\0SEFH\x65\0\0\0" + bytes(range(1, 200)),
    "a film": b"\0\0\0\x18ftypmp42" + bytes(value % 251 for value in range(3000)),
    "zeros": bytes(100),
}


def jpeg(kind: str, *, smooth: bool = False) -> bytes:
    """A file of a kind; a smooth one has a white lower half, whose blocks take hardly a bit."""
    options = {"quality": 90} | KINDS[kind]
    image = picture(HEIGHT, WIDTH, options.pop("mode", "RGB"))
    if smooth:
        image.paste("white", (0, HEIGHT // 3, WIDTH, HEIGHT))
    return save(image, "JPEG", **options)


def pixels(data: bytes) -> NDArray[np.uint8]:
    return np.asarray(decode_rgb(data, max_decode_pixels=LIMIT))


def rows_of_blocks(data: bytes) -> int:
    """The height of a row of blocks, in pixels."""
    image = Image.open(BytesIO(data))
    assert isinstance(image, JpegImageFile)
    return 8 * max(vertical for _, _, vertical, _ in image.layer)


@pytest.mark.parametrize("trailer", TRAILERS)
@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_that_lacks_only_its_end_marker_is_read_whole(kind, smooth, trailer):
    whole = jpeg(kind, smooth=smooth)
    data = whole.removesuffix(END) + TRAILERS[trailer]
    np.testing.assert_array_equal(pixels(data), pixels(whole))
    assert read_header(data, max_decode_pixels=LIMIT).repaired


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("trailer", ["nothing", "Samsung's table", "a film", "zeros"])
def test_a_picture_that_is_read_lacks_at_most_its_last_row_of_blocks(kind, trailer):
    whole = jpeg(kind)
    want = pixels(whole)
    height = rows_of_blocks(whole)
    above = (-(-HEIGHT // height) - 1) * height - 1
    scan = whole.rindex(b"\xff\xda") + 20
    read, refused = [], []
    for end in range(scan, len(whole) - 2, 7):
        try:
            got = pixels(whole[:end] + TRAILERS[trailer])
        except UndecodableImage:
            refused.append(end)
            continue
        read.append(end)
        np.testing.assert_array_equal(got[:above], want[:above], err_msg=f"cut at {end} of {len(whole)}")
    assert read
    assert refused
    assert min(read) > max(refused)


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_that_has_its_end_marker_is_not_repaired_whatever_follows(kind):
    whole = jpeg(kind)
    for trailer in TRAILERS.values():
        assert not read_header(whole + trailer, max_decode_pixels=LIMIT).repaired
        np.testing.assert_array_equal(pixels(whole + trailer), pixels(whole))


def test_a_progressive_picture_that_lacks_a_scan_is_refused():
    whole = jpeg("progressive")
    with pytest.raises(UndecodableImage):
        pixels(whole[: whole.rindex(b"\xff\xda")])


def test_nothing_of_a_picture_of_one_row_of_blocks_may_lack():
    whole = save(picture(8, 90), "JPEG", quality=90)
    np.testing.assert_array_equal(pixels(whole[:-2]), pixels(whole))
    with pytest.raises(UndecodableImage, match="last row of blocks"):
        pixels(whole[:-60])


def test_another_picture_in_place_of_the_end_marker_makes_it_no_picture():
    whole = jpeg("4:2:0")
    for cut in (whole[:-2], whole[: len(whole) // 2]):
        with pytest.raises(UndecodableImage):
            pixels(cut + save(picture(16, 16), "JPEG"))


def test_a_line_end_before_a_picture_is_passed_over():
    whole = jpeg("4:2:0")
    np.testing.assert_array_equal(pixels(b"\r\n" + whole), pixels(whole))
    assert not read_header(b"\r\n" + whole, max_decode_pixels=LIMIT).repaired
    np.testing.assert_array_equal(pixels(b"\r\n" + whole[:-2]), pixels(whole))
    assert read_header(b"\r\n" + whole[:-2], max_decode_pixels=LIMIT).repaired
