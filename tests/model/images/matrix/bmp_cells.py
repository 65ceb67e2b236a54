"""BMP: every header, depth, order of rows, coding and set of masks.

Structures are those of Microsoft's "Bitmap Storage" and of IBM's OS/2 Presentation Manager.
"""

import struct
from collections.abc import Iterator

import numpy as np

from tests.model.images.matrix.cell import Cell
from tests.model.images.matrix.drawing import HEIGHT, WIDTH, Pixels, Samples, eight_bits, on_white, rgb, samples

CORE, OS2, INFO, V2, V3, V4, V5 = 12, 64, 40, 52, 56, 108, 124
HEADERS = {"OS/2 1": CORE, "OS/2 2": OS2, "Windows 3": INFO, "V2": V2, "V3": V3, "V4": V4, "V5": V5}
PLAIN, RLE8, RLE4, BITFIELDS, ALPHA_BITFIELDS = 0, 1, 2, 3, 6
Masks = tuple[int, int, int, int]


def bmp(
    rows: bytes,
    bits: int,
    *,
    header: int = INFO,
    coding: int = PLAIN,
    palette: Samples | None = None,
    masks: Masks = (0, 0, 0, 0),
    top_down: bool = False,
    gap: int = 0,
) -> bytes:
    """palette: `[n, 3]`, red first. gap: bytes between the headers and the pixels."""
    colours = b""
    if palette is not None:
        colours = b"".join(bytes(colour[::-1]) + b"\0" * (header != CORE) for colour in palette.astype(np.uint8))
    if header == CORE:
        info = struct.pack("<IHHHH", CORE, WIDTH, HEIGHT, 1, bits)
    else:
        high = -HEIGHT if top_down else HEIGHT
        used = 0 if palette is None else len(palette)
        info = struct.pack("<IiiHHIIiiII", header, WIDTH, high, 1, bits, coding, len(rows), 2835, 2835, used, 0)
    if header in (INFO, OS2):
        behind = struct.pack("<IIII", *masks)[: {BITFIELDS: 12, ALPHA_BITFIELDS: 16}.get(coding, 0)]
        info = info.ljust(header, b"\0") + behind
    elif header != CORE:
        info = (info + struct.pack("<IIII", *masks)[: header - INFO]).ljust(header, b"\0")
        if header >= V4:
            info = info[:56] + b"BGRs" + info[60:]  # LCS_sRGB
    start = 14 + len(info) + len(colours) + gap
    return struct.pack("<2sIHHI", b"BM", start + len(rows), 0, 0, start) + info + colours + bytes(gap) + rows


def lines(values: Samples, bits: int, *, top_down: bool = False) -> bytes:
    """Rows of `[h, w]` numbers of `bits` bits, each filled up to four bytes."""
    ordered = values if top_down else values[::-1]
    if bits >= 8:
        packed = [b"".join(int(value).to_bytes(bits // 8, "little") for value in row) for row in ordered]
    else:
        unpacked = (ordered[..., None] >> np.arange(bits - 1, -1, -1)) & 1
        packed = [row.tobytes() for row in np.packbits(unpacked.reshape(len(values), -1).astype(np.uint8), axis=1)]
    return b"".join(row + bytes(-len(row) % 4) for row in packed)


def palettes() -> Iterator[Cell]:
    for bits in (1, 4, 8):
        for name, header in HEADERS.items():
            for colours in {2**bits} if header == CORE else {2**bits, max(2, 2**bits - 1)}:
                values = samples(16, 1, seed=bits)[..., 0] % colours
                palette = samples(8, 3, height=1, width=colours, seed=5)[0]
                want = rgb(palette[values].astype(np.uint8))
                for top_down in (False,) if header == CORE else (False, True):
                    data = bmp(
                        lines(values, bits, top_down=top_down), bits, header=header, palette=palette, top_down=top_down
                    )
                    variant = f"{name}, {colours} colours, {'top down' if top_down else 'bottom up'}"
                    yield Cell("BMP", f"palette, {bits} bits: {variant}", data, want)


def colours() -> Iterator[Cell]:
    values = samples(8, 3)
    blue_first = values[..., 2] | values[..., 1] << 8 | values[..., 0] << 16
    fives = samples(5, 3)
    packed = fives[..., 2] | fives[..., 1] << 5 | fives[..., 0] << 10
    kinds = (
        ("RGB, 24 bits", 24, blue_first, rgb(eight_bits(values, 8))),
        # The highest bit of 16, and the highest byte of 32, mean nothing without masks.
        ("RGB, 16 bits of 5", 16, packed | samples(1, 1, seed=9)[..., 0] << 15, rgb(eight_bits(fives, 5))),
        ("RGB, 32 bits, the last byte is not used", 32, blue_first, rgb(eight_bits(values, 8))),
        (
            "RGB, 32 bits, the last byte is not used",
            32,
            blue_first | samples(8, 1, seed=9)[..., 0] << 24,
            rgb(eight_bits(values, 8)),
        ),
    )
    for number, (kind, bits, numbers, want) in enumerate(kinds):
        for name, header in HEADERS.items():
            if header == CORE and bits not in (24,):
                continue
            for top_down in (False,) if header == CORE else (False, True):
                data = bmp(lines(numbers, bits, top_down=top_down), bits, header=header, top_down=top_down, gap=8)
                variant = f"{name}, {'top down' if top_down else 'bottom up'}, drawing {number}"
                yield Cell("BMP", f"{kind}: {variant}", data, want)


MASKS: dict[str, tuple[int, Masks]] = {
    "5-5-5": (16, (0x7C00, 0x03E0, 0x001F, 0)),
    "5-6-5": (16, (0xF800, 0x07E0, 0x001F, 0)),
    "5-6-5, blue first": (16, (0x001F, 0x07E0, 0xF800, 0)),
    "4-4-4": (16, (0x0F00, 0x00F0, 0x000F, 0)),
    "8-8-8": (32, (0xFF0000, 0xFF00, 0xFF, 0)),
    "8-8-8, red first": (32, (0xFF, 0xFF00, 0xFF0000, 0)),
    "8-8-8, high bytes": (32, (0xFF000000, 0xFF0000, 0xFF00, 0)),
    "10-10-10": (32, (0x3FF00000, 0xFFC00, 0x3FF, 0)),
    "5-5-5 with an alpha of 1": (16, (0x7C00, 0x03E0, 0x001F, 0x8000)),
    "4-4-4 with an alpha of 4": (16, (0x0F00, 0x00F0, 0x000F, 0xF000)),
    "8-8-8 with an alpha of 8": (32, (0xFF0000, 0xFF00, 0xFF, 0xFF000000)),
    "8-8-8 with an alpha of 8, red first": (32, (0xFF, 0xFF00, 0xFF0000, 0xFF000000)),
    "8-8-8 with an alpha of 8 in front": (32, (0xFF000000, 0xFF0000, 0xFF00, 0xFF)),
}


def width_of(mask: int) -> int:
    return bin(mask).count("1")


def masked(masks: Masks, *, seed: int = 0) -> tuple[Samples, list[Samples]]:
    """Numbers `[h, w]`, and the samples of each mask that is not 0."""
    drawn = [samples(width_of(mask), 1, seed=seed + place)[..., 0] for place, mask in enumerate(masks) if mask]
    numbers = np.zeros((HEIGHT, WIDTH), np.int64)
    for values, mask in zip(drawn, masks, strict=False):
        numbers |= values * (mask & -mask)
    return numbers, drawn


def fields() -> Iterator[Cell]:
    for name, (bits, masks) in MASKS.items():
        numbers, drawn = masked(masks)
        parts = [eight_bits(values, width_of(mask)) for values, mask in zip(drawn, masks, strict=False)]
        colour = np.stack(parts[:3], axis=-1)
        want: Pixels = on_white(colour, parts[3]) if masks[3] else colour
        for header_name, header in HEADERS.items():
            if header in (CORE, OS2) or (masks[3] and header == V2):
                continue
            coding = ALPHA_BITFIELDS if masks[3] and header == INFO else BITFIELDS
            for top_down in (False, True):
                data = bmp(
                    lines(numbers, bits, top_down=top_down),
                    bits,
                    header=header,
                    coding=coding,
                    masks=masks,
                    top_down=top_down,
                )
                variant = f"{header_name}, {'top down' if top_down else 'bottom up'}"
                # imagecodecs reads 32 bits without looking at masks of 10 bits, and at none behind the smallest header.
                # It knows no mask of alpha there, which Windows CE and browsers do.
                judged = (bits == 16 and coding == BITFIELDS) or (name != "10-10-10" and header != INFO)
                yield Cell("BMP", f"masks, {bits} bits, {name}: {variant}", data, want, judged=judged)


def opaque() -> Iterator[Cell]:
    """A mask of alpha that is 0 everywhere was not meant."""
    masks: Masks = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    values = samples(8, 3)
    numbers = values[..., 2] | values[..., 1] << 8 | values[..., 0] << 16
    for header_name, header in HEADERS.items():
        if header in (V3, V4, V5):
            data = bmp(lines(numbers, 32), 32, header=header, coding=BITFIELDS, masks=masks)
            want = rgb(eight_bits(values, 8))
            # imagecodecs shows nothing.
            name = f"masks, 32 bits, alpha 0 everywhere is no alpha: {header_name}"
            yield Cell("BMP", name, data, want, judged=False)


def runs(values: Samples, bits: int) -> bytes:
    """Run lengths: of each row the first half in runs, and the second as it is (absolute mode)."""
    out = b""
    for row in values[::-1].tolist():
        half = len(row) // 2
        for value in row[:half]:
            out += bytes([1, value if bits == 8 else value << 4 | value])
        rest = row[half:]
        if bits == 4:
            padded = [*rest, 0] if len(rest) % 2 else rest
            packed = bytes(high << 4 | low for high, low in zip(padded[::2], padded[1::2], strict=True))
        else:
            packed = bytes(rest)
        out += bytes([0, len(rest)]) + packed + bytes(len(packed) % 2) + b"\0\0"
    return out + b"\0\1"


def run_lengths() -> Iterator[Cell]:
    for bits, coding in ((8, RLE8), (4, RLE4)):
        values = samples(bits, 1)[..., 0]
        palette = samples(8, 3, height=1, width=2**bits, seed=5)[0]
        want = rgb(palette[values].astype(np.uint8))
        for name, header in HEADERS.items():
            if header != CORE:
                data = bmp(runs(values, bits), bits, header=header, coding=coding, palette=palette)
                yield Cell("BMP", f"run lengths, {bits} bits: {name}", data, want)
    # What a jump (delta), an early end of a row or of the picture passes over is transparent, as in browsers.
    palette = samples(8, 3, height=1, width=256, seed=5)[0]
    want = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    want[-1] = palette[7]
    want[-2, :4] = palette[9]
    want[-4, 9:12] = palette[[1, 2, 3]]
    jumps = bytes([WIDTH, 7, 0, 0, 4, 9, 0, 2, 5, 2, 0, 3, 1, 2, 3, 0, 0, 0])
    for name, rest in (("empty rows", bytes(2) * (HEIGHT - 4)), ("an early end", b"")):
        data = bmp(jumps + rest + b"\0\1", 8, coding=RLE8, palette=palette)
        yield Cell("BMP", f"run lengths, 8 bits, jumps and {name}", data, want)
    cut = bmp(jumps[:10], 8, coding=RLE8, palette=palette)
    yield Cell("BMP", "run lengths that are cut off", cut, None, "truncated")


def refused() -> Iterator[Cell]:
    two = bmp(lines(samples(2, 1)[..., 0], 2), 2, palette=samples(8, 3, height=1, width=4)[0])
    yield Cell("BMP", "palette, 2 bits", two, None, "with a palette of 2 bits")
    for name, coding in (("a JPEG in a BMP", 4), ("a PNG in a BMP", 5)):
        yield Cell("BMP", name, bmp(bytes(100), 0, coding=coding), None, f"with {name.partition(' in')[0]}")
    for name, bits, coding in (("24-bit colours (RLE24)", 24, 4), ("Huffman codes", 1, 3)):
        data = bmp(bytes(100), bits, header=OS2, coding=coding, palette=samples(8, 3, height=1, width=2)[0])
        yield Cell("BMP", f"OS/2, {name}", data, None, name)
    yield Cell("BMP", "CMYK", bmp(bytes(4 * WIDTH * HEIGHT), 32, coding=11), None, "with CMYK")


def cells() -> list[Cell]:
    return [*palettes(), *colours(), *fields(), *opaque(), *run_lengths(), *refused()]
