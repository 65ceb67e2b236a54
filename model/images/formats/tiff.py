"""Opens a TIFF with Pillow where Pillow reads it rightly, and with tifffile where it does not.

Pillow reads most files of 8 bits a sample. It mixes up planes of 16-bit samples, and those of gray and alpha; it gives
the negative of 16-bit min-is-white; it ignores signs; and it refuses many valid combinations.
"""

import logging
from collections.abc import Mapping
from functools import cache
from io import BytesIO
from types import ModuleType
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from model.errors import UndecodableImage, UnsupportedFormat
from model.images.colour import picture_of, to_8_bits
from model.images.orientation import SIDE_SWAPS, TURNS
from model.images.pillow import tiff_tags

if TYPE_CHECKING:
    from tifffile import TiffPage

_BIG_ENDIAN_BIGTIFF = b"MM\0+"  # Pillow takes it for a TIFF with offsets of four bytes
# Compressions of bytes: none, LZW, deflate, PackBits, LZMA, Zstandard. tifffile unpacks no more than a strip holds.
_BYTE_CODECS = {1, 5, 8, 32946, 32773, 34925, 50000}
_PREDICTED = _BYTE_CODECS - {1, 32773}  # with the others the tag Predictor means nothing
_WEBP = 50001  # Pillow's libtiff lacks it
_MIN_IS_WHITE, _RGB, _PALETTE, _CMYK, _YCBCR, _ICC_LAB = 0, 2, 3, 5, 6, 9  # PhotometricInterpretation
_MODES = {
    _MIN_IS_WHITE: "L",
    1: "L",
    _RGB: "RGB",
    _PALETTE: "P",
    _CMYK: "CMYK",
    _YCBCR: "YCbCr",
    8: "LAB",
    _ICC_LAB: "LAB",
}
_PREMULTIPLIED, _STRAIGHT = 1, 2  # ExtraSamples
_SIGNED, _NOT_WHOLE = 2, {3, 5, 6}  # SampleFormat: floating-point and complex
_MAX_SAMPLES = 8  # a pixel
_SAMPLE_FORMAT, _COEFFICIENTS, _SUBSAMPLING, _BLACK_AND_WHITE = 339, 529, 530, 532
_FULL_RANGE = (0, 255, 128, 255, 128, 255)
_ADVICE = "convert the image to RGB or gray of 8 bits a channel"


def open_tiff(data: bytes, file: IO[bytes]) -> ImageFile.ImageFile:
    """The picture, with nothing decoded yet. file: the same bytes, with a bound on what Pillow reads."""
    if not data.startswith(_BIG_ENDIAN_BIGTIFF):
        try:
            image = Image.open(file, formats=("TIFF",))
        except UnidentifiedImageError:
            return TiffPicture(BytesIO(data))
        if _pillow_is_right(tiff_tags(image)):
            return image
    return TiffPicture(BytesIO(data))


def _pillow_is_right(tags: Mapping[int, Any]) -> bool:
    """Whether Pillow decodes a TIFF rightly that it has opened."""
    if max(tags.get(ExifTags.Base.BitsPerSample, (1,))) > 8 or {*tags.get(_SAMPLE_FORMAT, (1,))} != {1}:
        return False
    compression = tags.get(ExifTags.Base.Compression, 1)
    if compression == _WEBP or (compression in _BYTE_CODECS and tags.get(ExifTags.Base.FillOrder) == 2):
        return False
    photometric = tags.get(ExifTags.Base.PhotometricInterpretation, 0)
    if photometric == _YCBCR and compression == 1:  # here Pillow knows neither subsampling nor range nor coefficients
        full_range = tags.get(_BLACK_AND_WHITE, _FULL_RANGE) == _FULL_RANGE and _COEFFICIENTS not in tags
        return full_range and tags.get(_SUBSAMPLING) == (1, 1)
    planes = tags.get(ExifTags.Base.PlanarConfiguration) == 2 and tags.get(ExifTags.Base.SamplesPerPixel, 1) > 1
    return not planes or (photometric in (_RGB, _CMYK) and compression not in _BYTE_CODECS)


def pixels_in_tiles(image: ImageFile.ImageFile) -> int:
    """Pixels of all tiles of a TIFF: each is decoded whole, however little of the picture it holds. 0 for strips."""
    if isinstance(image, TiffPicture):
        return image.pixels_in_tiles
    tags = tiff_tags(image)
    width, height = (int(tags.get(tag, 0)) for tag in (ExifTags.Base.ImageWidth, ExifTags.Base.ImageLength))
    tile_width, tile_height = (int(tags.get(tag, 0)) for tag in (ExifTags.Base.TileWidth, ExifTags.Base.TileLength))
    return _whole_tiles(width, tile_width) * _whole_tiles(height, tile_height)


def _whole_tiles(side: int, tile: int) -> int:
    """Pixels along one side of all tiles together."""
    return -(-side // tile) * tile if tile else 0


class TiffPicture(ImageFile.ImageFile):
    """The first picture of a TIFF, read with tifffile: upright, and in mode L, RGB or RGBA when it is loaded."""

    format = "TIFF"

    def _open(self) -> None:
        page = _first_page(self.fp)
        if reason := _reason_to_refuse(page):
            raise UnsupportedFormat(f"{reason}; {_ADVICE}")
        self._page: TiffPage | None = page
        self._mode = "RGB"
        self._orientation = page.tags.valueof(ExifTags.Base.Orientation, 1)
        self._turn = TURNS.get(self._orientation)
        sides = (page.imagewidth, page.imagelength)
        self._size = sides[::-1] if self._turn in SIDE_SWAPS else sides
        self.pixels_in_tiles = _whole_tiles(page.imagewidth, page.tilewidth) * _whole_tiles(
            page.imagelength, page.tilelength
        )

    def load(self) -> Any:
        if self._page:
            page, self._page = self._page, None
            image = _ycbcr_picture(self.fp, self._orientation) if page.photometric == _YCBCR else _picture(page)
            image = image if self._turn is None else image.transpose(self._turn)
            self.im, self._mode = image.im, image.mode
        return super().load()


@cache
def _tifffile() -> ModuleType:
    """tifffile, loaded when a picture needs it: that takes a tenth of a second."""
    import tifffile

    logging.getLogger("tifffile").setLevel(logging.CRITICAL + 1)  # its words about a file help no operator
    return tifffile


def _first_page(file: IO[bytes] | None) -> "TiffPage":
    # Without its ways of reading files of microscopes, which read more than one directory.
    makers = dict.fromkeys(("is_lsm", "is_scanimage", "is_ndpi"), False)
    page: TiffPage = _tifffile().TiffFile(file, **makers).pages.first
    if page.compression not in _PREDICTED:
        page.predictor = 1
    if page.samplesperpixel > _MAX_SAMPLES:
        raise UndecodableImage(f"this TIFF claims {page.samplesperpixel} samples a pixel; {_MAX_SAMPLES} are read")
    return page


def _reason_to_refuse(page: "TiffPage") -> str:
    """What is not read of a picture; empty for one that is."""
    bits, photometric = page.bitspersample, int(page.photometric)
    kind = f"a TIFF of photometric interpretation {photometric}"
    if page.sampleformat in _NOT_WHOLE:
        return "floating-point and complex samples are not read"
    if not isinstance(bits, int) or (bits > 16 and bits != 32):
        return f"samples of {bits} bits are not read"
    if page.imagedepth != 1:
        return "a TIFF of a volume is not read"
    if page.predictor != 1 and (page.predictor != 2 or bits not in (8, 16, 32)):  # libtiff refuses these too
        return f"samples of {bits} bits with predictor {int(page.predictor)} are not read"
    if photometric not in _MODES:
        return f"{kind} is not read"
    if page.compression not in _BYTE_CODECS | {_WEBP} or (photometric == _YCBCR and not _is_plain_ycbcr(page)):
        return f"{kind} with {bits} bits and compression {int(page.compression)} is not read"
    if photometric == _PALETTE and (page.colormap is None or page.colormap.shape != (3, 1 << bits)):
        return f"a TIFF whose palette has not one colour for each of {1 << bits} values is not read"
    if Image.getmodebands(_MODES[photometric]) + len(_extra(page)) != page.samplesperpixel:
        return f"{kind} with {page.samplesperpixel} samples a pixel that ExtraSamples does not explain is not read"
    if _PREMULTIPLIED in _extra(page) and _MODES[photometric] not in ("L", "RGB"):
        return f"{kind} with premultiplied alpha is not read"
    return ""


def _is_plain_ycbcr(page: "TiffPage") -> bool:
    return page.compression == 1 and page.planarconfig == 1 and (page.bitspersample, page.samplesperpixel) == (8, 3)


def _extra(page: "TiffPage") -> tuple[int, ...]:
    """The meaning of each sample behind the colours. A fourth sample of RGB is alpha if nothing else is said."""
    if page.photometric == _RGB and page.samplesperpixel == 4 and not page.extrasamples:
        return (_STRAIGHT,)
    return tuple(int(meaning) for meaning in page.extrasamples)


def _picture(page: "TiffPage") -> Image.Image:
    mode, samples, extra = _MODES[page.photometric], _samples(page), _extra(page)
    colours = Image.getmodebands(mode)
    colour = samples[..., :colours]
    if page.photometric == _MIN_IS_WHITE:
        colour = 255 - colour
    elif page.photometric == _PALETTE:
        assert page.colormap is not None
        mode, colour = "RGB", to_8_bits(page.colormap, 16).T[colour[..., 0]]
    elif page.photometric == _ICC_LAB:
        colour = colour ^ np.array([0, 128, 128], np.uint8)  # from values that begin at -128 to signed ones
    meaning, at = next(((meaning, at) for at, meaning in enumerate(extra, colours) if meaning in (1, 2)), (0, 0))
    alpha = to_8_bits(samples[..., at], page.bitspersample if samples.dtype == np.uint16 else 8) if meaning else None
    return picture_of(colour, mode, alpha, premultiplied=meaning == _PREMULTIPLIED)


def _samples(page: "TiffPage") -> NDArray[Any]:
    """8 bits of every sample, uint8 `[height, width, samples]`; of a palette uint16, as they are stored."""
    as_stored = page.photometric == _PALETTE
    shape = (page.imagelength, page.imagewidth, page.samplesperpixel)
    samples = np.zeros(shape, np.uint16 if as_stored else np.uint8)
    for segment, (plane, _, top, left, _), _ in page.segments(maxworkers=1):
        if segment is not None:  # a segment of zeros may be left out
            _, rows, columns, planes = segment.shape
            place = samples[top : top + rows, left : left + columns, plane : plane + planes]
            values = segment[0, : place.shape[0], : place.shape[1]]
            place[...] = values if as_stored else _highest_bits(values, page)
    return samples


def _highest_bits(values: NDArray[Any], page: "TiffPage") -> NDArray[np.uint8]:
    if page.sampleformat == _SIGNED or page.bitspersample > 16:
        if values.min() < 0 or values.max() > 0xFFFF:
            raise UnsupportedFormat(f"samples below zero or of more than 16 bits are not read; {_ADVICE}")
        values = values.astype(np.uint16)
    return to_8_bits(values, min(page.bitspersample, 16))


def _ycbcr_picture(file: IO[bytes] | None, orientation: int) -> Image.Image:
    """A picture of luma and chroma that is not compressed, in its stored order of rows and columns."""
    import imagecodecs

    assert file
    file.seek(0)
    image = Image.fromarray(imagecodecs.tiff_decode(file.read(), asrgb=True)[..., :3])
    # libtiff mirrors what it reads, so that row and column 0 are at the top and left, but swaps no sides.
    mirror = TURNS.get((orientation - 1) % 4 + 1)
    return image if mirror is None else image.transpose(mirror)
