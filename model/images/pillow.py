"""How Pillow is set up, and what its errors become."""

import ctypes
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

from PIL import AvifImagePlugin, Image, _imaging

from model.errors import ImageError, ImageTooLarge, UndecodableImage, UnsupportedFormat
from model.images import container
from model.images.formats import heic


@cache
def confine_pillow() -> None:
    """Sets, at the first image, what Pillow and the libraries below it offer only for a whole process."""
    # Each image is decoded by one thread, not by as many as there are cores.
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    # Pillow's warnings about a file help no operator, and Python keeps each new text for good. They are ignored after
    # any filter that somebody else has set.
    for category in (UserWarning, Image.DecompressionBombWarning):
        warnings.filterwarnings("ignore", category=category, module=r"PIL\b", append=True)
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    # libtiff writes errors to stderr, past every log. Pillow silences only its warnings.
    set_error_handler = getattr(ctypes.CDLL(_imaging.__file__), "TIFFSetErrorHandler", None)
    if set_error_handler:  # missing if Pillow was linked in another way
        set_error_handler.argtypes, set_error_handler.restype = [ctypes.c_void_p], ctypes.c_void_p
        set_error_handler(None)


def tiff_tags(image: Image.Image) -> Mapping[int, Any]:
    """The tags in the first directory of a TIFF; empty for any other format."""
    tags: Mapping[int, Any] = getattr(image, "tag_v2", {})
    return tags


@contextmanager
def pillow_errors(data: bytes, max_decode_pixels: int) -> Iterator[None]:
    """Turns Pillow's errors into ours, here and nowhere else. On hostile bytes Pillow raises nearly every type."""
    try:
        yield
    except (ImageError, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageTooLarge(
            f"the image has too many pixels to be decoded safely; max_decode_pixels is {max_decode_pixels:,}"
        ) from error
    except Exception as error:
        raise complaint(data) from error


def complaint(data: bytes) -> ImageError:
    """What to tell the sender of bytes that Pillow could not open or decode."""
    readable = f"formats that are read: {', '.join(container.formats())}"
    if not data:
        return UnsupportedFormat(f"the image is empty: 0 bytes; {readable}")
    format = container.sniff(data)
    if format is None and heic.is_heic(data):
        return UnsupportedFormat(f"{heic.HOW_TO_READ}; or convert them to JPEG; {readable}")
    if format:
        return UndecodableImage(f"this {format} is truncated, corrupt, without pixels or of a variant that is not read")
    return UnsupportedFormat(f"not an image, or in no format that is read; {readable}")
