"""A test run that is killed leaves no process behind, and neither does an xdist worker."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from model.child_process import children_of, process_tree
from tests.process.server import ROOT, START_PATIENCE_S, command_of, is_there
from tests.waiting import until

ENDLESS = ["-m", "pytest", "-p", "no:cacheprovider", "--timeout", "0", "tests/process/programs/endless.py"]


@contextmanager
def endless_run(folder: Path, *options: str, waits_for: set[str]) -> Iterator["subprocess.Popen[bytes]"]:
    """A pytest of its own, in the middle of tests that have started all their processes."""
    process = subprocess.Popen(
        [sys.executable, *ENDLESS, *options], cwd=ROOT, env=os.environ | {"ENDLESS_TESTS": str(folder)},
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    with process:
        try:
            until(
                lambda: process.poll() is not None or {path.name for path in folder.iterdir()} == waits_for,
                patience_s=START_PATIENCE_S,
            )
            assert process.poll() is None
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("options", "waits_for"),
    [
        (["-n", "2"], {"server", "pool"}),
        (["-n", "0", "-k", "server"], {"server"}),
    ],
    ids=["workers", "alone"],
)
def test_a_run_that_is_killed_leaves_no_process(tmp_path: Path, options: list[str], waits_for: set[str]) -> None:
    with endless_run(tmp_path, *options, waits_for=waits_for) as process:
        started = process_tree(process.pid)[1:]
        assert any("http_process" in command_of(pid) for pid in started)
        process.kill()
        until(lambda: not any(map(is_there, started)))


def test_a_worker_that_is_killed_leaves_no_process(tmp_path: Path) -> None:
    with endless_run(tmp_path, "-n", "2", "--max-worker-restart", "0", waits_for={"server", "pool"}) as process:
        (worker,) = [
            pid for pid in children_of(process.pid) if any("service" in command_of(one) for one in children_of(pid))
        ]
        started = process_tree(worker)[1:]
        os.kill(worker, 9)
        until(lambda: not any(map(is_there, started)))
