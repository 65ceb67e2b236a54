"""From the bytes of an image file to uint8 patch rows, with Pillow.

Sizes are `(height, width)` in pixels and grids `(grid_h, grid_w)` in patches, rows first. Pillow's `(width, height)` is
swapped here and nowhere else. Knows nothing of packs, encoders or normalising, which happens on the device. Keeps no
state, so many threads may call every function at once.

Neither reading a header nor decoding belongs on an event loop. `model.images.container` bounds what a JPEG, PNG, WebP,
GIF or BMP can make a decoder do. Nothing here does so for AVIF, JPEG 2000 and TIFF: call these functions through
`model.images.reader` unless you trust the file.
"""

from dataclasses import dataclass
from io import BytesIO
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile

from model.errors import ImageTooLarge, UndecodableImage
from model.images import container
from model.images.colour import without_alpha
from model.images.formats import avif, bmp, frames, heic, jpeg, png
from model.images.formats.jpeg2000 import Jpeg2000Picture
from model.images.formats.tiff import open_tiff, pixels_in_tiles
from model.images.metered import MeteredFile
from model.images.orientation import FROM_BOTTOM, FROM_RIGHT, SIDE_SWAPS, turn_of
from model.images.patches import Box, largest_resize, patch_rows
from model.images.pillow import complaint, confine_pillow, pillow_errors, tiff_tags
from model.sizing.geometry import Geometry
from model.sizing.plan import ImagePlan, turn_plan

FORMATS: tuple[str, ...] = container.FORMATS

DecodeMode = Literal["exact", "fast"]
"""fast: a JPEG much larger than its resized size is decoded at a half, a quarter or an eighth of its size.

JPEG 2000 could do the same, but imagecodecs has no parameter for it."""
DECODE_MODES: tuple[DecodeMode, ...] = get_args(DecodeMode)

# Formats that Pillow calls by another name.
_PLUGINS = {"WebP": "WEBP", "HEIC": "HEIF"}

# What Pillow is given in place of a file, and what decodes the picture that it has opened.
_OPENABLE = {"JPEG": jpeg.openable, "WebP": frames.webp_openable, "BMP": bmp.openable, "HEIC": heic.openable}
_DECODED = {"PNG": png.decoded, "GIF": frames.gif_decoded, "BMP": bmp.decoded, "AVIF": avif.decoded}

MAX_DECODE_SIDE = 65_535
"""Pixels of the longer side. Resizing takes a table of 16 bytes for each; a JPEG cannot have more."""


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """What a file says of its picture before any pixel is decoded.

    `format` is one of `FORMATS`, or HEIC; `size` is `(height, width)` in pixels, of the upright picture. `repaired`
    means that the file is a JPEG without its end marker, which is decoded only if nearly all of the picture is there.
    """

    format: str
    size: tuple[int, int]
    repaired: bool = False


def read_header(data: bytes, *, max_decode_pixels: int) -> ImageHeader:
    """The format and size of an image. Decodes no pixel, and looks for no frame but the first.

    `decode_rgb` gives a picture of that size, unless metadata behind the pixels turn it. Raises `UnsupportedFormat`,
    `ImageTooLarge` for more than `max_decode_pixels`, and `UndecodableImage` for a broken header.
    """
    format, image = _open(data, max_decode_pixels)
    left, top, right, bottom = avif.aperture(data, image.size) if format == "AVIF" else (0, 0, *image.size)
    size = (bottom - top, right - left)
    # If the orientation is a tag of a TIFF, Pillow has swapped the sides already.
    if turn_of(image) in SIDE_SWAPS and ExifTags.Base.Orientation not in tiff_tags(image):
        size = size[::-1]
    with pillow_errors(data, max_decode_pixels):
        return ImageHeader(format, size, repaired=format == "JPEG" and jpeg.lacks_end(image, data))


def decode_patches(
    data: bytes,
    plan: ImagePlan,
    *,
    geometry: Geometry,
    max_decode_pixels: int,
    decode: DecodeMode = "exact",
    rows: NDArray[np.uint8] | None = None,
) -> tuple[ImagePlan, NDArray[np.uint8]]:
    """An image decoded, resized and cut as planned: the plan, and uint8 rows `[N, 3*P*P]` as `patch_rows` gives them,
    in `rows` if there are any.

    Another plan comes back only if metadata behind the pixels swap the picture's sides: the plan of the turned picture,
    which takes as many tokens. Raises what `decode_rgb` raises, and `UndecodableImage` for a picture that is not of the
    planned size. Both modes raise for the same files.
    """
    picture, box = _decode(data, max_decode_pixels, (plan, geometry) if decode == "fast" else None)
    if box:
        return plan, patch_rows(picture, plan, geometry, box=box, rows=rows)
    size = (picture.height, picture.width)
    if size not in (plan.size, plan.size[::-1]):
        raise UndecodableImage(
            f"the image is {size[0]}×{size[1]} pixels; its header announced {plan.size[0]}×{plan.size[1]}"
        )
    if size != plan.size:
        plan = turn_plan(plan, geometry=geometry)
    return plan, patch_rows(picture, plan, geometry, rows=rows)


def decode_rgb(data: bytes, *, max_decode_pixels: int) -> Image.Image:
    """The first frame of an image, upright, in mode RGB, on white wherever it is transparent.

    Raises `UnsupportedFormat`, `ImageTooLarge` for more than `max_decode_pixels`, and `UndecodableImage` for content
    that is truncated, corrupt or of a variant that is not read.
    """
    picture, _ = _decode(data, max_decode_pixels)
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def _decode(
    data: bytes, max_decode_pixels: int, fit: tuple[ImagePlan, Geometry] | None = None
) -> tuple[Image.Image, Box | None]:
    """The upright picture in mode RGB, or L if it is gray; and where it lies in the image if it was shrunk to `fit`.

    Pillow's own image is freed when this returns, so only one copy of a converted or turned picture is left.
    """
    format, image = _open(data, max_decode_pixels)
    with pillow_errors(data, max_decode_pixels):
        if format == "JPEG" and (whole := jpeg.repaired(image, data)) is not data:
            format, image = _open(whole, max_decode_pixels)
        box = _shrink(image, *fit) if fit and format == "JPEG" else None
        if format in _DECODED:
            picture = without_alpha(_DECODED[format](image, data))
        else:
            image.load()
            picture = without_alpha(image)
        turn = turn_of(image)  # only now, because a PNG may say it behind its pixels
        return picture if turn is None else picture.transpose(turn), box


def _shrink(image: ImageFile.ImageFile, plan: ImagePlan, geometry: Geometry) -> Box | None:
    """Makes libjpeg decode a scaled picture whose sides are still at least twice the resized ones.

    Returns where the picture will lie in the upright image: if the scale does not divide its sides, it fills only part
    of the last column or row of pixels. None if this is not the picture that was planned.
    """
    turn = turn_of(image)
    swapped = turn in SIDE_SWAPS
    if (image.size if swapped else image.size[::-1]) != plan.size:
        return None
    height, width = largest_resize(plan, geometry)
    drafted = image.draft(None, (2 * height, 2 * width) if swapped else (2 * width, 2 * height))
    if drafted is None:
        return None
    sides, (_, _, *inner) = image.size, drafted[1]
    (outer_w, outer_h), (inner_w, inner_h) = (sides[::-1], inner[::-1]) if swapped else (sides, inner)
    left = outer_w - inner_w if turn in FROM_RIGHT else 0
    top = outer_h - inner_h if turn in FROM_BOTTOM else 0
    return left, top, left + inner_w, top + inner_h


def _open(data: bytes, max_decode_pixels: int) -> tuple[str, ImageFile.ImageFile]:
    """The format of a file, and its picture with nothing decoded yet."""
    with pillow_errors(data, max_decode_pixels):
        format = container.sniff(data)
        if format is None:
            raise complaint(data)
        confine_pillow()
        data = _OPENABLE[format](data) if format in _OPENABLE else data
        file = png.PngFile(data) if format == "PNG" else MeteredFile(data, format)
        # Checked before Pillow opens the file: opening a WebP allocates its canvas.
        _refuse_pixels(container.pixels_to_decode(data, format), max_decode_pixels)
        image = _opened(file, data, format)
        image.info.pop("xmp", None)  # Pillow would turn the picture by it; an orientation in XMP alone turns nothing
        file.found_pixels()
        _refuse_pixels(max(image.width * image.height, pixels_in_tiles(image)), max_decode_pixels)
    if max(image.size) > MAX_DECODE_SIDE:
        raise ImageTooLarge(
            f"the image ({image.height}×{image.width}) has a side of {max(image.size):,} pixels; "
            f"at most {MAX_DECODE_SIDE:,} are decoded"
        )
    return format, image


def _opened(file: MeteredFile, data: bytes, format: str) -> ImageFile.ImageFile:
    """The picture as the reader of its format gives it, with nothing decoded yet."""
    if format == "TIFF":
        return open_tiff(data, file)
    if format == "JPEG 2000":
        return Jpeg2000Picture(BytesIO(data))
    return Image.open(file, formats=(_PLUGINS.get(format, format),))


def _refuse_pixels(pixels: int, max_decode_pixels: int) -> None:
    if pixels > max_decode_pixels:
        raise ImageTooLarge(
            f"the image takes {pixels:,} pixels to decode; max_decode_pixels allows {max_decode_pixels:,}"
        )
