"""Percentiles against numpy, Prometheus buckets, and the interval of a ratio."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.runs.stats import Block, Buckets, Quantiles, bootstrap_ratios


def mean(blocks) -> dict[str, float]:
    return {"mean": float(np.concatenate([block.latencies for block in blocks]).mean())}


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=300))
def test_percentiles_are_numpys(values):
    found = Quantiles.of(np.array(values))
    expected = np.percentile(values, [50, 90, 95, 99, 99.9])
    assert np.allclose([found.p50, found.p90, found.p95, found.p99, found.p999], expected)
    assert (found.count, found.max) == (len(values), max(values))


def test_nan_is_left_out():
    assert Quantiles.of(np.array([1.0, np.nan, 3.0])).mean == 2
    assert np.isnan(Quantiles.of(np.array([])).p99)


def test_a_quantile_of_buckets_is_interpolated_as_prometheus_does():
    buckets = Buckets((1.0, 2.0, float("inf")), (5, 10, 5), 30.0)
    assert buckets.quantile(0.5) == 1.5
    assert buckets.quantile(0.99) == 2.0
    assert buckets.mean == 1.5


def blocks(scale: float, seed: int) -> list[Block]:
    rng = np.random.default_rng(seed)
    return [Block(scale * rng.lognormal(0, 0.4, 60), {}) for _ in range(20)]


def test_an_interval_holds_the_true_ratio_about_as_often_as_it_says():
    held = 0
    for seed in range(40):
        found = bootstrap_ratios(mean, blocks(1.0, seed), blocks(1.3, seed + 1000), paired=False, seed=seed, draws=200)[
            "mean"
        ]
        held += found.low <= 1.3 <= found.high
    assert held >= 34


def test_the_same_seed_gives_the_same_interval():
    one, two = (bootstrap_ratios(mean, blocks(1, 1), blocks(1, 2), paired=True, seed=5, draws=50) for _ in range(2))
    assert one == two


def test_pairing_cancels_the_drift_that_both_sides_share():
    rng = np.random.default_rng(0)
    drift = rng.uniform(0.5, 2, 20)
    base = [Block(np.full(10, level), {}) for level in drift]
    other = [Block(np.full(10, level * 1.1), {}) for level in drift]
    paired, apart = (bootstrap_ratios(mean, base, other, paired=way, seed=0)["mean"] for way in (True, False))
    assert paired.high - paired.low < 1e-6 < apart.high - apart.low
    assert paired.ratio == pytest.approx(1.1)
