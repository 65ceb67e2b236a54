"""Reads JPEG 2000. imagecodecs decodes the components of the codestream; the boxes around it say what they mean.

Boxes (ISO/IEC 15444-1, annex I) hold a palette (pclr, cmap), the order of channels and alpha (cdef), and the colour
space (colr). Without them one component is gray, two are gray and alpha, three are RGB, and four are RGB and alpha.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from model.errors import UnsupportedFormat
from model.images.colour import picture_of, to_8_bits

_ENUMERATED = {12: "CMYK", 16: "RGB", 17: "L", 18: "YCbCr"}
_OF_PROFILE = {b"CMYK": "CMYK", b"RGB ": "RGB", b"GRAY": "L"}
_BY_COUNT = {1: "L", 2: "L", 3: "RGB", 4: "RGB"}
_COLOUR, _ALPHA, _PREMULTIPLIED = 0, 1, 2  # types of channels


@dataclass(frozen=True, slots=True)
class _Component:
    """bits: of a sample. step: columns and rows of pixels that a sample stands for."""

    bits: int
    signed: bool
    step: tuple[int, int]


@dataclass(slots=True)
class _Boxes:
    """space: Pillow's mode for the colour space, or the name of one that is not read; empty if none is given. palette:
    its columns, uint8 `[entries]`. channels: the component of each, and its column of the palette if it has one. types:
    of a channel, by its number, its type and the colour that it belongs to, 1 for the first."""

    space: str = ""
    palette: list[NDArray[np.uint8]] = field(default_factory=list)
    channels: list[tuple[int, int | None]] = field(default_factory=list)
    types: dict[int, tuple[int, int]] = field(default_factory=dict)


class Jpeg2000Picture(ImageFile.ImageFile):
    """A picture in mode L, RGB or RGBA when it is loaded."""

    format = "JPEG 2000"

    def _open(self) -> None:
        assert self.fp
        data = self.fp.read()
        self._codestream, self._boxes = (data, _Boxes()) if data.startswith(b"\xff\x4f") else _unboxed(data)
        self._size, self._components = _header(self._codestream)
        self._mode = "RGB"
        if reason := _reason_to_refuse(self._components, self._boxes):
            raise UnsupportedFormat(f"a JPEG 2000 of {reason} is not read; convert the image to sRGB or gray")

    def load(self) -> Any:
        if self._codestream:
            codestream, self._codestream = self._codestream, b""
            image = _picture(codestream, self._components, self._boxes)
            self.im, self._mode = image.im, image.mode
        return super().load()


def _header(codestream: bytes) -> tuple[tuple[int, int], list[_Component]]:
    """Width and height in pixels, and the components, from the SIZ segment (annex A.5.1)."""
    right, bottom, left, top, _, _, _, _, count = struct.unpack_from(">8IH", codestream, 8)
    described = struct.iter_unpack(">BBB", codestream[42 : 42 + 3 * count])
    components = [_Component((depth & 127) + 1, depth > 127, (columns, rows)) for depth, columns, rows in described]
    return (right - left, bottom - top), components


def _reason_to_refuse(components: list[_Component], boxes: _Boxes) -> str:
    """What is not read of a picture; empty for one that is."""
    first, *others = components
    if first.bits > 16:
        return f"{first.bits} bits a sample"
    if len(components) not in _BY_COUNT:
        return f"{len(components)} components"
    if any((other.bits, other.signed) != (first.bits, first.signed) for other in others):
        return "components of unequal depth"
    if boxes.space and boxes.space not in _ENUMERATED.values():
        return boxes.space
    if _is_subsampled(components):
        # imagecodecs takes the second and third of three components for chroma, which colr or cdef may deny.
        chroma = {other.step for other in others}
        if boxes.space not in ("", "YCbCr") or boxes.channels or boxes.types or first.signed:
            return "subsampled components that are not luma and chroma"
        if first.step != (1, 1) or len(others) != 2 or chroma not in ({(2, 1)}, {(2, 2)}):
            return f"components subsampled by {[component.step for component in components]}"
    return ""


def _is_subsampled(components: list[_Component]) -> bool:
    return any(component.step != (1, 1) for component in components)


def _picture(codestream: bytes, components: list[_Component], boxes: _Boxes) -> Image.Image:
    samples = _decoded(codestream, components[0])
    bits, count = components[0].bits, samples.shape[-1]
    channels = [
        to_8_bits(samples[..., component], bits)
        if column is None
        else _looked_up(samples[..., component], boxes.palette[column])
        for component, column in boxes.channels or [(component, None) for component in range(count)]
    ]
    mode = "RGB" if _is_subsampled(components) else boxes.space or _BY_COUNT[len(channels)]
    colours = Image.getmodebands(mode)
    # Without cdef a channel behind the colours is alpha.
    types = boxes.types or {at: (_COLOUR, at + 1) if at < colours else (_ALPHA, 0) for at in range(len(channels))}
    order = {colour: at for at, (kind, colour) in types.items() if kind == _COLOUR}
    alpha = next(((at, kind) for at, (kind, _) in types.items() if kind in (_ALPHA, _PREMULTIPLIED)), None)
    colour = np.dstack([channels[order[number]] for number in range(1, colours + 1)])
    if alpha is None:
        return picture_of(colour, mode)
    return picture_of(colour, mode, channels[alpha[0]], premultiplied=alpha[1] == _PREMULTIPLIED)


def _decoded(codestream: bytes, first: _Component) -> NDArray[Any]:
    """The samples from 0 on, `[height, width, components]`. Subsampled luma and chroma come out as RGB."""
    import imagecodecs  # when a picture needs it: that takes time

    samples = imagecodecs.jpeg2k_decode(codestream, numthreads=1)
    samples = samples.reshape(*samples.shape[:2], -1)
    return samples.astype(np.int32) + (1 << first.bits - 1) if first.signed else samples


def _looked_up(indices: NDArray[Any], column: NDArray[np.uint8]) -> NDArray[np.uint8]:
    colours: NDArray[np.uint8] = column[np.minimum(indices, len(column) - 1)]
    return colours


def _unboxed(data: bytes) -> tuple[bytes, _Boxes]:
    """The codestream, and what the boxes before it say."""
    boxes = _Boxes()
    for kind, content in _contents(data):
        if kind == b"jp2c":
            return content, boxes
        if kind == b"jp2h":
            for inner_kind, inner in _contents(content):
                _note(inner_kind, inner, boxes)
    raise ValueError("there is no codestream")


def _contents(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The type and content of each box."""
    at = 0
    while at + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        content = at + 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, content)
            content += 8
        end = at + size if size else len(data)
        if end < content:
            raise ValueError("a box has no end")
        yield kind, data[content:end]
        at = end


def _note(kind: bytes, content: bytes, boxes: _Boxes) -> None:
    """Takes over what a box inside the header says."""
    if kind == b"colr" and not boxes.space:  # readers take the first
        if content[0] == 1:
            (number,) = struct.unpack_from(">I", content, 3)
            boxes.space = _ENUMERATED.get(number, f"colour space {number}")
        elif content[0] == 2:
            boxes.space = _OF_PROFILE.get(content[19:23], "a colour profile that is neither RGB, gray nor CMYK")
    elif kind == b"pclr":
        boxes.palette = _palette(content)
    elif kind == b"cmap":
        entries = struct.iter_unpack(">HBB", content)
        boxes.channels = [(component, column if mapped else None) for component, mapped, column in entries]
    elif kind == b"cdef":
        entries = struct.iter_unpack(">HHH", content[2:])
        boxes.types = {channel: (kind_of, colour) for channel, kind_of, colour in entries}


def _palette(content: bytes) -> list[NDArray[np.uint8]]:
    """Columns of 8 bits each, whatever bits they are stored with."""
    entries, columns = struct.unpack_from(">HB", content)
    depths = content[3 : 3 + columns]
    row = struct.Struct(">" + "".join("B" if depth < 8 else "H" for depth in depths))
    rows = np.array([row.unpack_from(content, 3 + columns + at * row.size) for at in range(entries)])
    return [to_8_bits(rows[:, at], depth + 1) for at, depth in enumerate(depths)]
