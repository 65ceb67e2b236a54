"""What the vectors of the canary must be: near what was recorded of them. Pure.

A vector's **distance** to another is the length of their difference over the length of the recorded one. So it sees a
wrong length as well as a wrong direction: a distance of 0.01 that is all direction is a cosine of 0.99995.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.engine.client import Job

Vectors = NDArray[np.float32]

# No bound is below: devices add in other orders, and a GPU may multiply float32 in TF32. By dtype.
_LEAST_ALLOWED = {"float32": 0.005, "float16": 0.01, "bfloat16": 0.02, "int8": 0.05}
# Another device may be so many times as far from float32 as the CPU that recorded.
_MARGIN = 4.0
# A wider bound would let wrong vectors pass. Only a model that the dtype itself throws so far off gets one.
_MOST_ALLOWED, _MARGIN_BEYOND = 0.4, 1.5


@dataclass(frozen=True, slots=True, eq=False)
class NamedJob:
    """A picture or a text of the canary."""

    name: str
    job: Job


@dataclass(frozen=True, slots=True, eq=False)
class Recorded:
    """vectors: float32 `[S, E]` by the name of the picture or text, as a CPU computed them in float32. allowed: the
    largest distance to them. texts: those that the model takes."""

    vectors: Mapping[str, Vectors]
    allowed: float
    texts: tuple[NamedJob, ...] = ()


def allowed_distance(dtype: str, measured: float) -> float:
    """The bound for a dtype. measured: the largest distance to float32 of any of these vectors, on the CPU that
    recorded; 0 for float32."""
    bound = max(_LEAST_ALLOWED.get(dtype, max(_LEAST_ALLOWED.values())), _MARGIN * measured)
    return max(min(bound, _MOST_ALLOWED), _MARGIN_BEYOND * measured)


def distance(vectors: Vectors, recorded: Vectors) -> float:
    """The largest of all rows; infinite for other shapes, and for numbers that are not finite."""
    if vectors.shape != recorded.shape:
        return math.inf
    ours, theirs = vectors.astype(np.float64), recorded.astype(np.float64)
    with np.errstate(invalid="ignore"):
        lengths = np.linalg.norm(theirs, axis=-1)
        apart = np.linalg.norm(ours - theirs, axis=-1) / np.maximum(lengths, np.finfo(np.float32).tiny)
    largest = float(apart.max())
    return largest if math.isfinite(largest) else math.inf


def cosine(vectors: Vectors, recorded: Vectors) -> float:
    """The least of all rows."""
    ours, theirs = vectors.astype(np.float64), recorded.astype(np.float64)
    dots = np.einsum("sd,sd->s", ours, theirs)
    return float((dots / (np.linalg.norm(ours, axis=-1) * np.linalg.norm(theirs, axis=-1))).min())


def largest_share(vectors: Mapping[str, Vectors], recorded: Recorded) -> float:
    """The largest distance of these vectors over what is allowed. 1 or less is right."""
    known = [distance(each, recorded.vectors[name]) for name, each in vectors.items() if name in recorded.vectors]
    return max(known, default=0.0) / recorded.allowed


def fault_in(vectors: Mapping[str, Vectors], recorded: Recorded | None) -> str | None:
    """What is wrong with the vectors of one pack, as a clause; None if nothing is. recorded: None if nothing is known
    of them: then they must be finite, and no two the same."""
    for name, each in vectors.items():
        if not np.isfinite(each).all():
            return f"the device gives no vector for {name}"
    if recorded is None:
        return _sameness(vectors)
    for name, each in vectors.items():
        if name in recorded.vectors and (apart := distance(each, recorded.vectors[name])) > recorded.allowed:
            away = f"the vector of {name} is {apart:.3g} away from the one recorded, over {recorded.allowed:.3g}"
            return _sameness(vectors) or _mix_up(name, each, recorded) or away
    return None


def _sameness(vectors: Mapping[str, Vectors]) -> str | None:
    names: dict[bytes, str] = {}
    for name, each in vectors.items():
        if (other := names.setdefault(each.tobytes(), name)) != name:
            return f"{other} and {name} have the same vector"
    return None


def _mix_up(name: str, vectors: Vectors, recorded: Recorded) -> str | None:
    """Another picture's or text's vector in place of its own."""
    for other, each in recorded.vectors.items():
        if other != name and distance(vectors, each) <= recorded.allowed:
            return f"{name} has the vector of {other}"
    return None
