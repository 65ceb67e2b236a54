"""Comparisons of equal servers, of a slower server and of result files; gates on ratios and figures."""

import argparse
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.__main__ import main
from loadtest.runs.compare import take_turns
from loadtest.runs.gate import parse_gate
from loadtest.runs.stats import Interval
from loadtest.sending.records import Records
from tests.loadtest.fakes import FakePacklight
from tests.loadtest.runs.test_summary import rows

FAST = "--mix thumbnails --distinct 4 --seed 7 --quiet"
# How many requests a server answers before it refuses all: more than one of each class, which `loadtest` tries first.
ANSWERED = 10


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A result file of a real run."""
    path = tmp_path_factory.mktemp("run") / "result.json"
    with FakePacklight() as server:
        assert main(f"run --url {server.url} --rate 120 --duration 0.5 --json {path} {FAST}".split()) == 0
    document: dict[str, Any] = json.loads(path.read_text())
    return document


@pytest.fixture
def result(measured: dict[str, Any], tmp_path: Path) -> Callable[[str, float], Path]:
    """Writes that file as if the server had taken around 90 ms times a scale: no busy machine has a part in it."""

    def write(name: str, scale: float) -> Path:
        drawn = random.Random(name)
        requests = measured["requests"]
        done_s = [due_s + scale * drawn.uniform(0.08, 0.1) for due_s in requests["due_s"]]
        path = tmp_path / name
        path.write_text(json.dumps(measured | {"requests": requests | {"done_s": done_s}}))
        return path

    return write


def test_equal_servers_show_no_difference_and_pass(capsys, result):
    command = f"compare {result('a', 1.0)} {result('b', 1.0)} --fail-if p50>1.1x --fail-if goodput<0.9x"
    assert main(command.split()) == 0
    out = capsys.readouterr().out
    assert "p50>1.1x': clear" in out
    assert "goodput<0.9x': clear" in out
    assert "the same requests at the same times" in out


def test_a_slower_server_is_found_and_fails(capsys, result, tmp_path):
    files = result("a", 1.0), result("b", 2.5)
    page, written = tmp_path / "c.html", tmp_path / "c.json"
    command = f"compare {files[0]} {files[1]} --fail-if p50>1.05x --fail-if p99>50ms --html {page} --json {written}"
    assert main(command.split()) == 1
    out, document = capsys.readouterr().out, json.loads(written.read_text())
    assert "p50>1.05x': met" in out
    assert "p99>50ms': met" in out
    found = document["ratios"]["p50"]
    assert found["low"] > 1.05
    one, two = (Records.from_json(document[side]["requests"]).latency_ms for side in "ab")
    # Rows are written to the microsecond.
    assert found["ratio"] == pytest.approx(np.median(two) / np.median(one), rel=1e-4)
    assert "Gates" in page.read_text()


@pytest.mark.parametrize("option", ["--rate 5", "--form json", "--b-answer npy", "--mix photos", "--distinct 5"])
def test_files_are_not_measured_again(result, option, capsys):
    assert main(f"compare {result('a', 1.0)} {result('b', 1.0)} {option}".split()) == 2
    assert f"{option.split()[0]} is for two servers" in capsys.readouterr().err


def test_a_result_file_that_is_not_there_has_status_2(result, tmp_path):
    assert main(f"compare {result('a', 1.0)} {tmp_path / 'nowhere'}".split()) == 2


def answers(number: int) -> int:
    return 0


def refuses_later(number: int) -> int:
    return 429 if number >= ANSWERED else 0


@pytest.mark.parametrize(
    ("refuse", "status", "outcome"),
    [((refuses_later, answers), 0, "clear"), ((answers, refuses_later), 1, "met")],
)
def test_two_servers_get_the_same_requests_and_the_second_is_judged(capsys, refuse, status, outcome):
    with FakePacklight(refuse=refuse[0]) as one, FakePacklight(refuse=refuse[1]) as two:
        command = f"compare {one.url} {two.url} --rate 80 --duration 0.4 --rounds 4 {FAST} --fail-if errors>1%"
        assert main(command.split()) == status
        sent = [sorted(server.bodies) for server in (one, two)]
    out = capsys.readouterr().out
    assert f"errors>1%': {outcome}" in out
    assert "the same requests at the same times" in out
    assert sent[0] == sent[1]
    assert len(sent[0]) > 2 * ANSWERED


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
