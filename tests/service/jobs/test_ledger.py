"""Vectors by content, which a killed job finds again."""

import fcntl
import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model.sizing.budget import Budget
from model.sizing.plan import plan_image
from service.jobs.decoding import digest
from service.jobs.ledger import Ledger, LedgerError, alone
from service.jobs.rows import Embedded
from tests.process.server import ROOT
from tests.service.jobs.parts import GEOMETRY, RECIPE

PLAN = plan_image((40, 30), geometry=GEOMETRY, budget=RECIPE.budget, strategy="naflex")


def row(number: int) -> Embedded:
    vector = np.arange(number, number + 4, dtype=np.float32)
    return Embedded(f"{number}.png", digest(bytes([number])), PLAN, vector, repaired=number == 1)


def test_a_vector_comes_back_with_its_bits_and_its_plan(tmp_path: Path) -> None:
    with Ledger(tmp_path / "x.parquet", "a") as ledger:
        ledger.add([row(0), row(1)])
        ledger.add([row(1)])
    with Ledger(tmp_path / "x.parquet", "a") as ledger:
        assert ledger.kept == 2
        found = ledger.find(row(1).sha256)
        assert found
        assert np.array_equal(found.embedding, row(1).embedding)
        assert (found.sha256, found.plan, found.repaired) == (row(1).sha256, PLAN, True)
        assert ledger.find(row(2).sha256) is None
        assert ledger.found == 1
        assert ledger.digests() == b"".join(sorted(bytes.fromhex(row(number).sha256) for number in range(2)))


def test_vectors_of_another_meaning_are_dropped(tmp_path: Path) -> None:
    for meaning, kept in (("a", 0), ("a", 1), ("b", 0), ("a", 0)):
        with Ledger(tmp_path / "x.parquet", meaning) as ledger:
            assert ledger.kept == kept
            ledger.add([row(0)])


def meaning(fingerprint: str, **more: str) -> str:
    return json.dumps({"fingerprint": fingerprint} | more)


FLOAT32, BFLOAT16, OTHER = "0123456789abcdef-float32", "0123456789abcdef-bfloat16", "fedcba9876543210-float32"


@pytest.mark.parametrize(
    ("kept", "says"),
    [
        (BFLOAT16, "only the dtype or decode mode differs.* Go on with --dtype bfloat16 --decode exact, or remove"),
        (f"{FLOAT32}-fast", "Go on with --dtype float32 --decode fast, or remove"),
        (OTHER, "do not belong in one index. Give the model and the settings of then, or remove"),
    ],
)
def test_vectors_of_another_fingerprint_are_kept_and_refused_by_name(tmp_path: Path, kept: str, says: str) -> None:
    with Ledger(tmp_path / "x.parquet", meaning(kept)) as ledger:
        ledger.add([row(0)])
    with pytest.raises(LedgerError, match=f"vectors of the fingerprint {kept}, and this job's have {FLOAT32}.*{says}"):
        Ledger(tmp_path / "x.parquet", meaning(FLOAT32, budget="another"))
    with Ledger(tmp_path / "x.parquet", meaning(kept)) as ledger:
        assert ledger.kept == 1


def test_a_ledger_without_vectors_refuses_nobody(tmp_path: Path) -> None:
    Ledger(tmp_path / "x.parquet", meaning(OTHER)).close()
    Ledger(tmp_path / "x.parquet", meaning(FLOAT32)).close()


def test_vectors_of_other_options_are_kept_and_refused_by_name(tmp_path: Path) -> None:
    """A job of days is started again without `--max-tokens`."""
    wide = replace(RECIPE, budget=Budget.of_tokens(64, 16), normalize=False)
    with Ledger(tmp_path / "x.parquet", RECIPE.meaning) as ledger:
        ledger.add([row(0)])
    says = "normalize=True, and this job has False; max_tokens=16, and this job has 64. Give the options of then, or"
    with pytest.raises(LedgerError, match=f"holds vectors of {says} remove"):
        Ledger(tmp_path / "x.parquet", wide.meaning)
    with Ledger(tmp_path / "x.parquet", RECIPE.meaning) as ledger:
        assert ledger.kept == 1


def test_a_ledger_of_an_earlier_version_is_known_by_the_old_form(tmp_path: Path) -> None:
    with Ledger(tmp_path / "x.parquet", meaning("a" * 16)) as ledger:
        ledger.add([row(0)])
    old_forms = {"a" * 16: FLOAT32}
    with pytest.raises(LedgerError, match="--dtype float32"):
        Ledger(tmp_path / "x.parquet", meaning(BFLOAT16), old_forms=old_forms)
    for _ in range(2):
        with Ledger(tmp_path / "x.parquet", meaning(FLOAT32), old_forms=old_forms) as ledger:
            assert ledger.kept == 1


def test_two_jobs_do_not_write_one_file(tmp_path: Path) -> None:
    with Ledger(tmp_path / "x.npy", "a"), pytest.raises(LedgerError, match="another job writes the same file"):
        Ledger(tmp_path / "x.npy", "a")


def test_a_job_without_a_ledger_is_alone_as_well(tmp_path: Path) -> None:
    out = tmp_path / "x.npy"
    with alone(out):
        for other in (lambda: Ledger(out, "a"), lambda: alone(out).__enter__()):
            with pytest.raises(LedgerError, match="another job writes the same file"):
                other()
    assert not list(tmp_path.iterdir())
    with Ledger(out, "a") as ledger:
        ledger.add([row(0)])
    with alone(out):
        pass
    with Ledger(out, "a") as ledger:
        assert ledger.kept == 1


def test_a_job_that_begins_while_another_ends_has_a_ledger_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, lock = Ledger(tmp_path / "x.npy", "a"), fcntl.flock

    def late(file: int, how: int) -> None:
        """The other one ends after this one has opened its file."""
        before.remove()
        lock(file, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with Ledger(tmp_path / "x.npy", "a") as ledger:
        ledger.add([row(0)])
        with pytest.raises(LedgerError, match="another job writes the same file"):
            Ledger(tmp_path / "x.npy", "a")
    with Ledger(tmp_path / "x.npy", "a") as ledger:
        assert ledger.kept == 1


def test_a_folder_that_takes_no_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match=r"\.x\.npy\.packlight-job.* cannot be used: No such file or directory"):
        Ledger(tmp_path / "missing" / "x.npy", "a")


def test_a_file_that_is_no_ledger_is_named(tmp_path: Path) -> None:
    (tmp_path / ".x.npy.packlight-job").write_bytes(b"something else, of some length" * 40)
    with pytest.raises(LedgerError, match=r"\.x\.npy\.packlight-job, which keeps .* cannot be used"):
        Ledger(tmp_path / "x.npy", "a")


@pytest.mark.parametrize(
    "read", [lambda ledger: ledger.find(row(7).sha256), lambda ledger: ledger.kept, Ledger.digests],
    ids=["find", "kept", "digests"],
)  # fmt: skip
def test_a_ledger_that_is_damaged_is_refused_when_it_is_read(tmp_path: Path, read: Callable[[Ledger], object]) -> None:
    with Ledger(tmp_path / "x.npy", "a") as ledger:
        ledger.add([row(number) for number in range(250)])
    path = tmp_path / ".x.npy.packlight-job"
    path.write_bytes(path.read_bytes()[:8192] + bytes(path.stat().st_size - 8192))
    with Ledger(tmp_path / "x.npy", "a") as ledger, pytest.raises(LedgerError, match="malformed; remove it to start"):
        read(ledger)


def test_a_job_that_is_done_leaves_nothing(tmp_path: Path) -> None:
    with Ledger(tmp_path / "x.npy", "a") as ledger:
        ledger.add([row(0)])
        ledger.remove()
    assert not list(tmp_path.iterdir())


def test_what_was_added_survives_a_kill(tmp_path: Path) -> None:
    """The rows are brought as bytes: to make them there, the process would load the tests, and with them PyTorch."""
    program = (
        "import os, pickle, sys; from pathlib import Path; from service.jobs.ledger import Ledger\n"
        "rows = pickle.loads(Path(sys.argv[2]).read_bytes())\n"
        "ledger = Ledger(Path(sys.argv[1]), 'a'); ledger.add(rows); os.kill(os.getpid(), 9)"
    )
    out, rows = tmp_path / "x.npy", tmp_path / "rows"
    rows.write_bytes(pickle.dumps([row(number) for number in range(50)]))
    assert subprocess.run([sys.executable, "-c", program, str(out), str(rows)], cwd=ROOT, check=False).returncode == -9
    with Ledger(out, "a") as ledger:
        assert ledger.kept == 50
