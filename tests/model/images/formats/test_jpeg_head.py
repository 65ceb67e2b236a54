"""The size of a plain JPEG is what Pillow says; and whatever Pillow might refuse is no plain JPEG."""

from contextlib import closing
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image

from model.images.decode import read_header
from model.images.reader import ImageReader
from tests.examples import many
from tests.mutations import damaged, small_files
from tests.pictures import exif, picture, save

LIMIT = 10_000


def camera_exif(order: str, orientation: int) -> bytes:
    """As a phone writes it, with tags before and behind the orientation."""
    block = Image.Exif()
    block.endian = order
    block[ExifTags.Base.Make] = "Maker of phones"
    block[ExifTags.Base.Orientation] = orientation
    block[ExifTags.Base.XResolution] = 72.0
    block[ExifTags.Base.ResolutionUnit] = 2
    block.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ISOSpeedRatings] = 50
    return block.tobytes()


PLAIN = {
    "colours": save(picture(6, 9), "JPEG"),
    "gray": save(picture(6, 9, "L"), "JPEG"),
    "optimized, with restarts": save(picture(60, 90), "JPEG", optimize=True, restart_marker_blocks=2),
    "a profile and a comment": save(picture(6, 9), "JPEG", icc_profile=bytes(90_000), comment=b"a comment"),
    **{f"orientation {turn}": save(picture(6, 9), "JPEG", exif=exif(turn)) for turn in range(10)},
    **{
        f"a phone's photo, {order}{turn}": save(picture(6, 9), "JPEG", exif=camera_exif(order, turn))
        for turn in (1, 3, 6)
        for order in "<>"
    },
}


@pytest.mark.parametrize("kind", PLAIN)
def test_what_is_usually_sent_is_plain_and_has_the_header_that_pillow_reads(kind: str) -> None:
    with closing(ImageReader(processes=1, max_decode_pixels=LIMIT)) as reader:
        assert reader.plain_header(PLAIN[kind]) == read_header(PLAIN[kind], max_decode_pixels=LIMIT)


def test_a_picture_that_is_too_large_is_left_to_who_says_so() -> None:
    with closing(ImageReader(processes=1, max_decode_pixels=50)) as reader:
        assert reader.plain_header(PLAIN["colours"]) is None


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@many(400)
@given(random=st.randoms(use_true_random=False))
def test_a_damaged_file_has_no_plain_header_or_the_one_that_pillow_reads(random: Random) -> None:
    # Most damage takes the end marker, or breaks what is checked first.
    data = damaged(random.choice([*PLAIN.values(), *small_files().values()]), random)
    data += b"\xff\xd9" * random.randrange(2)
    with closing(ImageReader(processes=1, max_decode_pixels=LIMIT)) as reader:
        if (plain := reader.plain_header(data)) is not None:
            assert plain == read_header(data, max_decode_pixels=LIMIT)
