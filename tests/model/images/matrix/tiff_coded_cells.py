"""TIFF: luma and chroma, fax compressions, and strips and tiles that are pictures of other formats.

Paragraphs are those of TIFF 6.0. Files are written by `tiff_file`, tag by tag.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from io import BytesIO
from itertools import product

import imagecodecs
import numpy as np
import tifffile
from PIL import Image

from tests.model.images.matrix.cell import Cell
from tests.model.images.matrix.drawing import TURNS, Pixels, Samples, eight_bits, rgb, samples, smooth
from tests.model.images.matrix.tiff_cells import (
    ALPHA,
    BLACK_IS_ZERO,
    NAMES,
    ORDERS,
    RGB,
    WHITE_IS_ZERO,
    YCBCR,
    described,
    seen,
)
from tests.model.images.matrix.tiff_file import PACKERS, Layout, tiff_file

Packer = Callable[[bytes], bytes]


def orientations() -> Iterator[Cell]:
    """The tag Orientation of uncompressed YCbCr, which libtiff decodes."""
    for orientation, turn in TURNS.items():
        values = smooth(3).astype(np.int64)
        layout = Layout(codec=(1, lambda segment: units(segment, (2, 2))), tags={530: (3, [2, 2])})
        data = tiff_file(halved(values, (2, 2)), 8, YCBCR, layout, orientation=[orientation])
        want = turn(ycbcr_seen(halved(values, (2, 2))))
        yield Cell("TIFF", f"orientation {orientation}: YCbCr", data, want, tolerance=1, judged=False)


def halved(values: Samples, steps: tuple[int, int]) -> Samples:
    """Chroma of which each block of `steps` columns and rows has one value."""
    rows, columns = np.mgrid[0 : values.shape[0], 0 : values.shape[1]]
    chroma = values[rows // steps[1] * steps[1], columns // steps[0] * steps[0], 1:]
    return np.concatenate([values[..., :1], chroma], axis=2)


def units(segment: Samples, steps: tuple[int, int]) -> bytes:
    """Data units of YCbCr: the luma of a block row by row, and its chroma (section 21)."""
    across, down = steps
    segment = np.pad(segment, ((0, -len(segment) % down), (0, -segment.shape[1] % across), (0, 0)), mode="edge")
    out = b""
    for top, left in product(range(0, len(segment), down), range(0, segment.shape[1], across)):
        luma = segment[top : top + down, left : left + across, 0]
        out += luma.astype(np.uint8).tobytes() + bytes(segment[top, left, 1:].tolist())
    return out


def ycbcr_seen(values: Samples, headroom: bool = False) -> Pixels:
    """YCbCr by the coefficients of CCIR 601; with headroom luma has 16 to 235, chroma 16 to 240 (section 21)."""
    luma, blue, red = (values[..., at].astype(float) for at in range(3))
    if headroom:
        luma, blue, red = (luma - 16) * 255 / 219, (blue - 128) * 127 / 112, (red - 128) * 127 / 112
    else:
        blue, red = blue - 128, red - 128
    planes = (luma + 1.402 * red, luma - 0.344136 * blue - 0.714136 * red, luma + 1.772 * blue)
    pixels: Pixels = np.clip(np.round(np.stack(planes, axis=-1)), 0, 255).astype(np.uint8)
    return pixels


def ycbcr() -> Iterator[Cell]:
    """Luma and chroma, not as JPEG: subsampling × compression × strips or tiles × range."""
    ranges = {"": {}, ", with headroom": {532: (5, [16, 1, 235, 1, 128, 1, 240, 1, 128, 1, 240, 1])}}
    for steps, compression, tile, (words, tags) in product(
        ((1, 1), (2, 1), (2, 2), (4, 4)), ("no compression", "LZW"), (None, (16, 16)), ranges.items()
    ):
        values = halved(smooth(3).astype(np.int64), steps)
        number, pack = PACKERS[compression]

        def packed(segment: Samples, pack: Packer = pack, steps: tuple[int, int] = steps) -> bytes:
            return pack(units(segment, steps))

        layout = Layout(codec=(number, packed), tile=tile, rows=8, tags={530: (3, list(steps))} | tags)
        row = f"YCbCr, 8 bits, chroma of {steps[0]}×{steps[1]} pixels{words}"
        name = f"{row}: {compression}, {'tiles' if tile else 'strips'}"
        want = ycbcr_seen(values, headroom=bool(words))
        # libtiff computes in whole numbers, and stretches them by 127/112.
        yield Cell("TIFF", name, tiff_file(values, 8, YCBCR, layout), want, tolerance=3, judged=False)


def faxes() -> Iterator[Cell]:
    """One bit a pixel, compressed for fax (sections 10 and 11). A bit of 1 stands for a pixel of 1."""
    values = (smooth(1) > 120).astype(np.int64) ^ samples(1, 1, height=24, width=32) * (smooth(1) > 200)
    names = {"tiff_ccitt": (2, "CCITT RLE"), "group3": (3, "fax group 3"), "group4": (4, "fax group 4")}
    for (compression, (number, name)), photometric, reversed_bits, order in product(
        names.items(), (WHITE_IS_ZERO, BLACK_IS_ZERO), (False, True), ORDERS
    ):
        layout = Layout(order=order, codec=(number, partial(fax, compression)), rows=9, reversed_bits=reversed_bits)
        data = tiff_file(values, 1, photometric, layout)
        want = seen(values, 1, photometric, (), None)
        yield Cell("TIFF", f"{NAMES[photometric]}, {name}: {described(layout)}", data, want)


def fax(compression: str, segment: Samples) -> bytes:
    """A strip, as Pillow compresses it."""
    file = BytesIO()
    Image.fromarray(segment[..., 0].astype(bool)).save(file, "TIFF", compression=compression)
    with tifffile.TiffFile(BytesIO(file.getvalue())) as saved:
        (start,), (size,) = saved.pages.first.dataoffsets, saved.pages.first.databytecounts
    return file.getvalue()[start : start + size]


def jpegs() -> Iterator[Cell]:
    """Strips and tiles that are JPEGs, and other codecs of pictures."""
    values = smooth(3).astype(np.int64)

    def jpeg(segment: Samples) -> bytes:
        pixels = np.ascontiguousarray(segment.astype(np.uint8))
        if pixels.shape[2] == 1:
            return bytes(imagecodecs.jpeg8_encode(pixels[..., 0], level=100))
        return bytes(imagecodecs.jpeg8_encode(pixels, level=100, colorspace="RGB", outcolorspace="RGB"))

    def chroma(segment: Samples) -> bytes:
        return bytes(imagecodecs.jpeg8_encode(segment.astype(np.uint8), level=100, subsampling="420"))

    for tile, planes in product((None, (16, 16)), (False, True)):
        layout = Layout(codec=(7, jpeg), tile=tile, planes=planes)
        data = tiff_file(values, 8, RGB, layout)
        name = f"JPEG in TIFF, RGB: {'tiles' if tile else 'strips'}{', in planes' * planes}"
        yield Cell("TIFF", name, data, rgb(eight_bits(values, 8)), tolerance=3, judged=False)
        if not planes:
            data = tiff_file(values[..., :1], 8, BLACK_IS_ZERO, layout)
            name = f"JPEG in TIFF, gray: {'tiles' if tile else 'strips'}"
            yield Cell("TIFF", name, data, rgb(eight_bits(values[..., :1], 8)), tolerance=3, judged=False)
            layout = replace(layout, codec=(7, chroma), tags={530: (3, [2, 2])})
            name = f"JPEG in TIFF, YCbCr: {'tiles' if tile else 'strips'}"
            want = rgb(eight_bits(values, 8))
            yield Cell("TIFF", name, tiff_file(values, 8, YCBCR, layout), want, tolerance=16, judged=False)
    two = np.concatenate([values[..., :1], values[..., 1:2]], axis=2)
    layout = Layout(codec=(7, jpeg), planes=True)
    data = tiff_file(two, 8, BLACK_IS_ZERO, layout, extra=[ALPHA])  # Pillow loses the gray
    yield Cell("TIFF", "JPEG in TIFF, gray with alpha in planes", data, None, "compression 7 is not read")
    codecs = {
        "WebP": (50001, lambda segment: bytes(imagecodecs.webp_encode(segment.astype(np.uint8), lossless=True))),
        "JPEG 2000": (34712, lambda segment: bytes(imagecodecs.jpeg2k_encode(segment.astype(np.uint8), level=0))),
        "JPEG XL": (50002, lambda segment: bytes(imagecodecs.jpegxl_encode(segment.astype(np.uint8), lossless=True))),
        "LERC": (34887, lambda segment: bytes(imagecodecs.lerc_encode(segment.astype(np.uint8)))),
    }
    for name, (number, encode) in codecs.items():
        data = tiff_file(values, 8, RGB, Layout(codec=(number, encode)))
        is_read = name == "WebP"
        refused = "" if is_read else f"compression {number} is not read"
        want = rgb(eight_bits(values, 8))
        yield Cell("TIFF", f"{name} in TIFF", data, want if is_read else None, refused, judged=False)


def cells() -> list[Cell]:
    return [*orientations(), *ycbcr(), *faxes(), *jpegs()]
