"""TIFF: every depth, photometric interpretation and way in which samples can lie in the file.

Paragraphs are those of TIFF 6.0. Files are written by `tiff_file`, tag by tag. Lossless pictures are noise.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import Literal

import numpy as np

from tests.model.images.matrix.cell import Cell
from tests.model.images.matrix.drawing import TURNS, Pixels, Samples, eight_bits, on_white, rgb, samples, smooth
from tests.model.images.matrix.tiff_file import PACKERS, Layout, tiff_file

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, MASK, CMYK, YCBCR, LAB, ICC_LAB = 0, 1, 2, 3, 4, 5, 6, 8, 9
NAMES = {
    WHITE_IS_ZERO: "gray, white is zero",
    BLACK_IS_ZERO: "gray",
    RGB: "RGB",
    PALETTE: "palette",
    CMYK: "CMYK",
    LAB: "CIE L*a*b*",
    ICC_LAB: "ICC L*a*b*",
}
DEPTHS = {
    WHITE_IS_ZERO: range(1, 17),
    BLACK_IS_ZERO: range(1, 17),
    RGB: (1, 2, 4, 8, 10, 12, 14, 16),
    PALETTE: (1, 2, 3, 4, 8, 12),
    CMYK: (4, 8, 12, 16),
    LAB: (8, 16),
    ICC_LAB: (8, 16),
}
COLOURS = {WHITE_IS_ZERO: 1, BLACK_IS_ZERO: 1, RGB: 3, PALETTE: 1, CMYK: 4, LAB: 3, ICC_LAB: 3}
ORDERS: tuple[Literal["<", ">"], ...] = ("<", ">")
IGNORED, PREMULTIPLIED, ALPHA = 0, 1, 2  # ExtraSamples
MEANINGS = {
    (): "",
    (IGNORED,): ", with a channel of no meaning",
    (PREMULTIPLIED,): ", with premultiplied alpha",
    (ALPHA,): ", with alpha",
    (IGNORED, ALPHA): ", with a channel of no meaning and alpha",
    (ALPHA, IGNORED): ", with alpha and a channel of no meaning",
}


def layouts(bits: int, *, planes: bool) -> Iterator[Layout]:
    """Ways to lay out samples: byte order × planes × strips or tiles, and what else there is with each of these."""
    for order, apart, tile in product(ORDERS, (False, True), (None, (16, 16))):
        if apart and not planes:
            continue
        where = Layout(order=order, planes=apart, tile=tile, rows=5)
        yield where
        yield replace(where, compression="LZW")
        if bits in (8, 16):
            yield replace(where, compression="deflate", differences=True)
            yield replace(where, big=True)
        yield replace(where, reversed_bits=True)


def compressions() -> Iterator[Layout]:
    """Every compression of bytes × differences × order of bits × planes."""
    either = (False, True)
    for name, differences, reversed_bits, apart in product(PACKERS, either, either, either):
        if not differences or name not in ("no compression", "PackBits"):
            yield Layout(planes=apart, compression=name, differences=differences, reversed_bits=reversed_bits, rows=5)


def described(layout: Layout) -> str:
    words = ["little-endian" if layout.order == "<" else "big-endian"]
    words += ["in planes"] if layout.planes else []
    words += ["tiles" if layout.tile else "strips", layout.compression]
    words += ["predictor 2"] if layout.differences else []
    words += ["reversed bits"] if layout.reversed_bits else []
    words += ["BigTIFF"] if layout.big else []
    return ", ".join(words)


def seen(values: Samples, bits: int, photometric: int, extra: tuple[int, ...], colormap: Samples | None) -> Pixels:
    """What is to be seen of samples `[h, w, samples]`."""
    count = COLOURS[photometric]
    pixels = eight_bits(values, bits)
    colour = pixels[..., :count]
    if photometric == WHITE_IS_ZERO:
        colour = 255 - colour
    elif photometric == PALETTE:
        assert colormap is not None
        colour = (colormap[:, values[..., 0]] >> 8).transpose(1, 2, 0).astype(np.uint8)
    elif photometric == CMYK:
        colour = cmyk_seen(colour)
    elif photometric in (LAB, ICC_LAB):
        colour = lab_seen(colour, signed=photometric == LAB)
    for at, meaning in enumerate(extra):
        if meaning == ALPHA:
            return on_white(colour, pixels[..., count + at])
        if meaning == PREMULTIPLIED:  # the colours are those on black: on white, what alpha leaves is added
            return rgb(np.minimum(colour + (255 - pixels[..., count + at, None].astype(int)), 255).astype(np.uint8))
    return rgb(colour)


def cmyk_seen(ink: Pixels) -> Pixels:
    """Each of three inks and black take their part of white paper's light (section 16), as Pillow computes it."""
    light = 255 - ink.astype(int)
    seen: Pixels = ((light[..., :3] * light[..., 3:] + 127) // 255).astype(np.uint8)
    return seen


def lab_seen(lab: Pixels, *, signed: bool) -> Pixels:
    """CIE L*a*b* under D50 as sRGB (section 23): through XYZ, with Bradford's adaptation to D65."""
    values = lab.astype(float)
    a, b = (((values[..., at] + 128 * signed) % 256) - 128 for at in (1, 2))
    y = (values[..., 0] * 100 / 255 + 16) / 116
    curve = [np.where(t > 6 / 29, t**3, 3 * (6 / 29) ** 2 * (t - 4 / 29)) for t in (y + a / 500, y, y - b / 200)]
    xyz = np.stack(curve, axis=-1) * (0.9642, 1.0, 0.8249)
    to_rgb = np.array(
        [[3.1338561, -1.6168667, -0.4906146], [-0.9787684, 1.9161415, 0.0334540], [0.0719453, -0.2289914, 1.4052427]]
    )
    linear = np.clip(xyz @ to_rgb.T, 0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    seen: Pixels = np.round(encoded * 255).astype(np.uint8)
    return seen


def drawn(bits: int, photometric: int, extra: tuple[int, ...]) -> Samples:
    values = samples(bits, COLOURS[photometric] + len(extra), seed=bits)
    if photometric in (LAB, ICC_LAB):  # colours that sRGB has
        values = 60 + smooth(3).astype(np.int64)[:13, :21] // 2
        values[..., 1:] = values[..., 1:] // 4 - 25
        if photometric == ICC_LAB:
            values[..., 1:] += 128
        values = (values % 256) << (bits - 8)
    if extra[:1] == (PREMULTIPLIED,):
        values[..., :-1] = np.minimum(values[..., :-1], values[..., -1:])
    return values


def kinds() -> Iterator[Cell]:
    """Photometric interpretation × depth × extra samples × layout."""
    for photometric, depths in DEPTHS.items():
        for bits, extra in product(depths, MEANINGS if photometric not in (LAB, ICC_LAB) else [()]):
            if extra and bits not in (8, 16) and not (extra == (ALPHA,) and bits in (4, 12)):
                continue
            for layout in layouts(bits, planes=COLOURS[photometric] + len(extra) > 1):
                yield cell(photometric, bits, extra, layout)
    for bits, layout in product((8, 16), compressions()):
        row = f"every compression of bytes, RGB, {bits} bits"
        yield replace(cell(RGB, bits, (), layout), name=f"{row}: {described(layout)}")


def cell(photometric: int, bits: int, extra: tuple[int, ...], layout: Layout) -> Cell:
    values = drawn(bits, photometric, extra)
    tags: dict[str, list[int]] = {"extra": list(extra)} if extra else {}
    colormap = None
    if photometric == PALETTE:
        colormap = samples(16, 3, height=1, width=1 << bits, seed=9)[0].T
        tags["colormap"] = colormap.ravel().tolist()
    refused = "with premultiplied alpha" if PREMULTIPLIED in extra and photometric in (PALETTE, CMYK) else ""
    return Cell(
        "TIFF",
        f"{NAMES[photometric]}, {bits} bits{MEANINGS[extra]}: {described(layout)}",
        tiff_file(values, bits, photometric, layout, **tags),
        None if refused else seen(values, bits, photometric, extra, colormap),
        refused,
        tolerance(photometric, extra),
        # Few decoders give the others as RGB, and libvips mixes up planes: `test_tiff_file.py` judges samples.
        judged=photometric in (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE)
        and bits in (1, 8, 16)
        and extra in ((), (ALPHA,))
        and not layout.planes,
    )


def tolerance(photometric: int, extra: tuple[int, ...]) -> int:
    """Pillow divides premultiplied colours by alpha and multiplies them again, and computes L*a*b* less precisely."""
    if PREMULTIPLIED in extra:
        return 1
    return {LAB: 3, ICC_LAB: 3, CMYK: 1}.get(photometric, 0)


def orientations() -> Iterator[Cell]:
    """The tag Orientation (section 8)."""
    for orientation, turn in TURNS.items():
        for bits, layout in product((8, 16), (Layout(), Layout(planes=True))):
            values = samples(bits, 3, seed=1)
            data = tiff_file(values, bits, RGB, layout, orientation=[orientation])
            want = turn(rgb(eight_bits(values, bits)))
            name = f"orientation {orientation}: RGB, {bits} bits{', in planes' * layout.planes}"
            yield Cell("TIFF", name, data, want, judged=not layout.planes)


def formats() -> Iterator[Cell]:
    """SampleFormat (section 19), and samples of 32 bits: whole numbers up to 65,535 are read, as those of 16 bits."""
    for bits, order, planes in product((8, 16, 32), ORDERS, (False, True)):
        values = samples(min(bits, 16) - 1, 3, seed=bits)
        layout = Layout(order=order, planes=planes, rows=5)
        want = rgb(eight_bits(values, min(bits, 16)))
        for number, name in ((1, "unsigned"), (2, "signed, none below zero"), (4, "undefined")):
            if (bits, number) != (8, 1) and (bits, number) != (16, 1):
                data = tiff_file(values, bits, RGB, layout, format=[number] * 3)
                yield Cell("TIFF", f"samples of {bits} bits, {name}: {described(layout)}", data, want, judged=False)
        below = values.copy()
        below[3, 4] = -1
        data = tiff_file(below, bits, RGB, layout, format=[2] * 3)
        name = f"samples of {bits} bits, some below zero: {described(layout)}"
        yield Cell("TIFF", name, data, None, "below zero or of more than 16 bits")
        if bits in (16, 32):
            data = tiff_file(values, bits, RGB, layout, format=[3] * 3)
            yield Cell("TIFF", f"floating point, {bits} bits: {described(layout)}", data, None, "floating-point")
    wide = samples(20, 1)
    data = tiff_file(wide, 32, BLACK_IS_ZERO, Layout())
    yield Cell("TIFF", "samples of 32 bits, some over 65,535", data, None, "more than 16 bits")
    yield Cell("TIFF", "samples of 24 bits", tiff_file(wide, 24, BLACK_IS_ZERO, Layout()), None, "24 bits")


def predictors() -> Iterator[Cell]:
    """Predictor (section 14): it means nothing without compression, and there are differences of 8, 16 and 32 bits."""
    for bits, name, number in product((8, 16), ("no compression", "PackBits"), (2, 3)):
        values = samples(bits, 3, seed=bits)
        layout = Layout(compression=name, rows=5, tags={317: (3, [number])})
        data = tiff_file(values, bits, RGB, layout)
        yield Cell(
            "TIFF",
            f"a predictor that means nothing: {number}, {bits} bits, {name}",
            data,
            rgb(eight_bits(values, bits)),
        )
    for bits, number in ((4, 2), (10, 2), (12, 2), (14, 2), (12, 3), (16, 3)):
        layout = Layout(compression="LZW", differences=True, tags={317: (3, [number])})
        data = tiff_file(samples(bits, 3, seed=bits), bits, RGB, layout)
        name = f"predictor {number} with samples of {bits} bits"
        yield Cell("TIFF", name, data, None, f"{bits} bits with predictor {number} are not read")


def meanings() -> Iterator[Cell]:
    """Channels and interpretations that have no agreed meaning, and the one that has without being declared."""
    for bits, order in product((8, 16), ORDERS):
        layout = Layout(order=order)
        values = samples(bits, 4, seed=bits)
        pixels = eight_bits(values, bits)
        # Section 18 wants ExtraSamples there; libtiff, libvips and Pillow take the fourth channel for alpha.
        name = f"RGB, {bits} bits, with a fourth channel undeclared: {described(layout)}"
        yield Cell("TIFF", name, tiff_file(values, bits, RGB, layout), on_white(pixels[..., :3], pixels[..., 3]))
        data = tiff_file(values[..., :3], bits, BLACK_IS_ZERO, layout)
        yield Cell("TIFF", f"gray, {bits} bits, undeclared channels: {described(layout)}", data, None, "ExtraSamples")
        for photometric in (MASK, 32803, 34892):
            data = tiff_file(values[..., :1], bits, photometric, layout)
            name = f"photometric interpretation {photometric}: {bits} bits, {described(layout)}"
            yield Cell("TIFF", name, data, None, f"photometric interpretation {photometric} is not read")
    nine = tiff_file(samples(16, 9), 16, BLACK_IS_ZERO, Layout(), extra=[0] * 8)
    yield Cell("TIFF", "nine samples a pixel", nine, None, "9 samples a pixel")


def cells() -> list[Cell]:
    return [*kinds(), *orientations(), *formats(), *predictors(), *meanings()]
