"""The folder in which the processes of one server keep their metrics, as files that each of them maps into memory.

Whoever uses a folder holds a lock on it, which the system releases however the process ends; `systemd-tmpfiles` leaves
locked folders alone too. Whoever removes a folder holds its lock meanwhile.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from service.settings.names import SettingsError

_PREFIX = "packlight-metrics-"
# The files of one process, by the kinds of metrics in `service.metrics`, and their size: a file that grew later could
# find the disk full, and writing to a mapped page without a block is a SIGBUS.
_KINDS = ("counter", "histogram", "gauge_livesum", "gauge_min", "gauge_max")
_FILE_BYTES = 256 * 1024


class MetricsFolder:
    """A new folder, locked, with all files of processes of these names. Raises `OSError` if the disk has no room."""

    def __init__(self, processes: Sequence[str]) -> None:
        self._files = {f"{kind}_{process}.db" for process in processes for kind in _KINDS}
        self.path, self._lock = _locked_folder()
        try:
            for name in self._files:
                with open(self.path / name, "wb") as file:
                    os.posix_fallocate(file.fileno(), 0, _FILE_BYTES)
        except OSError:
            self.remove()
            raise

    def is_whole(self) -> bool:
        """False once the folder or a file was taken away, as cleaners of temporary folders do."""
        try:
            return self._files <= set(os.listdir(self.path))
        except OSError:
            return False

    def forget_gauges(self, processes: Sequence[str]) -> None:
        """Empties the gauges of processes that have ended and that no others of their names replace: what they measured
        is not so any more. Counts stay. Writes in place, since readers may have the files open. Does nothing if the
        files are gone."""
        for name in self._files:
            kind, _, process = name.removesuffix(".db").rpartition("_")
            if process in processes and kind.startswith("gauge"):
                with suppress(OSError), open(self.path / name, "r+b") as file:
                    file.write(bytes(_FILE_BYTES))

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


@contextmanager
def metrics_folder(processes: Sequence[str]) -> Iterator[MetricsFolder]:
    """Removes the folder at the end, and at the start those of servers that were killed. Raises `SettingsError`."""
    root = os.environ.get("TMPDIR", "/tmp")
    try:
        root = tempfile.gettempdir()
        _remove_unused(Path(root))
        folder = MetricsFolder(processes)
    except OSError as error:
        raise SettingsError(
            f"several processes keep their metrics in a temporary folder, and {root} (TMPDIR) cannot hold it: "
            f"{error.strerror or error}"
        ) from None
    try:
        yield folder
    finally:
        folder.remove()


def _locked_folder() -> tuple[Path, int]:
    """A new folder and the descriptor that holds its lock.

    Until it is locked another server may take the folder for an unused one: then it is gone, or locked by that server.
    """
    while True:
        path = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
        with suppress(FileNotFoundError, BlockingIOError):
            lock = _lock(path)
            if path.exists():
                return path, lock
            os.close(lock)


def _remove_unused(root: Path) -> None:
    for path in root.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            lock = _lock(path)
            shutil.rmtree(path, ignore_errors=True)
            os.close(lock)


def _lock(folder: Path) -> int:
    """A descriptor that holds the lock. Raises `BlockingIOError` if another process has it, and other `OSError`s."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
