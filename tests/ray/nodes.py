"""Nodes of Ray on this machine, and the processes that do a job on them."""

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.process.server import command_of, is_there
from tests.ray.cluster import ROOT
from tests.service.running import until

RUNNER = "ray::MapWorker(MapBatches(Embed))"

TASKS = ("ray::ReadPictureSource", "ray::MapBatches(Decode)")


class Nodes:
    """Two nodes of two processors. The first is that of the driver, and stays."""

    def __init__(self, folder: Path) -> None:
        from ray.cluster_utils import Cluster

        self._folder = folder
        self._cluster = Cluster(initialize_head=True, head_node_args=self._sizes())
        self.add()
        self.address = str(self._cluster.address)

    def _sizes(self) -> dict[str, object]:
        return {"num_cpus": 2, "object_store_memory": 200_000_000, "include_dashboard": False}

    def add(self) -> None:
        self._second = self._cluster.add_node(**self._sizes())
        self._cluster.wait_for_nodes()

    @property
    def second_raylet(self) -> int:
        (raylet,) = self._second.all_processes["raylet"]
        return int(raylet.process.pid)

    def lose_second(self) -> None:
        """As a machine that loses its power: its raylet, and what has been started by it."""
        raylet = self.second_raylet
        below = [pid for pid in self.all() if _parent(pid) == raylet]
        for pid in (raylet, *below):
            kill(pid, signal.SIGKILL)
        self._cluster.remove_node(self._second, allow_graceful=False)

    def all(self) -> list[int]:
        """Ray's processes have the folder in their environment or in their command."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if str(self._folder).encode() in (folder / "environ").read_bytes() + (folder / "cmdline").read_bytes():
                    found.append(int(folder.name))
        return [pid for pid in found if pid != os.getpid()]

    def runners(self) -> list[int]:
        return [pid for pid in self.all() if command_of(pid).startswith(RUNNER)]

    def until_quiet(self) -> None:
        """Waits until nothing is read and decoded any more."""
        quiet = 0

        def is_quiet() -> bool:
            nonlocal quiet
            busy = any(command_of(pid).startswith(TASKS) for pid in self.all())
            quiet = 0 if busy else quiet + 1
            return quiet == 20

        until(is_quiet)

    def close(self) -> None:
        self._cluster.shutdown()
        while left := [pid for pid in self.all() if is_there(pid)]:
            for pid in left:
                kill(pid, signal.SIGKILL)


@contextmanager
def nodes() -> Iterator[Nodes]:
    # Sockets lie in it, whose paths must be short.
    folder = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", str(folder))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", str(ROOT))
        made = Nodes(folder)
        try:
            yield made
        finally:
            made.close()
            shutil.rmtree(folder, ignore_errors=True)


def kill(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _parent(pid: int) -> int:
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0
