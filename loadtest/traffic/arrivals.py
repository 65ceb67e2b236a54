"""When each request is due, in seconds from the start: pure functions of their arguments and a seed.

They know no clock and no request. Every pattern offers exactly as many requests as the rate promises, so two runs at
one rate offer the same load. A Poisson process is therefore drawn for a given count, as sorted uniform positions.
"""

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

Pattern = Literal["poisson", "constant", "burst"]
PATTERNS: tuple[Pattern, ...] = get_args(Pattern)
Floats = NDArray[np.float64]


def due_times(
    pattern: Pattern,
    *,
    rate: float,
    duration_s: float,
    seed: int,
    ramp_s: float = 0.0,
    burst: int = 8,
) -> Floats:
    """Ascending due times in `[0, duration_s)`. Over the first `ramp_s` the rate grows from nothing to `rate`."""
    if not 0 <= ramp_s <= duration_s:
        raise ValueError(f"a ramp of {ramp_s:g} s does not fit in {duration_s:g} s")
    offered = rate * (duration_s - ramp_s / 2)
    count = round(offered)
    if count == 0:
        return np.empty(0)
    places = _places(pattern, count=count, seed=seed, burst=burst)
    return _when(places * (offered / count), rate=rate, ramp_s=ramp_s)


def _places(pattern: Pattern, *, count: int, seed: int, burst: int) -> Floats:
    """The position of each arrival on a line of `count` unit intervals."""
    if pattern == "poisson":
        return np.sort(np.random.default_rng([seed, 0x0A]).uniform(0.0, count, count))
    steps = np.arange(count, dtype=np.float64)
    return steps if pattern == "constant" else steps - steps % burst


def _when(arrivals: Floats, *, rate: float, ramp_s: float) -> Floats:
    """The time at which each arrival is due: the inverse of a linear ramp, then a constant rate."""
    in_ramp = rate * ramp_s / 2
    early = np.sqrt(2 * ramp_s * np.minimum(arrivals, in_ramp) / rate)
    return np.where(arrivals < in_ramp, early, arrivals / rate + ramp_s / 2)
