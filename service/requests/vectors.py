"""The element types of an embedding: from float32 numbers to what is written, as an array or as base64.

Pure. Shared by every route and dialect, so that a type means the same in each.

- float, float16: the numbers themselves.
- bfloat16: the nearest bfloat16, in an array that numpy keeps as float32; base64 has its two bytes.
- int8: `round(v * factor)` from -127 to 127 (`Int8Scale`); uint8: the same plus 128.
- ubinary: a bit for each number, 1 if it is over 0, the first number in the highest bit of the first byte; bits behind
  the last number are 0. binary: the same bytes minus 128, as int8. So do Cohere, Voyage and sentence-transformers.
"""

import base64
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from service.engine.forward import have_directions
from service.errors import Invalid
from service.int8_scale import Int8Scale
from service.requests.results import normalized

Element = Literal["float", "float16", "bfloat16", "int8", "uint8", "binary", "ubinary"]
Endianness = Literal["little", "big"]

_SHIFT = 128


@dataclass(frozen=True, slots=True)
class VectorFormat:
    """How an embedding is written.

    dimensions: how many of its first numbers are kept, all if None. normalize: scale what was cut to length 1 again;
    int8 and uint8 are for vectors of length 1. base64: a string in place of an array. endianness: of the string's
    numbers.
    """

    element: Element = "float"
    dimensions: int | None = None
    normalize: bool = True
    base64: bool = False
    endianness: Endianness = "little"

    @property
    def may_lose_vectors(self) -> bool:
        """Whether `check` could raise."""
        return self.dimensions is not None or self.element == "float16"

    def write(self, vectors: NDArray[np.float32], scale: Int8Scale) -> NDArray[Any] | str:
        """vectors: float32 `[E]` or `[B, E]`, as they are without a format.

        The result is an array in native byte order, which orjson takes, or base64.
        """
        values = self.array(vectors, scale)
        return base64.b64encode(self._octets(values)).decode() if self.base64 else values

    def octets(self, vectors: NDArray[np.float32], scale: Int8Scale) -> bytes:
        """The same as bytes, row after row: what base64 is of."""
        return self._octets(self.array(vectors, scale)).tobytes()

    def _octets(self, values: NDArray[Any]) -> memoryview:
        return _ordered(_upper_halves(values) if self.element == "bfloat16" else values, self.endianness)

    def array(self, vectors: NDArray[np.float32], scale: Int8Scale) -> NDArray[Any]:
        """The same as an array: float32, float16, int8 or uint8, `[N]` or `[B, N]`, contiguous.

        N is the number of dimensions, or of bytes that hold a bit for each.
        """
        kept = self.cut(vectors)
        match self.element:
            case "float":
                return np.ascontiguousarray(kept)
            case "float16":
                return kept.astype(np.float16)
            case "bfloat16":
                return _rounded_to_bfloat16(kept)
            case "int8":
                return scale.scaled(kept).astype(np.int8)
            case "uint8":
                return (scale.scaled(kept) + _SHIFT).astype(np.uint8)
            case "ubinary":
                return np.packbits(kept > 0, axis=-1)
            case "binary":
                return (np.packbits(kept > 0, axis=-1) ^ np.uint8(_SHIFT)).view(np.int8)

    def check(self, vectors: NDArray[np.float32]) -> None:
        """Raises `Invalid` for a vector that would be written as zeros or as numbers that are not finite.

        vectors: float32 `[B, E]`. None of them is so yet.
        """
        if self.dimensions is not None and not have_directions(vectors[:, : self.dimensions]):
            raise Invalid(
                f"the first {self.dimensions} numbers of the vector are all 0; ask for more", param="dimensions"
            )
        if self.element != "float16":
            return
        with np.errstate(over="ignore", under="ignore"):
            halves = self.cut(vectors).astype(np.float16)
        if not (np.isfinite(halves).all() and halves.any(axis=-1).all()):
            raise Invalid("the vector does not fit float16 at the length that the model gives it; leave out normalize")

    def cut(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32 `[N]` or `[B, N]`: the first numbers of each vector. A vector that is not cut keeps its bits."""
        if self.dimensions is None or self.dimensions == vectors.shape[-1]:
            return vectors
        kept = np.ascontiguousarray(vectors[..., : self.dimensions])
        return normalized(kept) if self.normalize else kept


def check_dimensions(dimensions: int | None, width: int, allowed: tuple[int, ...] | None = None) -> None:
    """Raises `Invalid` for more dimensions than an embedding has, or others than a model allows that names them."""
    if dimensions is None or dimensions == width:
        return
    if not 1 <= dimensions <= width:
        raise Invalid(f"dimensions is {dimensions}; embeddings have {width}", param="dimensions")
    if allowed and dimensions not in allowed:
        named = ", ".join(map(str, allowed))
        raise Invalid(
            f"dimensions is {dimensions}; this model's vectors may be cut to {named} of their {width}",
            param="dimensions",
        )


def cut_warning(
    dimensions: int | None, width: int, allowed: tuple[int, ...] | None, *, param: str = "dimensions"
) -> str | None:
    """The warning for a caller who cuts vectors of a model that does not say that they may be cut; None without one.

    allowed: the dimensions that the model names, empty for any, None if it does not say. param: how the caller named
    them. Plain ASCII, for a header.
    """
    if dimensions is None or dimensions == width or allowed is not None:
        return None
    return (
        f"{param}={dimensions}: this model does not say that its vectors may be cut; the first {dimensions} of "
        f"{width} numbers may rank neighbours worse than all of them"
    )


def to_base64(values: NDArray[Any], endianness: Endianness = "little") -> str:
    """The bytes of the values, row after row."""
    return base64.b64encode(_ordered(values, endianness)).decode()


def _ordered(values: NDArray[Any], endianness: Endianness) -> memoryview:
    order: Literal["<", ">"] = "<" if endianness == "little" else ">"
    return np.ascontiguousarray(values, dtype=values.dtype.newbyteorder(order)).data


def _rounded_to_bfloat16(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Ties to even, as hardware does. Finite numbers only."""
    bits = np.ascontiguousarray(vectors).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).view(np.float32)


def _upper_halves(vectors: NDArray[np.float32]) -> NDArray[np.uint16]:
    return (vectors.view(np.uint32) >> 16).astype(np.uint16)
