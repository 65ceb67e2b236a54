"""`packlight embed --ray` on two nodes, beside the job of one host: the same table, whatever is killed midway."""

import io
import os
import re
import signal
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.pictures import picture, save
from tests.ray.clients import say
from tests.ray.cluster import ROOT, START_PATIENCE_S
from tests.ray.nodes import Nodes, kill, nodes
from tests.service.running import until

LIMITS = [
    "--max-tokens", "16", "--default-max-tokens", "16", "--max-image-tokens", "64", "--max-batch-tokens", "64",
    "--devices", "cpu",
]  # fmt: skip
SHARDS = 6
PATIENCE_S = 200.0
_STARTED: list["subprocess.Popen[bytes]"] = []


@pytest.fixture(scope="module")
def cluster() -> Iterator[Nodes]:
    with nodes() as made:
        yield made


def file_of(number: int) -> tuple[str, bytes]:
    """Suffix and bytes. Of each eleven one is no picture, one is cut off, and one is like another."""
    image = picture(32 + 8 * (number % 5), 40, seed=number - number % 11 if number % 11 == 10 else number)
    deep = Image.fromarray(np.asarray(image.convert("L"), np.uint16) * 257)
    kinds = [
        (".jpg", save(image, "JPEG")), (".webp", save(image, "WEBP")), (".avif", save(image, "AVIF", speed=10)),
        (".jp2", save(image, "JPEG2000")), (".png", save(image.quantize(16), "PNG")), (".png", save(deep, "PNG")),
        (".gif", save(image.quantize(8), "GIF")), (".jpg", b"no picture"), (".png", save(image, "PNG")[:90]),
        (".png", save(image, "PNG")), (".jpg", save(image, "JPEG")),
    ]  # fmt: skip
    return kinds[number % len(kinds)]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A table, a folder, a file without a suffix, one that is not there, and shards behind a pipe. 250 pictures."""
    folder = tmp_path_factory.mktemp("sources")
    files = [file_of(number) for number in range(250)]
    (folder / "files").mkdir()
    for number, (suffix, data) in enumerate(files[:60]):
        (folder / f"files/{number:02d}#a%20b{suffix}").write_bytes(data)
    (folder / "plain").write_bytes(files[60][1])
    os.mkfifo(folder / "gate.tar")
    for shard in range(SHARDS):
        with tarfile.open(folder / f"{shard}.tar", "w") as opened:
            for number in range(61 + 20 * shard, 81 + 20 * shard):
                info = tarfile.TarInfo(f"{number}{files[number][0]}")
                info.size = len(files[number][1])
                opened.addfile(info, io.BytesIO(files[number][1]))
    pq.write_table(pa.table({"image": [data for _, data in files[181:]]}), folder / "table.parquet")
    shards = [folder / f"{shard}.tar" for shard in range(SHARDS)]
    return [
        folder / "table.parquet", folder / "files", folder / "plain", folder / "missing.jpg", shards[0],
        folder / "gate.tar", *shards[1:],
    ]  # fmt: skip


class Gate:
    """A shard that is a pipe: a job waits for it, until it is opened. A task that reads it again gets it again."""

    def __init__(self, path: Path) -> None:
        shard = io.BytesIO()
        with tarfile.open(fileobj=shard, mode="w") as opened:
            info = tarfile.TarInfo("late.png")
            info.size = len(data := save(picture(40, 40, seed=999), "PNG"))
            opened.addfile(info, io.BytesIO(data))
        self._path, self._data = path, shard.getvalue()
        self._closed = False
        self._thread = threading.Thread(target=self._write, daemon=True)

    def open(self) -> None:
        self._thread.start()

    def _write(self) -> None:
        while not self._closed:
            with suppress(BrokenPipeError), self._path.open("wb") as pipe:
                pipe.write(self._data)

    def close(self) -> None:
        self._closed = True
        while self._thread.is_alive():
            with suppress(OSError):
                os.close(os.open(self._path, os.O_RDONLY | os.O_NONBLOCK))


@contextmanager
def gate_of(sources: list[Path]) -> Iterator[Gate]:
    made = Gate(next(path for path in sources if path.name == "gate.tar"))
    try:
        yield made
    finally:
        made.close()


class Job:
    """`packlight embed` in a process."""

    def __init__(self, sources: list[Path], out: Path, *options: str) -> None:
        command = [sys.executable, "-m", "service", "embed", *map(str, sources), *LIMITS, "--out", str(out), *options]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PACKLIGHT_")}
        self._log = out.with_suffix(".log")
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=log)
        _STARTED.append(self.process)

    @property
    def said(self) -> str:
        return self._log.read_text()

    def ended(self, status: int = 1) -> str:
        """What it has said. Status 1: some pictures failed."""
        assert self.process.wait(PATIENCE_S) == status, self.said
        return self.said

    def midway(self) -> None:
        """Waits until the pictures of the table are in the ledger. Those behind the gate cannot be."""
        until(lambda: self.process.poll() is not None or "/files/" in self.said, patience_s=START_PATIENCE_S)
        assert self.process.poll() is None, self.said

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(PATIENCE_S)


@pytest.fixture(autouse=True)
def _ends_with_its_test() -> Iterator[None]:
    yield
    for process in _STARTED:
        process.kill()
        process.wait(PATIENCE_S)
    _STARTED.clear()


@pytest.fixture(scope="module")
def whole(sources: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """By one host."""
    out = tmp_path_factory.mktemp("whole") / "whole.parquet"
    with gate_of(sources) as gate:
        gate.open()
        Job(sources, out).ended()
    assert pq.read_table(out).num_rows == 252
    return out


def fill_of(said: str) -> int:
    found = re.search(r"packs (\d+)% full", said)
    assert found, said
    return int(found[1])


def test_a_cluster_makes_the_table_of_one_host(
    cluster: Nodes, sources: list[Path], whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "ray.parquet"
    with gate_of(sources) as gate:
        gate.open()
        said = Job(sources, out, "--ray", cluster.address).ended()
    assert out.read_bytes() == whole.read_bytes()
    assert fill_of(said) >= 80
    assert not list(tmp_path.glob(".*"))


def test_a_runner_that_is_killed_loses_nothing(
    cluster: Nodes, sources: list[Path], whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "ray.parquet"
    with gate_of(sources) as gate:
        job = Job(sources, out, "--ray", cluster.address)
        job.midway()
        runners = cluster.runners()
        assert len(runners) == 2
        # It gets pictures while it is stopped, and is killed with them.
        os.kill(runners[0], signal.SIGSTOP)
        gate.open()
        cluster.until_quiet()
        os.kill(runners[0], signal.SIGKILL)
        job.ended()
    assert out.read_bytes() == whole.read_bytes()


def test_a_node_that_is_lost_loses_nothing(cluster: Nodes, sources: list[Path], whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "ray.parquet"
    with gate_of(sources) as gate:
        job = Job(sources, out, "--ray", cluster.address)
        job.midway()
        runners = cluster.runners()
        for pid in runners:
            os.kill(pid, signal.SIGSTOP)
        gate.open()
        cluster.until_quiet()
        cluster.lose_second()
        for pid in runners:
            kill(pid, signal.SIGCONT)
        job.ended()
    cluster.add()
    assert out.read_bytes() == whole.read_bytes()


def test_a_job_that_is_killed_goes_on(cluster: Nodes, sources: list[Path], whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "ray.parquet"
    with gate_of(sources) as gate:
        job = Job(sources, out, "--ray", cluster.address)
        job.midway()
        job.kill()
        assert not out.exists()
        until(lambda: not cluster.runners())
        gate.open()
        said = Job(sources, out, "--ray", cluster.address).ended()
    assert out.read_bytes() == whole.read_bytes()
    found = re.search(r"has (\d+) vectors", said)
    assert found, said
    # All but what the cluster had under way: what stands behind the gate, and the window that waits for it.
    say(f"a killed job keeps {found[1]} of {pq.read_table(whole)['embedding'].drop_null().length()} vectors")
    assert int(found[1]) >= 40


def test_what_one_host_has_begun_a_cluster_ends(
    cluster: Nodes, sources: list[Path], whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "ray.parquet"
    with gate_of(sources) as gate:
        job = Job(sources, out)
        job.midway()
        job.kill()
        gate.open()
        said = Job(sources, out, "--ray", cluster.address).ended()
    assert "not embedded again" in said
    assert out.read_bytes() == whole.read_bytes()


def test_what_cannot_be_is_said_in_a_sentence(cluster: Nodes, sources: list[Path], tmp_path: Path) -> None:
    for options, said in (
        (["--ray", cluster.address, "--ray-runners", "9"], "9 runners of 1 processors"),
        (["--ray", cluster.address, "--model", "/nowhere"], "no such folder"),
        (["--ray", "127.0.0.1:1"], "no cluster of Ray answers at 127.0.0.1:1"),
        (["--ray", str(sources[0])], "name sources before --ray"),
    ):
        job = Job(sources[:1], tmp_path / "x.parquet", *options)
        assert said in job.ended(2).splitlines()[-1]
