"""`packlight embed` that is killed, and started again: nothing is embedded twice, and the table is the same."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq

from tests.process.server import ROOT, START_PATIENCE_S
from tests.service.jobs.parts import png
from tests.waiting import until

COMMAND = [sys.executable, "-m", "service", "embed", "-", "--max-tokens", "16", "--max-batch-tokens", "64"]
LIMITS = ["--max-image-tokens", "64", "--default-max-tokens", "16", "--devices", "cpu"]
KILLED_AFTER = 20


def run(paths: Sequence[Path], out: Path) -> str:
    """What it says at the end."""
    names = "".join(f"{path}\n" for path in paths)
    done = subprocess.run(
        [*COMMAND, *LIMITS, "--out", str(out)], cwd=ROOT, input=names, text=True, capture_output=True, check=False
    )
    assert done.returncode == 1  # one of the files is no picture
    return done.stderr


def test_a_killed_job_goes_on_and_ends_with_the_same_table(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number:02d}.png" for number in range(40)]
    for number, path in enumerate(paths):
        path.write_bytes(b"no picture" if number == 5 else png(number))
    killed, whole = tmp_path / "killed.parquet", tmp_path / "whole.parquet"
    ledger = tmp_path / ".killed.parquet.packlight-job"
    with subprocess.Popen(
        [*COMMAND, *LIMITS, "--out", str(killed)], cwd=ROOT, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdin
        process.stdin.write("".join(f"{path}\n" for path in paths[:KILLED_AFTER]).encode())
        process.stdin.flush()
        # It waits for more of its list, with some packs done.
        wal = ledger.with_name(f"{ledger.name}-wal")
        until(lambda: wal.exists() and wal.stat().st_size > 40_000, patience_s=START_PATIENCE_S)
        os.kill(process.pid, signal.SIGKILL)
    assert not killed.exists()
    assert ledger.exists()

    said = run(paths, killed)
    first = said.splitlines()[0]
    kept = int(first.rpartition(" has ")[2].partition(" ")[0])
    assert 0 < kept < KILLED_AFTER
    assert f", {kept} not embedded again\n" in said
    assert "39 embedded" in said
    assert not list(tmp_path.glob(".killed*"))
    assert "not embedded again" not in run(paths, whole)
    assert pq.read_table(killed).equals(pq.read_table(whole))
    assert killed.read_bytes() == whole.read_bytes()
