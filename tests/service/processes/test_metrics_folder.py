"""The folder of metrics: servers that start together, cleaners, and disks that are full."""

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from service.processes.metrics_folder import metrics_folder
from service.settings.names import SettingsError
from tests.service.running import PATIENCE_S

STARTS = 40
# Starts again and again, as a server does, and exits with a traceback if its folder is taken.
STARTER = f"""
from service.processes.metrics_folder import metrics_folder
for _ in range({STARTS}):
    with metrics_folder(["http-0"]) as folder:
        assert folder.is_whole(), "taken at once"
    assert not folder.path.exists()
"""
# Uses every label of every metric that has any.
LABELLER = """
import os, sys
from service.errors import ERRORS
from service.metrics import Metrics, name_process
name_process("http-0")
metrics = Metrics()
for route in (f"/a/route/of/some/length/{number}" for number in range(40)):
    metrics.request_seconds.labels(route, "openai").observe(1)
    for status in {200, 404, 405, *(error.status for error in ERRORS)}:
        metrics.requests.labels(route, str(status), "openai").inc()
metrics.build_info.labels("1.2.3", "a/model/" + "x" * 200, "bfloat16", "cuda:0", "packed").set(1)
"""


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def started(program: str, *, limit: Callable[[], None] | None = None, **environment: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", program], env=os.environ | environment, stderr=subprocess.PIPE, text=True,
        preexec_fn=limit,
    )  # fmt: skip


def test_servers_that_start_at_the_same_moment_leave_one_another_their_folders(root: Path) -> None:
    processes = [started(STARTER, TMPDIR=str(root)) for _ in range(6)]
    errors = [process.communicate(timeout=PATIENCE_S)[1] for process in processes]
    assert errors == [""] * 6
    assert list(root.iterdir()) == []


def test_the_folder_of_a_server_that_was_killed_is_removed_by_the_next(root: Path) -> None:
    left = root / "packlight-metrics-1-left"
    left.mkdir()
    (left / "counter_http-0.db").write_bytes(b"")
    with metrics_folder(["http-0"]) as folder:
        assert list(root.iterdir()) == [folder.path]


def test_the_folder_of_a_server_that_runs_is_left_alone(root: Path) -> None:
    with metrics_folder(["http-0"]) as one, metrics_folder(["http-0"]) as other:
        assert one.path != other.path
        assert one.is_whole()
        assert other.is_whole()


def test_a_folder_that_lost_a_file_or_itself_is_not_whole() -> None:
    with metrics_folder(["engine-0", "http-0"]) as folder:
        assert folder.is_whole()
        (folder.path / "gauge_min_engine-0.db").unlink()
        assert not folder.is_whole()
        shutil.rmtree(folder.path)
        assert not folder.is_whole()


def test_a_folder_that_cannot_be_made_is_named_with_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/nowhere")
    with pytest.raises(SettingsError, match=r"/nowhere \(TMPDIR\) cannot hold it: No such file"):
        metrics_folder(["http-0"]).__enter__()


def test_no_folder_for_temporary_files_at_all_is_named_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "/nowhere")
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr("tempfile._candidate_tempdir_list", lambda: ["/nowhere"])
    with pytest.raises(SettingsError, match=r"/nowhere \(TMPDIR\) cannot hold it: No usable temporary directory"):
        metrics_folder(["http-0"]).__enter__()


def test_a_disk_without_room_is_an_error_at_start_that_names_the_folder_and_its_variable(root: Path) -> None:
    """The room is a limit on the size of files, which gives the same kind of error as a full disk."""
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))  # noqa: E731
    _, error = started(STARTER, limit=limit, TMPDIR=str(root)).communicate(timeout=PATIENCE_S)
    assert f"SettingsError: several processes keep their metrics in a temporary folder, and {root} (TMPDIR)" in error
    assert list(root.iterdir()) == []


def test_every_file_of_the_metrics_is_allocated_and_none_has_to_grow() -> None:
    """Holds the names of files and the size that prometheus-client gives its entries."""
    with metrics_folder(["http-0"]) as folder:
        before = {path.name: path.stat() for path in folder.path.iterdir()}
        assert all(stat.st_blocks * 512 >= stat.st_size for stat in before.values())
        process = started(LABELLER, PROMETHEUS_MULTIPROC_DIR=str(folder.path))
        assert process.communicate(timeout=PATIENCE_S)[1] == ""
        after = {path.name: path.stat() for path in folder.path.iterdir()}
        assert after.keys() == before.keys()
        assert all(after[name].st_size == before[name].st_size for name in before)
        assert all(path.read_bytes()[:4] != bytes(4) for path in folder.path.iterdir())


def test_gauges_of_processes_that_have_ended_are_forgotten_and_counts_stay() -> None:
    engine = """
from service.metrics import Metrics, name_process
name_process("engine-0")
metrics = Metrics()
metrics.engine_up.set(0)
metrics.max_batch_tokens.set(4096)
metrics.forward_faults.labels("exception").inc(3)
"""
    with metrics_folder(["engine-0", "engine-0b"]) as folder:
        process = started(engine, PROMETHEUS_MULTIPROC_DIR=str(folder.path))
        assert (process.communicate(timeout=PATIENCE_S)[1], process.returncode) == ("", 0)
        before = generate_latest(collected(folder.path)).decode()
        folder.forget_gauges(["engine-0b"])
        assert generate_latest(collected(folder.path)).decode() == before
        folder.forget_gauges(["engine-0"])
        after = generate_latest(collected(folder.path)).decode()
        assert folder.is_whole()
    assert "packlight_engine_up 0.0" in before
    assert "packlight_max_batch_tokens 4096.0" in before
    assert "packlight_engine_up 0" not in after
    assert "packlight_max_batch_tokens 4096" not in after
    assert 'packlight_forward_faults_total{kind="exception"} 3.0' in after


def collected(folder: Path) -> CollectorRegistry:
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=str(folder))  # type: ignore[no-untyped-call]
    return registry
