"""A fit to packs whose cost is known."""

import numpy as np
import pytest

from loadtest.bench.prediction.calibration import fitted
from loadtest.bench.prediction.live import Pack


def test_the_fit_finds_the_three_numbers_and_leaves_accidents_out():
    rng = np.random.default_rng(1)
    packs = []
    for _ in range(200):
        lengths = tuple(rng.integers(16, 1024, rng.integers(1, 8)).tolist())
        seconds = 1e-4 * sum(lengths) + 5e-8 * sum(n * n for n in lengths) + 0.01
        packs.append(Pack(lengths, seconds * rng.uniform(0.99, 1.01) * (8 if rng.random() < 0.03 else 1)))
    cost = fitted(packs)
    assert (cost.a, cost.b, cost.c) == pytest.approx((1e-4, 5e-8, 0.01), rel=0.1)
    assert np.median(cost.scatter) == pytest.approx(1, abs=0.02)
