"""JPEG: colours, halved colour, progressive and restarted, orientation, and what is missing or stands behind the end.

Markers are those of ITU T.81.
"""

from collections.abc import Iterator
from io import BytesIO
from typing import Any

import imagecodecs
import numpy as np
from PIL import Image

from tests.model.images.matrix.cell import Cell
from tests.model.images.matrix.drawing import TURNS, Pixels, rgb, smooth
from tests.pictures import exif, xmp

SIZE = {"height": 40, "width": 50}  # several rows of blocks
CODINGS: dict[str, dict[str, Any]] = {
    "baseline": {},
    "optimised tables": {"optimize": True},
    "progressive": {"progressive": True},
    "restart markers": {"restart_marker_blocks": 2},
    "progressive, restart markers": {"progressive": True, "restart_marker_rows": 1},
}
ADOBE = b"\xff\xee\x00\x0eAdobe"


def jpeg(pixels: Pixels, mode: str | None = None, **options: Any) -> bytes:
    file = BytesIO()
    image = Image.fromarray(pixels) if mode is None else Image.frombytes(mode, pixels.shape[1::-1], pixels.tobytes())
    image.save(file, "JPEG", **{"quality": 97} | options)
    return file.getvalue()


def without_adobe(data: bytes) -> bytes:
    at = data.index(ADOBE)
    return data[:at] + data[at + 16 :]


def ycck(data: bytes) -> bytes:
    """A CMYK file that calls its colours YCCK, as Photoshop's are: the transform of Adobe's segment is 2."""
    at = data.index(ADOBE) + 15
    return data[:at] + b"\2" + data[at + 1 :]


def of_inks(cmyk: Pixels) -> Pixels:
    """The naive colour of inks, as Pillow, OpenCV and browsers without a profile compute it."""
    light = 255 - cmyk.astype(int)
    seen: Pixels = ((light[..., :3] * light[..., 3:] + 127) // 255).astype(np.uint8)
    return seen


def colours() -> Iterator[Cell]:
    drawn = smooth(4, **SIZE)
    colour, gray = drawn[..., :3], drawn[..., :1]
    for coding, options in CODINGS.items():
        yield Cell("JPEG", f"gray: {coding}", jpeg(gray[..., 0], **options), rgb(gray), tolerance=3)
        for name in ("4:4:4", "4:2:2", "4:2:0"):
            data = jpeg(colour, subsampling=name, **options)
            yield Cell("JPEG", f"YCbCr, {name}: {coding}", data, colour, tolerance=6)
        data = jpeg(colour, keep_rgb=True, subsampling=0, **options)
        yield Cell("JPEG", f"RGB: {coding}", data, colour, tolerance=4)
        # Inverted always, with Adobe's marker or without: so do Pillow, OpenCV and Chromium. libvips converts by a
        # profile of inks instead.
        data = jpeg(drawn, "CMYK", subsampling=0, **options)
        want = of_inks(drawn)
        yield Cell("JPEG", f"CMYK: {coding}", data, want, tolerance=6, judged=False)
        data = without_adobe(data)
        yield Cell("JPEG", f"CMYK without Adobe's marker: {coding}", data, want, tolerance=6, judged=False)
    for name in ("440", "411"):
        data = bytes(imagecodecs.jpeg8_encode(np.ascontiguousarray(colour), level=97, subsampling=name))
        yield Cell("JPEG", f"YCbCr, other samplings: {name}", data, colour, tolerance=8)
    # Adobe stores inks inverted. In YCCK the inverted inks are taken for light, inverted again and made YCbCr; Pillow
    # inverts what it is given.
    inks = np.asarray(Image.fromarray(np.ascontiguousarray(colour)).convert("YCbCr"))
    data = ycck(jpeg(np.dstack([255 - inks, drawn[..., 3]]), "CMYK", subsampling=0))
    yield Cell("JPEG", "YCCK", data, of_inks(drawn), tolerance=8, judged=False)


def precisions() -> Iterator[Cell]:
    deep = smooth(3, **SIZE).astype(np.uint16) << 4
    data = bytes(imagecodecs.jpeg8_encode(np.ascontiguousarray(deep), level=97, bitspersample=12))
    yield Cell("JPEG", "12 bits", data, None, "of a variant that is not read")
    whole = np.ascontiguousarray(smooth(3, **SIZE))
    data = bytes(imagecodecs.jpeg8_encode(whole, lossless=True))
    yield Cell("JPEG", "lossless, 8 bits", data, whole)
    yield Cell("JPEG", "JPEG-LS", bytes(imagecodecs.jpegls_encode(whole)), None, "of a variant that is not read")


def orientations() -> Iterator[Cell]:
    pixels = smooth(3, **SIZE)
    for orientation, turn in TURNS.items():
        for subsampling in ("4:4:4", "4:2:0"):
            data = jpeg(pixels, exif=exif(orientation), subsampling=subsampling)
            yield Cell("JPEG", f"orientation in EXIF: {orientation}, {subsampling}", data, turn(pixels), tolerance=6)
    data = jpeg(pixels, xmp=xmp(6), subsampling=0)
    yield Cell("JPEG", "orientation in XMP, which turns nothing", data, pixels, tolerance=6)
    data = jpeg(pixels, exif=exif(3), xmp=xmp(6), subsampling=0)
    yield Cell("JPEG", "orientation in EXIF: 3, and another in XMP", data, TURNS[3](pixels), tolerance=6)


def endings() -> Iterator[Cell]:
    pixels = smooth(3, **SIZE)
    samsung = b"\0\0\0SEFH\x65\0\0\0" + bytes(range(1, 200))
    film = b"\0\0\0\x18ftypmp42" + bytes(value % 251 for value in range(3000))
    for coding, options in CODINGS.items():
        data = jpeg(pixels, subsampling=0, **options)
        for name, trailer in (("nothing", b""), ("Samsung's table", samsung), ("a film", film), ("zeros", bytes(64))):
            yield Cell("JPEG", f"bytes behind the end: {coding}, {name}", data + trailer, pixels, tolerance=6)
            cut = data[:-2] + trailer
            # libvips reads them too, and some of these only with a warning.
            yield Cell("JPEG", f"no end marker: {coding}, {name}", cut, pixels, tolerance=6, judged=False)
            cut = data[: len(data) * 2 // 3] + trailer
            yield Cell("JPEG", f"a third is missing: {coding}, {name}", cut, None, "truncated")
    file = BytesIO()
    other = Image.fromarray(pixels[::-1].copy())
    Image.fromarray(pixels).save(file, "MPO", save_all=True, append_images=[other], quality=97, subsampling=0)
    yield Cell("JPEG", "several pictures (MPO): the first", file.getvalue(), pixels, tolerance=6)
    # libvips wants the picture at the very beginning.
    data = b"\r\n" + jpeg(pixels, subsampling=0)
    yield Cell("JPEG", "a line end before the picture", data, pixels, tolerance=6, judged=False)


def cells() -> list[Cell]:
    return [*colours(), *precisions(), *orientations(), *endings()]
