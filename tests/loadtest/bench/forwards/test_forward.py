"""Contenders of `bench forward`: who takes part, what each says of itself, and the rows and tables made of it."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from loadtest.bench.__main__ import lines, table
from loadtest.bench.forward import add_options, kinds, row_of, wrong
from loadtest.bench.forwards.cases import Case
from loadtest.bench.forwards.process import Contender, ContenderEnded, started

PROGRAM = """
import sys, time
import numpy as np
from loadtest.bench.forwards.rounds import answer_rounds
print("a library says hello")
answer_rounds(lambda: np.ones((2, 3), np.float32), "wall", sys.argv[1], computed_rows=lambda: 2048)
"""
CASE = Case("tiny", "uniform", "float32", images=2, layers=1)


@pytest.fixture(scope="module")
def contender(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Contender]:
    answer = tmp_path_factory.mktemp("contender") / "answer.npy"
    with started([sys.executable, "-c", PROGRAM, str(answer)], {"PYTHONPATH": str(Path.cwd())}, answer) as running:
        running.run()
        yield running


def test_a_contender_says_its_vectors_rows_and_seconds_whatever_else_is_printed(contender: Contender) -> None:
    assert contender.computed_rows == 2048
    np.testing.assert_array_equal(contender.pooled, np.ones((2, 3)))
    assert len(contender.seconds) == 1


def test_a_contender_that_cannot_start_is_no_contender(tmp_path: Path) -> None:
    with pytest.raises(ContenderEnded), started([sys.executable, "-c", ""], {}, tmp_path / "answer.npy"):
        pass


def test_a_row_says_what_was_padding_and_the_ratio_to_packed(contender: Contender) -> None:
    row = row_of(CASE, "openvino-batch", contender, contender)
    assert row["tokens"] == CASE.tokens < 512
    assert row["padding"] == f"{1 - CASE.tokens / 2048:.1%}"
    assert row["over_packed"] == 1.0
    assert "over_packed" not in row_of(CASE, "openvino-batch", contender, None)


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        ("float32", ["packed", "padded", "ceiling", "openvino-batch", "openvino-single", "onnxruntime-batch"]),
        ("bfloat16", ["packed", "padded", "ceiling", "openvino-batch", "openvino-single"]),
        ("int8", ["packed", "ceiling", "auto", "openvino-batch", "openvino-single", "onnxruntime-batch"]),
    ],
)
def test_who_takes_part_depends_on_what_each_computes_in(dtype: str, expected: list[str]) -> None:
    parser = argparse.ArgumentParser()
    add_options(parser)
    left_out = ["single", "rectangle", "dense", "openvino-streams", "onnxruntime-single"]
    options = parser.parse_args(["--peers", "openvino", "onnxruntime", "--without", *left_out])
    assert kinds(dtype, options) == expected


def test_wrong_vectors_of_a_peer_are_told_and_ours_stop_the_bench() -> None:
    assert wrong("float32", "packed", 0.9999995) is None
    assert "cosine 0.812000" in (wrong("int8", "openvino-batch", 0.812) or "")
    with pytest.raises(RuntimeError, match="padded"):
        wrong("bfloat16", "padded", 0.9)


def test_rows_become_lines_or_a_table_with_a_column_for_every_name() -> None:
    rows: list[dict[str, object]] = [{"a": 1, "b": "x"}, {"a": 2, "c": 3.5}]
    assert lines(rows) == "a=1  b=x\na=2  c=3.5\n"
    assert table(rows) == "| a | b | c |\n| --- | --- | --- |\n| 1 | x |  |\n| 2 |  | 3.5 |\n"
