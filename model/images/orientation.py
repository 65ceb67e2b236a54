"""Which turn brings a picture upright, by its EXIF metadata."""

from PIL import ExifTags, Image

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The turn for each EXIF orientation but 1. The last four swap the sides."""
SIDE_SWAPS = {TURNS[orientation] for orientation in (5, 6, 7, 8)}
FROM_RIGHT = {TURNS[orientation] for orientation in (2, 3, 6, 7)}
"""Turns that put the first stored column of pixels at the right."""
FROM_BOTTOM = {TURNS[orientation] for orientation in (3, 4, 7, 8)}
"""Turns that put the first stored row of pixels at the bottom."""


def turn_of(image: Image.Image) -> Image.Transpose | None:
    """The turn by the EXIF metadata read so far; None if they are broken."""
    try:
        # The base class's method: PNG's own decodes the whole picture to look for metadata behind the pixels.
        return TURNS.get(Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1))
    except MemoryError:
        raise
    except Exception:
        return None
