"""Percentiles, bucketed histograms and bootstrap ratios: pure functions of arrays and a seed.

They know no request, no clock and no unit.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
LEVELS = (50.0, 90.0, 95.0, 99.0, 99.9)


@dataclass(frozen=True, slots=True)
class Quantiles:
    """A distribution as a row of a table. Every figure is NaN if it is empty."""

    count: int
    mean: float
    p50: float
    p90: float
    p95: float
    p99: float
    p999: float
    max: float

    @staticmethod
    def of(values: Floats) -> "Quantiles":
        known = values[~np.isnan(values)]
        if not len(known):
            return Quantiles(0, *[float("nan")] * 7)
        p50, p90, p95, p99, p999 = (float(level) for level in np.percentile(known, LEVELS))
        return Quantiles(len(known), float(known.mean()), p50, p90, p95, p99, p999, float(known.max()))


@dataclass(frozen=True, slots=True)
class Buckets:
    """A Prometheus histogram: `counts[i]` values are in the bucket up to `bounds[i]`; the last bound is infinite."""

    bounds: tuple[float, ...]
    counts: tuple[float, ...]
    total: float

    @property
    def count(self) -> float:
        return float(sum(self.counts))

    @property
    def mean(self) -> float:
        return self.total / self.count if self.count else float("nan")

    def quantile(self, share: float) -> float:
        """Interpolated linearly in its bucket, as Prometheus does. In the infinite bucket it is the lower bound."""
        if not self.count:
            return float("nan")
        wanted, below, low = share * self.count, 0.0, 0.0
        for bound, count in zip(self.bounds, self.counts, strict=True):
            if below + count >= wanted and count:
                return low if np.isinf(bound) else low + (bound - low) * (wanted - below) / count
            below, low = below + count, bound if not np.isinf(bound) else low
        return low


@dataclass(frozen=True, slots=True)
class Interval:
    """A ratio, and the interval that holds it with the requested confidence."""

    ratio: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Block:
    """A stretch of a run. It is resampled as one piece, since the requests in it affect one another.

    `latencies` are those of answered requests, shape `[answered]`; `sums` are sums over the block, by name.
    """

    latencies: Floats
    sums: Mapping[str, float]


# Computes figures by name from several blocks together.
Statistics = Callable[[Sequence[Block]], Mapping[str, float]]


def bootstrap_ratios(
    statistics: Statistics,
    base: Sequence[Block],
    other: Sequence[Block],
    *,
    paired: bool,
    seed: int,
    draws: int = 1000,
    confidence: float = 0.95,
) -> dict[str, Interval]:
    """The ratio of each of the `statistics`, `other` over `base`, with its interval.

    Whole blocks are drawn with replacement, so drift between blocks widens the interval as noise does. `paired` blocks
    were measured side by side and are drawn together.
    """
    rng = np.random.default_rng([seed, 0xB007])
    ratios = _ratios(statistics(base), statistics(other))
    drawn = []
    for _ in range(draws):
        first = rng.integers(0, len(base), len(base))
        second = first if paired else rng.integers(0, len(other), len(other))
        drawn.append(_ratios(statistics([base[pick] for pick in first]), statistics([other[pick] for pick in second])))
    blocks = min(len(base), len(other))
    return {
        name: _interval(ratio, np.array([each[name] for each in drawn]), confidence, blocks)
        for name, ratio in ratios.items()
    }


def _interval(ratio: float, drawn: Floats, confidence: float, blocks: int) -> Interval:
    """Percentiles of the drawn ratios, widened on a logarithmic scale because there are few blocks."""
    known = drawn[np.isfinite(drawn) & (drawn > 0)]
    if not len(known) or not ratio > 0 or blocks < 2:
        return Interval(ratio, float("nan"), float("nan"))
    ends = np.percentile(known, [50 - confidence * 50, 50 + confidence * 50])
    low, high = (ratio * (float(end) / ratio) ** _widening(confidence, blocks) for end in ends)
    return Interval(ratio, low, high)


def _widening(confidence: float, blocks: int) -> float:
    """Student's t over the normal quantile (to first order), times what a bootstrap underestimates the deviation by."""
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    freedom = blocks - 1
    return (1 + (z * z + 1) / (4 * freedom)) * math.sqrt(blocks / freedom)


def _ratios(base: Mapping[str, float], other: Mapping[str, float]) -> dict[str, float]:
    return {name: other[name] / base[name] if base[name] else float("nan") for name in base}
