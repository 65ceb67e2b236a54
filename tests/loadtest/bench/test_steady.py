"""Rates out of answers that come in bursts."""

import pytest

from loadtest.bench.clients.steady import Sample, TooFewAnswers, steady


def test_whole_packs_lie_between_the_cuts() -> None:
    # Sixteen answers at once, every 0.7 s: 10 s hold 14 packs and a part of one.
    answered_s = [pack * 0.7 for pack in range(20) for _ in range(16)]
    samples = [Sample(at_s / 10, cpu_s=at_s / 5, sender_cpu_s=at_s / 100) for at_s in range(105)]
    found = steady(answered_s, samples)
    assert found.images % 16 == 0
    assert found.images_per_s == pytest.approx(16 / 0.7)
    assert found.images_per_cpu_s == pytest.approx(16 / 0.7 / 2)


def test_the_time_of_the_sender_is_given_to_the_server() -> None:
    answered_s = [index / 10 for index in range(100)]
    samples = [Sample(float(at_s), cpu_s=1.5 * at_s, sender_cpu_s=0.5 * at_s) for at_s in range(9)]
    # Of two cores the sender took half a one: the server's share of the time grows from 1.5 to 2.
    assert steady(answered_s, samples).images_per_s_without_sender(2) == pytest.approx(10 * 2 / 1.5)


def test_a_run_with_too_few_answers_has_no_rate() -> None:
    samples = [Sample(0.0, 0.0, 0.0), Sample(10.0, 1.0, 0.0)]
    with pytest.raises(TooFewAnswers, match="longer"):
        steady([5.0], samples)
