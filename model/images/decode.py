"""From the bytes of an image file to uint8 patch rows, by way of Pillow.

Sizes are `(height, width)` in pixels and grids `(grid_h, grid_w)` in patches, rows first: Pillow's `(width, height)` is
swapped here and nowhere else. Knows nothing of packs, of encoders or of normalising, which happens on the device. Keeps
no state, so every function may run in many threads at once.

Neither reading a header nor decoding belongs on an event loop: a hostile header takes up to a second. The pixels held
are bounded by `max_decode_pixels`, for an AVIF by three times as many, as its alpha and a gain map are streams of their
own; what else a file can make a decoder do, by `model.images.container`.
"""

import ctypes
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import AvifImagePlugin, ExifTags, Image, ImageFile, _imaging

from model.errors import ImageError, ImageTooLarge, UndecodableImage, UnsupportedFormat
from model.images import container
from model.images.metered import MeteredFile, PngFile
from model.images.patches import Box, largest_resize, patch_rows
from model.sizing.geometry import Geometry
from model.sizing.plan import ImagePlan, turn_plan

FORMATS: tuple[str, ...] = container.FORMATS

DecodeMode = Literal["exact", "fast"]
"""fast: a JPEG much larger than what it is resized to is decoded at a half, a quarter or an eighth of its size.

Of JPEG 2000, which could be decoded so too, Pillow then refuses many pictures whose sides the scale does not divide."""
DECODE_MODES: tuple[DecodeMode, ...] = get_args(DecodeMode)

# What Pillow calls a format that it does not call as people do.
_PLUGINS = {"WebP": "WEBP", "JPEG 2000": "JPEG2000"}

MAX_DECODE_SIDE = 65_535
"""Pixels of the longer side. Resizing takes a table of 16 bytes for each of them; JPEG can have no more."""

_AVIF_BRANDS = {b"avif", b"avis"}
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"mif2", b"msf1"}

# What brings a picture upright, by its EXIF orientation; the last four swap its sides.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDE_SWAPS = {_TURNS[orientation] for orientation in (5, 6, 7, 8)}
# Where the first stored column of pixels comes to lie at the right, and the first row at the bottom.
_FROM_RIGHT = {_TURNS[orientation] for orientation in (2, 3, 6, 7)}
_FROM_BOTTOM = {_TURNS[orientation] for orientation in (3, 4, 7, 8)}


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """What a file says of its picture before a pixel is decoded.

    `format` is one of `FORMATS`; `size` is `(height, width)` in pixels, of the picture as it is meant to be seen.
    """

    format: str
    size: tuple[int, int]


def read_header(data: bytes, *, max_decode_pixels: int) -> ImageHeader:
    """The format and the size of an image; no pixel is decoded, and no frame but the first looked for.

    The size is the one that `decode_rgb` gives, unless what turns the picture stands behind its pixels. Raises
    `UnsupportedFormat`, `ImageTooLarge` for more than `max_decode_pixels`, `UndecodableImage` for a broken header.
    """
    format, image, texts = _open(data, max_decode_pixels)
    size = (image.height, image.width)
    # Where the orientation is a tag of a TIFF, Pillow has swapped the sides already.
    if _turn(image, texts) in _SIDE_SWAPS and ExifTags.Base.Orientation not in _tiff_tags(image):
        size = size[::-1]
    return ImageHeader(format, size)


def decode_patches(
    data: bytes, plan: ImagePlan, *, geometry: Geometry, max_decode_pixels: int, decode: DecodeMode = "exact"
) -> tuple[ImagePlan, NDArray[np.uint8]]:
    """An image decoded, resized and cut as planned: the plan, and uint8 rows `[N, 3*P*P]` as `patch_rows` gives them.

    Another plan comes back only if the picture turned out, behind its pixels, to lie on its side: that of the same
    picture with its sides swapped, which takes as many tokens. Raises what `decode_rgb` raises, and `UndecodableImage`
    for a picture that is not of the planned size; whatever `decode` is, for the same files.
    """
    picture, box = _decode(data, max_decode_pixels, (plan, geometry) if decode == "fast" else None)
    if box:
        return plan, patch_rows(picture, plan, geometry, box=box)
    size = (picture.height, picture.width)
    if size not in (plan.size, plan.size[::-1]):
        raise UndecodableImage(
            f"the image is {size[0]}×{size[1]} pixels; its header announced {plan.size[0]}×{plan.size[1]}"
        )
    if size != plan.size:
        plan = turn_plan(plan, geometry=geometry)
    return plan, patch_rows(picture, plan, geometry)


def decode_rgb(data: bytes, *, max_decode_pixels: int) -> Image.Image:
    """The first frame of an image, upright, in mode RGB, with what is transparent laid on white.

    Raises `UnsupportedFormat`, `ImageTooLarge` for more than `max_decode_pixels`, and `UndecodableImage` for content
    that is truncated, corrupt or of a variant that is not read.
    """
    picture, _ = _decode(data, max_decode_pixels)
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def _decode(
    data: bytes, max_decode_pixels: int, fit: tuple[ImagePlan, Geometry] | None = None
) -> tuple[Image.Image, Box | None]:
    """The picture upright, in mode RGB or, if it is gray, L; and where it lies in the image, if made smaller to `fit`.

    What Pillow read it from is gone when this returns: of a picture that was converted or turned, one copy is left.
    """
    format, image, texts = _open(data, max_decode_pixels)
    with _pillow_errors(data, max_decode_pixels):
        box = _shrink(image, *fit) if fit and format == "JPEG" else None
        image.load()
        picture = _without_alpha(image)
        turn = _turn(image, texts)  # asked only now: a PNG may say so behind its pixels
        return picture if turn is None else picture.transpose(turn), box


def _shrink(image: ImageFile.ImageFile, plan: ImagePlan, geometry: Geometry) -> Box | None:
    """Has libjpeg decode no more than it must, by its scaled transforms: sides stay at least twice those resized to.

    Returns where the picture will lie in the upright image: where its sides are no multiples of the scale, the last
    column or row of pixels belongs to it in part. None if it is not the picture that was planned.
    """
    turn = _turn(image, {})
    swapped = turn in _SIDE_SWAPS
    if (image.size if swapped else image.size[::-1]) != plan.size:
        return None
    height, width = largest_resize(plan, geometry)
    drafted = image.draft(None, (2 * height, 2 * width) if swapped else (2 * width, 2 * height))
    if drafted is None:
        return None
    sides, (_, _, *inner) = image.size, drafted[1]
    (outer_w, outer_h), (inner_w, inner_h) = (sides[::-1], inner[::-1]) if swapped else (sides, inner)
    left = outer_w - inner_w if turn in _FROM_RIGHT else 0
    top = outer_h - inner_h if turn in _FROM_BOTTOM else 0
    return left, top, left + inner_w, top + inner_h


def _open(data: bytes, max_decode_pixels: int) -> tuple[str, ImageFile.ImageFile, Mapping[str, bytes | str]]:
    """The format of a file, its picture with nothing decoded yet, and texts that may turn it, as `MeteredFile` has."""
    with _pillow_errors(data, max_decode_pixels):
        format = container.sniff(data)
        if format is None:
            raise _complaint(data)
        _confine_pillow()
        file = PngFile(data) if format == "PNG" else MeteredFile(data, format)
        pixels = container.pixels_to_decode(data, format)
        # Pillow takes memory for the canvas of a WebP as it opens it, which the others' pixels wait for.
        _refuse_pixels(pixels, max_decode_pixels)
        image = Image.open(file, formats=(_PLUGINS.get(format, format),))
        file.found_pixels()
        _refuse_pixels(max(image.width * image.height, _tile_pixels(image)), max_decode_pixels)
    if max(image.size) > MAX_DECODE_SIDE:
        raise ImageTooLarge(
            f"the image ({image.height}×{image.width}) has a side of {max(image.size):,} pixels; "
            f"at most {MAX_DECODE_SIDE:,} are decoded"
        )
    if image.mode == "F":
        raise UnsupportedFormat("floating-point samples are not read; convert the image to 8 bits a channel")
    return format, image, file.texts


def _refuse_pixels(pixels: int, max_decode_pixels: int) -> None:
    if pixels > max_decode_pixels:
        raise ImageTooLarge(
            f"the image takes {pixels:,} pixels to decode; max_decode_pixels allows {max_decode_pixels:,}"
        )


@cache
def _confine_pillow() -> None:
    """Settings of Pillow and of libraries below it that can be had for a whole process only, at its first image."""
    # One image takes one thread of those that decode, not as many as there are cores.
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    # What Pillow thinks of a file is of no interest to whoever serves it; and each new sentence would be kept for good.
    # Behind the others, so that filters somebody has set come first.
    for category in (UserWarning, Image.DecompressionBombWarning):
        warnings.filterwarnings("ignore", category=category, module=r"PIL\b", append=True)
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    # libtiff writes what it thinks to stderr, past every log. Pillow silences its warnings and leaves its errors.
    set_error_handler = getattr(ctypes.CDLL(_imaging.__file__), "TIFFSetErrorHandler", None)
    if set_error_handler:  # not to be found where Pillow has been linked in another way
        set_error_handler.argtypes, set_error_handler.restype = [ctypes.c_void_p], ctypes.c_void_p
        set_error_handler(None)


def _tile_pixels(image: Image.Image) -> int:
    """Pixels in one tile of a TIFF, which libtiff holds as a whole, however small the picture: 0 for any other."""
    tags = _tiff_tags(image)
    return int(tags.get(ExifTags.Base.TileWidth, 0)) * int(tags.get(ExifTags.Base.TileLength, 0))


def _tiff_tags(image: Image.Image) -> Mapping[int, Any]:
    """The tags of a TIFF's first directory; none for any other format."""
    tags: Mapping[int, Any] = getattr(image, "tag_v2", {})
    return tags


def _turn(image: Image.Image, texts: Mapping[str, bytes | str]) -> Image.Transpose | None:
    """What brings a picture upright, by what has been read of it so far; a block too broken to read turns nothing."""
    for key, text in texts.items():
        image.info.setdefault(key, text)
    try:
        # The base class's method: PNG's own decodes the whole picture, in search of a block behind the pixels.
        return _TURNS.get(Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1))
    except MemoryError:
        raise
    except Exception:
        return None


def _without_alpha(image: Image.Image) -> Image.Image:
    """A decoded image in mode RGB or L, with what is transparent laid on white, as in Transformers >= 5.21."""
    if image.mode.startswith("I"):
        return _to_8_bits(image)
    if image.mode in ("La", "RGBa"):  # premultiplied; Pillow converts these to nothing but their plain counterparts
        image = image.convert(image.mode.upper())
    if "A" not in image.getbands() and image.info.get("transparency") is None:
        if image.mode in ("RGB", "L"):
            return image
        return image.convert("L" if image.mode == "1" else "RGB")
    rgba = image if image.mode == "RGBA" else image.convert("RGBA")
    # The same pixels as from `Image.alpha_composite`, in half the memory.
    canvas = Image.new("RGB", image.size, "white")
    canvas.paste(rgba, mask=rgba)
    return canvas


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Gray of 12 or 16 bits by its highest 8, as Pillow reads colour of 16; left to Pillow, gray is clipped at 255."""
    samples = np.asarray(image)
    if samples.dtype.itemsize > 2 and (samples.min() < 0 or samples.max() > 0xFFFF):
        raise UnsupportedFormat("samples of more than 16 bits are not read; convert the image to 8 bits a channel")
    # Pillow scales a narrow sample up to 16 bits for every format but TIFF.
    bits = min(16, *_tiff_tags(image).get(ExifTags.Base.BitsPerSample, (16,)))
    gray = (samples >> (bits - 8)).astype(np.uint8)
    transparent = image.info.get("transparency")
    if transparent is not None:
        gray[samples == transparent] = 255
    return Image.fromarray(gray)


@contextmanager
def _pillow_errors(data: bytes, max_decode_pixels: int) -> Iterator[None]:
    """The one boundary at which Pillow's errors become ours: on hostile bytes it raises nearly every kind there is."""
    try:
        yield
    except (ImageError, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageTooLarge(
            f"the image has too many pixels to be decoded safely; max_decode_pixels is {max_decode_pixels:,}"
        ) from error
    except Exception as error:
        raise _complaint(data) from error


def _complaint(data: bytes) -> ImageError:
    """What to tell the sender of bytes that Pillow could not open or decode."""
    readable = f"formats that are read: {', '.join(FORMATS)}"
    if not data:
        return UnsupportedFormat(f"the image is empty: 0 bytes; {readable}")
    brands = _brands(data)
    if brands & _HEIF_BRANDS and not brands & _AVIF_BRANDS:
        return UnsupportedFormat(f"HEIC (HEIF) images are not read, convert them to JPEG; {readable}")
    format = container.sniff(data)
    if format:
        return UndecodableImage(f"this {format} is truncated, corrupt, without pixels or of a variant that is not read")
    return UnsupportedFormat(f"not an image, or in no format that is read; {readable}")


def _brands(data: bytes) -> set[bytes]:
    """The major and the compatible brands of an ISO media file (AVIF, HEIC, MP4); none for any other."""
    if data[4:8] != b"ftyp":
        return set()
    end = min(int.from_bytes(data[:4]), 256)
    return {data[start : start + 4] for start in (8, *range(16, end, 4))}
