"""From the bytes of an image file to uint8 patch rows, by way of Pillow.

Sizes are `(height, width)` in pixels and grids `(grid_h, grid_w)` in patches, rows first: Pillow's `(width, height)` is
swapped here and nowhere else. Knows nothing of packs, of encoders or of normalising, which happens on the device. Keeps
no state, so every function may run in many threads at once.

Neither reading a header nor decoding belongs on an event loop: a hostile header of 20 MB takes seconds. The pixels held
are bounded by `max_decode_pixels` for every format but AVIF, whose frame may be larger than its header says, up to the
16384² that libavif allows.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile

from model.errors import ImageError, ImageTooLarge, UndecodableImage, UnsupportedFormat
from model.geometry import Geometry
from model.patches import patch_rows
from model.sizing import ImagePlan, turn_plan

# What people call a format, and what Pillow calls it.
_PLUGINS = {
    "JPEG": "JPEG",
    "PNG": "PNG",
    "WebP": "WEBP",
    "AVIF": "AVIF",
    "GIF": "GIF",
    "BMP": "BMP",
    "TIFF": "TIFF",
    "JPEG 2000": "JPEG2000",
}
# MPO, a JPEG with more pictures behind the first, is opened by Pillow's JPEG plugin.
_NAMES = {plugin: name for name, plugin in _PLUGINS.items()} | {"MPO": "JPEG"}
FORMATS: tuple[str, ...] = tuple(_PLUGINS)

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
    image = _open(data, max_decode_pixels)
    size = (image.height, image.width)
    # Where the orientation is a tag of a TIFF, Pillow has swapped the sides already.
    if _turn(image) in _SIDE_SWAPS and ExifTags.Base.Orientation not in _tiff_tags(image):
        size = size[::-1]
    return ImageHeader(_NAMES[str(image.format)], size)


def decode_patches(
    data: bytes, plan: ImagePlan, *, geometry: Geometry, max_decode_pixels: int
) -> tuple[ImagePlan, NDArray[np.uint8]]:
    """An image decoded, resized and cut as planned: the plan, and uint8 rows `[N, 3*P*P]` as `patch_rows` gives them.

    Another plan comes back only if the picture turned out, behind its pixels, to lie on its side: that of the same
    picture with its sides swapped, which takes as many tokens. Raises what `decode_rgb` raises, and `UndecodableImage`
    for a picture that is not of the planned size.
    """
    image = decode_rgb(data, max_decode_pixels=max_decode_pixels)
    size = (image.height, image.width)
    if size not in (plan.size, plan.size[::-1]):
        raise UndecodableImage(
            f"the image is {size[0]}×{size[1]} pixels; its header announced {plan.size[0]}×{plan.size[1]}"
        )
    if size != plan.size:
        plan = turn_plan(plan, geometry=geometry)
    return plan, patch_rows(image, plan, geometry)


def decode_rgb(data: bytes, *, max_decode_pixels: int) -> Image.Image:
    """The first frame of an image, upright, in mode RGB, with what is transparent laid on white.

    Raises `UnsupportedFormat`, `ImageTooLarge` for more than `max_decode_pixels`, and `UndecodableImage` for content
    that is truncated, corrupt or of a variant that is not read.
    """
    image = _open(data, max_decode_pixels)
    with _pillow_errors(data, max_decode_pixels):
        image.load()
        rgb = _to_rgb(image)
        turn = _turn(image)  # asked only now: a PNG may say so behind its pixels
        return rgb if turn is None else rgb.transpose(turn)


def _open(data: bytes, max_decode_pixels: int) -> ImageFile.ImageFile:
    with _pillow_errors(data, max_decode_pixels):
        image = Image.open(BytesIO(data), formats=tuple(_PLUGINS.values()))
        pixels = max(image.width * image.height, _tile_pixels(image))
    if pixels > max_decode_pixels:
        raise ImageTooLarge(
            f"the image ({image.height}×{image.width}) takes {pixels:,} pixels to decode; "
            f"max_decode_pixels allows {max_decode_pixels:,}"
        )
    if image.mode == "F":
        raise UnsupportedFormat("floating-point samples are not read; convert the image to 8 bits a channel")
    return image


def _tile_pixels(image: Image.Image) -> int:
    """Pixels in one tile of a TIFF, which libtiff holds as a whole, however small the picture: 0 for any other."""
    tags = _tiff_tags(image)
    return int(tags.get(ExifTags.Base.TileWidth, 0)) * int(tags.get(ExifTags.Base.TileLength, 0))


def _tiff_tags(image: Image.Image) -> Mapping[int, Any]:
    """The tags of a TIFF's first directory; none for any other format."""
    tags: Mapping[int, Any] = getattr(image, "tag_v2", {})
    return tags


def _turn(image: Image.Image) -> Image.Transpose | None:
    """What brings a picture upright, by what has been read of it so far; a block too broken to read turns nothing."""
    try:
        # The base class's method: PNG's own decodes the whole picture, in search of a block behind the pixels.
        return _TURNS.get(Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1))
    except MemoryError:
        raise
    except Exception:
        return None


def _to_rgb(image: Image.Image) -> Image.Image:
    """A decoded image in mode RGB, with what is transparent laid on white, as in Transformers >= 5.21."""
    if image.mode.startswith("I"):
        return _gray_to_rgb(image)
    if image.mode in ("La", "RGBa"):  # premultiplied; Pillow converts these to nothing but their plain counterparts
        image = image.convert(image.mode.upper())
    if "A" not in image.getbands() and image.info.get("transparency") is None:
        return image if image.mode == "RGB" else image.convert("RGB")
    rgba = image if image.mode == "RGBA" else image.convert("RGBA")
    # The same pixels as from `Image.alpha_composite`, in half the memory.
    canvas = Image.new("RGB", image.size, "white")
    canvas.paste(rgba, mask=rgba)
    return canvas


def _gray_to_rgb(image: Image.Image) -> Image.Image:
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
    return Image.fromarray(gray).convert("RGB")


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
    for name, plugin in _PLUGINS.items():
        accept = Image.OPEN[plugin][1]
        if accept and accept(data[:16]):
            return UndecodableImage(
                f"this {name} is truncated, corrupt, without pixels or of a variant that is not read"
            )
    return UnsupportedFormat(f"not an image, or in no format that is read; {readable}")


def _brands(data: bytes) -> set[bytes]:
    """The major and the compatible brands of an ISO media file (AVIF, HEIC, MP4); none for any other."""
    if data[4:8] != b"ftyp":
        return set()
    end = min(int.from_bytes(data[:4]), 256)
    return {data[start : start + 4] for start in (8, *range(16, end, 4))}
