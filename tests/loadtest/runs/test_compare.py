"""Comparisons of equal servers, of a slower server and of result files; gates on ratios and figures."""

import argparse
import json
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.__main__ import main
from loadtest.runs.compare import take_turns
from loadtest.runs.gate import parse_gate
from loadtest.runs.stats import Interval
from tests.loadtest.fakes import FakePacklight
from tests.loadtest.runs.test_summary import rows

FAST = "--mix thumbnails --distinct 4 --seed 7 --quiet"


def jittered(scale: float):
    """Delays around 90 ms times `scale`, the same sequence in every server."""
    drawn = random.Random(5)
    return lambda number: scale * drawn.uniform(0.08, 0.1)


def compared(capsys, one: FakePacklight, two: FakePacklight, options: str) -> tuple[int, str]:
    command = f"compare {one.url} {two.url} --rate 80 --duration 1 --rounds 5 {FAST} {options}"
    status = main(command.split())
    return status, capsys.readouterr().out


def test_equal_servers_show_no_difference_and_pass(capsys):
    with FakePacklight(jittered(1.0)) as one, FakePacklight(jittered(1.0)) as two:
        status, out = compared(capsys, one, two, "--fail-if p50>1.1x --fail-if goodput<0.9x")
        sent = [server.bodies[-120:] for server in (one, two)]
    assert status == 0
    assert "p50>1.1x': clear" in out
    assert "the same requests at the same times" in out
    assert sorted(sent[0]) == sorted(sent[1])


def test_a_slower_server_is_found_and_fails(capsys, tmp_path):
    with FakePacklight(jittered(1.0)) as one, FakePacklight(jittered(2.5)) as two:
        page = tmp_path / "c.html"
        status, out = compared(capsys, one, two, f"--fail-if p50>1.05x --html {page} --json {tmp_path / 'c.json'}")
    found = json.loads((tmp_path / "c.json").read_text())["ratios"]["p50"]
    assert status == 1
    assert "p50>1.05x': met" in out
    assert found["low"] > 1.05
    # On a busy machine a server's delays are longer than asked, so the measured ones count.
    assert found["ratio"] == pytest.approx(np.median(two.took_s) / np.median(one.took_s), rel=0.15)
    assert "Gates" in page.read_text()


def test_two_result_files_are_compared(capsys, tmp_path):
    for name, scale in (("a", 1.0), ("b", 3.0)):
        with FakePacklight(jittered(scale)) as server:
            assert main(f"run --url {server.url} --rate 60 --duration 1 --json {tmp_path / name} {FAST}".split()) == 0
    assert main(f"compare {tmp_path / 'a'} {tmp_path / 'b'} --fail-if p50>1.2x".split()) == 1
    assert main(f"compare {tmp_path / 'a'} {tmp_path / 'a'} --fail-if p50>1.05x --fail-if p99>50ms".split()) == 1
    out = capsys.readouterr().out
    assert "p99>50ms': met" in out
    assert "p50>1.05x': clear" in out
    assert main(f"compare {tmp_path / 'a'} {tmp_path / 'nowhere'}".split()) == 2


def test_who_goes_first_changes_each_round():
    asked = []

    def measure(number: int, side: int):
        asked.append((number, side))
        return None if (number, side) == (2, 1) else rows([0.0], [0.1])

    one, two = take_turns(5, measure)
    assert asked == [(0, 0), (0, 1), (1, 1), (1, 0), (2, 0), (2, 1)]
    assert len(one) == len(two) == 2


@pytest.mark.parametrize(
    ("text", "metric", "limit", "relative"),
    [
        ("p99>1.1x", "p99", 1.1, True),
        ("p99.9 > 2s", "p99.9", 2000, False),
        ("p50>250ms", "p50", 250, False),
        ("errors>1%", "errors", 0.01, False),
        ("images/s<0.9x", "images/s", 0.9, True),
        ("goodput<40/s", "goodput", 40, False),
    ],
)
def test_a_gate_is_read(text, metric, limit, relative):
    gate = parse_gate(text)
    assert (gate.metric, gate.relative) == (metric, relative)
    assert gate.limit == pytest.approx(limit)


@pytest.mark.parametrize("text", ["p99", "p98>1x", "errors>2x", "p99>>1", "p99>1.1.1x", "p99>fastx"])
def test_a_gate_that_makes_no_sense_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError):
        parse_gate(text)


@given(st.floats(0.5, 2), st.floats(0, 0.5))
def test_a_gate_is_surely_met_only_by_the_whole_interval(ratio, reach):
    interval = Interval(ratio, ratio - reach, ratio + reach)
    gate = parse_gate("p99>1.1x")
    assert gate.surely_met_by(interval) == (ratio - reach > 1.1)
    assert not (gate.surely_met_by(interval) and not gate.met_by(ratio))


def test_a_figure_that_was_not_measured_does_not_pass_a_gate():
    assert parse_gate("p99>100ms").met_by(float("nan"))
