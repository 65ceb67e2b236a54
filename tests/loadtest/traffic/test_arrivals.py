"""Due times: exactly the load that was promised, in order, the same for the same seed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.traffic.arrivals import PATTERNS, due_times

plans = st.fixed_dictionaries(
    {
        "pattern": st.sampled_from(PATTERNS),
        "rate": st.floats(0.1, 500),
        "duration_s": st.floats(0.5, 20),
        "seed": st.integers(0, 2**32),
        "burst": st.integers(1, 20),
    }
)


@given(plans, st.floats(0, 1))
def test_offers_exactly_what_the_rate_promises_in_order_and_in_time(plan, ramp):
    ramp_s = ramp * plan["duration_s"]
    due_s = due_times(**plan, ramp_s=ramp_s)
    assert len(due_s) == round(plan["rate"] * (plan["duration_s"] - ramp_s / 2))
    assert (np.diff(due_s) >= 0).all()
    assert len(due_s) == 0 or (due_s[0] >= 0 and due_s[-1] < plan["duration_s"])


@given(plans)
def test_is_the_same_for_the_same_seed(plan):
    assert np.array_equal(due_times(**plan), due_times(**plan))


def test_poisson_gaps_are_exponential():
    due_s = due_times("poisson", rate=1000, duration_s=20, seed=3)
    gaps = np.diff(due_s)
    assert gaps.mean() == pytest.approx(1e-3, rel=0.01)
    assert gaps.std() == pytest.approx(1e-3, rel=0.05)
    assert np.mean(gaps > 1e-3) == pytest.approx(np.exp(-1), rel=0.05)


def test_constant_arrivals_are_evenly_spaced():
    assert np.allclose(np.diff(due_times("constant", rate=20, duration_s=5, seed=0)), 0.05)


def test_a_burst_is_due_at_once():
    due_s = due_times("burst", rate=40, duration_s=2, seed=0, burst=8)
    assert [int((due_s == at).sum()) for at in np.unique(due_s)] == [8] * 10


def test_a_ramp_reaches_the_rate_at_its_end():
    due_s = due_times("constant", rate=100, duration_s=10, seed=0, ramp_s=5)
    first, middle, after = ((due_s >= low) & (due_s < low + 1) for low in (0, 2, 6))
    assert first.sum() == pytest.approx(10, abs=1)
    assert middle.sum() == pytest.approx(50, abs=1)
    assert after.sum() == pytest.approx(100, abs=1)


def test_a_ramp_longer_than_the_run_is_refused():
    with pytest.raises(ValueError, match="does not fit"):
        due_times("constant", rate=1, duration_s=1, seed=0, ramp_s=2)
