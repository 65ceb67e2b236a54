"""A right device is never called a liar, on processors of two kinds."""

import argparse

import pytest

from loadtest.bench.numbers import canary


@pytest.mark.slow
def test_packs_on_two_kinds_of_processors_are_right() -> None:
    parser = argparse.ArgumentParser()
    canary.add_options(parser)
    rows = canary.measure(parser.parse_args(["--packs", "120", "--settings", "as it is", "AVX2"]))
    assert [(row["setting"], row["dtype"]) for row in rows] == [
        ("as it is", "float32"), ("as it is", "bfloat16"), ("AVX2", "float32"), ("AVX2", "bfloat16"),
    ]  # fmt: skip
    assert {row["verdict"] for row in rows} == {"ok"}
    assert {row["rounds"] for row in rows} == {60}
    assert all(float(str(row["drift"])) < 0.5 for row in rows)
