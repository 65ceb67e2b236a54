import math

import pytest

from service.http.stats.figures import Counts, Rates, percentile, rates_of, stages_of

_BUCKET, _COUNT, _SUM = (f"packlight_stage_seconds_{part}" for part in ("bucket", "count", "sum"))


def test_rates_are_of_what_was_counted_between_two_times() -> None:
    before: Counts = {("packlight_tokens_total", "image"): 1000.0, ("packlight_images_total", "embedded"): 7.0}
    after: Counts = {
        ("packlight_tokens_total", "image"): 1600.0,
        ("packlight_tokens_total", "text"): 200.0,
        ("packlight_tokens_total", "padding"): 200.0,
        ("packlight_images_total", "embedded"): 9.0,
        ("packlight_images_total", "invalid"): 50.0,
        ("packlight_texts_total", "embedded"): 20.0,
        ("packlight_pack_images_count",): 5.0,
    }
    assert rates_of(before, after, 4.0) == Rates(4.0, 0.5, 5.0, 200.0, 1.25, 0.2)


def test_without_packs_there_is_no_padding_waste() -> None:
    assert rates_of({}, {}, 2.0) == Rates(2.0, 0.0, 0.0, 0.0, 0.0, None)


def test_a_stage_has_the_times_of_what_ran_meanwhile() -> None:
    before = {(_COUNT, "decode"): 10.0, (_SUM, "decode"): 90.0, (_BUCKET, "0.1", "decode"): 0.0}
    before |= {(_BUCKET, "1.0", "decode"): 0.0, (_BUCKET, "+Inf", "decode"): 10.0}
    after = {(_COUNT, "decode"): 14.0, (_SUM, "decode"): 91.0, (_BUCKET, "0.1", "decode"): 2.0}
    after |= {(_BUCKET, "1.0", "decode"): 4.0, (_BUCKET, "+Inf", "decode"): 14.0}
    made = stages_of(before, after, ("decode", "queue"))
    assert made["queue"] is None
    times = made["decode"]
    assert times is not None
    assert (times.count, times.mean_ms, times.p50_ms) == (4, 250.0, 100.0)
    assert times.p95_ms == pytest.approx(910.0)


@pytest.mark.parametrize(
    ("share", "expected"), [(0.0, 0.0), (0.25, 0.5), (0.5, 1.0), (0.75, 1.5), (0.9, 2.0), (1.0, 2.0)]
)
def test_a_percentile_lies_on_a_line_between_bounds_and_never_beyond_the_last(share: float, expected: float) -> None:
    assert percentile([(1.0, 4.0), (2.0, 7.0 + 1 / 3), (math.inf, 8.0)], share) == pytest.approx(expected, abs=0.2)
