"""Rows that are written as they come, and what a job that breaks off says and keeps."""

from collections.abc import Generator
from pathlib import Path

import pytest

from service.cli.streaming import stream
from service.jobs.ledger import Ledger, LedgerError
from service.jobs.packs import PackCount
from service.jobs.rows import Row
from service.limits import ModelFacts
from tests.service.jobs.parts import GEOMETRY, RECIPE
from tests.service.jobs.sinks.test_sinks import rows as some_rows

FACTS = ModelFacts(
    name="m", dim=4, token_dim=4, geometry=GEOMETRY, default_max_tokens=4, parameters=1,
    fingerprint=RECIPE.fingerprint, fast_fingerprint="", device="cpu", dtype="float32", attention="a",
)  # fmt: skip


def test_a_file_that_takes_no_more_and_a_ledger_that_takes_no_more_are_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A disk that is full is full for both. The job's end still has packs for the ledger."""
    monkeypatch.setattr("service.jobs.sinks.safetensors._MOST_HEADER_BYTES", 20)

    def rows(ledger: Ledger) -> Generator[Row, None, None]:
        try:
            yield from some_rows(9)
        finally:
            raise LedgerError("the ledger is full")

    out = tmp_path / "x.safetensors"
    assert stream(rows, PackCount(), RECIPE, out=out, total=None, model=FACTS) == 2
    told = capsys.readouterr().err
    assert told.endswith("packlight: the ledger is full\n")
    assert "Traceback" not in told


def test_names_that_do_not_fit_end_a_job_as_soon_as_they_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("service.jobs.sinks.safetensors._MOST_HEADER_BYTES", 60)
    given = iter(some_rows(1000))

    def rows(ledger: Ledger) -> Generator[Row, None, None]:
        yield from given

    assert stream(rows, PackCount(), RECIPE, out=tmp_path / "x.safetensors", total=None, model=FACTS) == 2
    assert "x.safetensors cannot be written: the names take more than the 60 bytes" in capsys.readouterr().err
    assert len(list(given)) > 990
    assert [path.name for path in tmp_path.iterdir()] == [".x.safetensors.packlight-job"]
