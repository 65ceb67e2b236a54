"""What a pack costs in seconds, fitted to the packs that the device has run: pure arithmetic.

Seconds = `a·Σn + b·Σn² + c`, with n the tokens of each segment: linear layers take `a`, attention inside segments takes
`b`, and every pack takes `c`. Has no clock: the seconds are arguments.
"""

import math
import statistics
from collections import deque
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

# Fewer packs do not determine three numbers.
FIRST_FIT_PACKS = 8
# A fit takes up to a millisecond, so it is not made after every pack, nor, once there are many, more often than after
# so many seconds of packs.
_REFIT_PACKS, _REFIT_S = 4, 0.1
# A pack's weight halves with every 24 newer ones, and ends after 128.
_HALF_LIFE_PACKS = 24
_WINDOW_PACKS = 128
_ERROR_PACKS = 32
# A machine that becomes busy slows all parts of a pack alike. This many packs show it; the number is odd.
_DRIFT_PACKS = 9
# Huber's weights: residuals up to this many times the typical one count in full, larger ones in proportion.
_HUBER = 1.5
_ROUNDS = 3
# The weight of the previous fit, for packs that do not tell the three numbers apart.
_PRIOR = 0.003
# The weight of the newest of many packs of one size in the measured rate. And what earlier packs keep of their weight
# beside one of next to no tokens.
_RATE_WEIGHT, _RATE_LEFT = 0.2, 0.999

_Vector = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class CostFit:
    """Seconds of a pack: `a·Σn + b·Σn² + c`, none of them negative.

    error: the median of |predicted − measured| / measured over up to 32 recent packs, each predicted before it was
    seen; None until there is one. packs: how many have been observed.
    """

    a: float
    b: float
    c: float
    error: float | None
    packs: int

    def seconds(self, sum_n: float, sum_n2: float, packs: float = 1) -> float:
        """Predicted for so many packs that hold `sum_n` tokens together."""
        return self.a * sum_n + self.b * sum_n2 + self.c * packs


class CostModel:
    """Follows a device pack by pack. One caller at a time; any thread may read `fit` and `tokens_per_s`.

    fit: None before enough packs. tokens_per_s: the recent rate; None before the first pack.
    """

    def __init__(self) -> None:
        self._rows: deque[tuple[float, float, float]] = deque(maxlen=_WINDOW_PACKS)
        self._errors: deque[float] = deque(maxlen=_ERROR_PACKS)
        self._coefficients: _Vector | None = None
        self._packs = 0
        self._unfitted_s = 0.0
        self._rate_tokens = 0.0  # of earlier packs, by which the next one is weighed
        self.fit: CostFit | None = None
        self.tokens_per_s: float | None = None

    def observe(self, sum_n: int, sum_n2: int, seconds: float, *, taken_s: float | None = None) -> None:
        """One pack of images that has run. sum_n2: the sum over segments of their tokens squared. taken_s: how long no
        other pack could run, if that is more than the `seconds` that the device worked on it."""
        self.observe_rate(sum_n, seconds if taken_s is None else taken_s)
        if seconds <= 0:
            return  # the clock is too coarse for the pack
        if self.fit is not None:
            self._errors.append(abs(self.fit.seconds(sum_n, sum_n2) - seconds) / seconds)
        self._rows.append((sum_n, sum_n2, seconds))
        self._packs += 1
        self._unfitted_s += seconds
        if self._is_due:
            self._unfitted_s = 0.0
            self._coefficients = _fitted(np.array(self._rows, np.float64), self._coefficients)
        if self._coefficients is not None:
            a, b, c = (self._coefficients * self._drift(self._coefficients)).tolist()
            self.fit = CostFit(a, b, c, statistics.median(self._errors) if self._errors else None, self._packs)

    @property
    def _is_due(self) -> bool:
        """Whether a fit is to be made now."""
        if self._coefficients is None:
            return self._packs >= FIRST_FIT_PACKS
        return self._packs % _REFIT_PACKS == 0 and (self._packs <= _WINDOW_PACKS or self._unfitted_s >= _REFIT_S)

    def observe_rate(self, sum_n: int, seconds: float) -> None:
        """One pack that has run, with texts in it. A token of text may cost a quarter of an image's, so the fit, which
        knows one price, leaves it out: after texts alone, image packs were predicted at a sixth of their time.

        A pack weighs as much as its tokens. What a small one takes hardly depends on them, so it tells little of the
        next large one: after two hundred packs of a token each, images were refused for the time that they would take.
        """
        if sum_n <= 0 or seconds <= 0:
            return
        before = self._rate_tokens
        self._rate_tokens = max((1 - _RATE_WEIGHT) * before + sum_n, _RATE_LEFT * before)
        rate = self.tokens_per_s or 0.0
        self.tokens_per_s = rate + sum_n / self._rate_tokens * (sum_n / seconds - rate)

    def know_rate(self, sum_n: int, seconds: float) -> None:
        """A full pack that was run ahead of all others: as if many had been."""
        self._rate_tokens, self.tokens_per_s = sum_n / _RATE_WEIGHT, sum_n / seconds

    def _drift(self, coefficients: _Vector) -> float:
        """Measured over fitted seconds of the latest packs: the median, which a few delayed packs do not change."""
        a, b, c = map(float, coefficients)
        latest = list(self._rows)[-_DRIFT_PACKS:]
        return statistics.median(seconds / max(a * n + b * n2 + c, 1e-12) for n, n2, seconds in latest)


def _fitted(rows: _Vector, before: _Vector | None) -> _Vector:
    """a, b and c with small relative residuals. rows: `[packs, 3]` of Σn, Σn² and seconds, the newest last."""
    sums, seconds = rows[:, :2], rows[:, 2:]
    features = np.hstack([sums, np.ones_like(seconds)]) / seconds  # [packs, 3]; times (a, b, c) it should be 1
    age = np.arange(len(rows))[::-1]
    recent = 0.5 ** (age / _HALF_LIFE_PACKS)
    scale = np.sqrt(np.average(features**2, axis=0, weights=recent))
    features = features / scale
    if before is None:
        before = np.array([np.median(seconds / sums[:, :1]), 0.0, 0.0])
    start = before * scale
    weights = recent
    for _ in range(_ROUNDS):
        solution = _non_negative(features, weights / weights.sum(), start)
        residuals = np.abs(features @ solution - 1)
        bound = _HUBER * max(float(np.median(residuals[-_HALF_LIFE_PACKS:])), 1e-6)
        weights = recent * np.minimum(1.0, bound / np.maximum(residuals, 1e-12))
    return np.asarray(solution / scale)


def _non_negative(features: _Vector, weights: _Vector, start: _Vector) -> _Vector:
    """The x ≥ 0 that minimises `Σ w (x·f − 1)² + prior·|x − start|²`.

    Each of the seven sets of unknowns that may be positive is solved by itself. The minimum is the best solution that
    has no negative value; if all three unknowns together have such a solution, it is that one.
    """
    matrix = (features * weights[:, None]).T @ features + _PRIOR * np.eye(3)
    target = weights @ features + _PRIOR * start
    best, least = np.zeros(3), math.inf
    for size in (3, 2, 1):
        for positive in map(list, combinations(range(3), size)):
            x = np.zeros(3)
            x[positive] = np.linalg.solve(matrix[np.ix_(positive, positive)], target[positive])
            value = float(x @ matrix @ x - 2 * target @ x)
            if (x >= 0).all() and value < least:
                best, least = x, value
        if size == 3 and least < math.inf:
            break
    return best
