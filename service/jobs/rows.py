"""What goes through a job: a picture as its source gives it, a decoded one, and the row that comes of it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.sizing.plan import ImagePlan


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture of a source, not decoded.

    path: what its row is called. data: its bytes, or the file that holds them. error: why there are neither.
    """

    path: str
    data: bytes | Path = b""
    error: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """One picture ready for a pack.

    sha256: of its bytes, 64 hexadecimal digits. rows: uint8 `[N, 3*P*P]`. repaired: as in `ImageHeader`. thumb: a small
    picture of what the model sees; empty unless the decoder was told to keep it.
    """

    path: str
    sha256: str
    plan: ImagePlan
    rows: NDArray[np.uint8]
    repaired: bool = False
    thumb: bytes = b""


@dataclass(frozen=True, slots=True, eq=False)
class Embedded:
    """A picture's vector: float32 `[E]`, of length 1 unless that was not wanted. The other fields: as in `Decoded`."""

    path: str
    sha256: str
    plan: ImagePlan
    embedding: NDArray[np.float32]
    repaired: bool = False
    thumb: bytes = b""


@dataclass(frozen=True, slots=True)
class Failed:
    """Why a picture has no vector. sha256: None if its bytes could not be read."""

    path: str
    reason: str
    sha256: str | None = None


Row = Embedded | Failed


@dataclass(frozen=True, slots=True, eq=False)
class TextVector:
    """A text and its vector, float32 `[E]`. tokens: that the tower computed. truncated: its end was cut off."""

    text: str
    tokens: int
    truncated: bool
    embedding: NDArray[np.float32]
