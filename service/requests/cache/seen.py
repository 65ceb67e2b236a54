"""What is remembered of a picture: its vectors before they are written in any format, and what answers say beside."""

from dataclasses import dataclass
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from model.sizing.plan import ImagePlan

# What Python's objects take beside the vectors, and for each segment of the plan: measured, and rounded up.
_ENTRY_BYTES, _SEGMENT_BYTES = 1200, 300


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """plan: as the picture was decoded, upright. pooled: float32 `[S, E]`, as in `JobResult`; nobody writes to it.
    repaired, format: as in `ImageHeader`."""

    plan: ImagePlan
    pooled: NDArray[np.float32]
    repaired: bool
    format: str

    @classmethod
    def of(cls, plan: ImagePlan, pooled: NDArray[np.float32], *, repaired: bool, format: str) -> "Seen":
        """With vectors of its own: those of a result may be a row of a whole pack's."""
        own = pooled.copy()
        own.flags.writeable = False
        return cls(plan, own, repaired, format)

    @property
    def size_bytes(self) -> int:
        """The memory that it takes."""
        return self.pooled.nbytes + _ENTRY_BYTES + _SEGMENT_BYTES * len(self.plan.segments)


class _Stored(msgspec.Struct, frozen=True, array_like=True):
    """In the shared store. key: a client that mixes up two answers must not mix up two pictures."""

    key: bytes
    plan: ImagePlan
    repaired: bool
    format: str
    dtype: Literal["<f4"]
    vectors: bytes


_decoder = msgspec.msgpack.Decoder(_Stored)


def packed(key: bytes, seen: Seen) -> bytes:
    """For the shared store."""
    vectors = seen.pooled.astype("<f4", copy=False).tobytes()
    return msgspec.msgpack.encode(_Stored(key, seen.plan, seen.repaired, seen.format, "<f4", vectors))


def unpacked(key: bytes, data: bytes, *, dim: int) -> Seen | None:
    """What `packed` made of the picture of this key; None for anything else. dim: E."""
    try:
        stored = _decoder.decode(data)
    except (msgspec.MsgspecError, ValueError):
        return None
    rows, rest = divmod(len(stored.vectors), 4 * dim)
    if stored.key != key or rest or rows not in (1, len(stored.plan.segments)):
        return None
    pooled = np.frombuffer(stored.vectors, "<f4").astype(np.float32, copy=False).reshape(rows, dim)
    return Seen(stored.plan, pooled, stored.repaired, stored.format) if np.isfinite(pooled).all() else None
