"""The vectors that a job has made so far, by the content of pictures, in a file beside the one it writes.

A job that is killed and started again takes them from here. The file is SQLite's: every call of `add` is a transaction,
which a killed process leaves whole or not at all, and no index of it need fit into memory.
"""

import fcntl
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

import msgspec
import numpy as np

from model.sizing.plan import ImagePlan
from service.jobs.meaning import OtherVectors, is_same
from service.jobs.rows import Embedded

_SUFFIX = ".packlight-job"
_CACHE_KIB = 16 * 1024


class LedgerError(Exception):
    """The ledger cannot be used. The message says why, and what to do."""


class _Kept(msgspec.Struct, array_like=True):
    """embedding: little-endian float32."""

    plan: ImagePlan
    repaired: bool
    embedding: bytes


class Ledger:
    """Vectors of one meaning. Many threads may use it; one process at a time."""

    def __init__(self, out: Path, meaning: str, *, old_forms: Mapping[str, str] | None = None) -> None:
        """The ledger of the job that writes `out`.

        meaning: what its vectors depend on besides the picture's bytes. old_forms: of fingerprints in a meaning.
        Raises `LedgerError`, also if a job of another meaning has left vectors.
        """
        self.path = _path(out)
        self.found = 0  # answers of `find`
        self._lock = threading.Lock()
        self._held: int | None = _hold(self.path)
        try:
            self._connection = sqlite3.connect(self.path, timeout=0, isolation_level=None, check_same_thread=False)
        except sqlite3.DatabaseError as error:
            os.close(self._held)
            raise LedgerError(_refusal(self.path, error)) from None
        try:
            self._take(self._connection, meaning, old_forms or {})
        except sqlite3.DatabaseError as error:
            self.close()
            raise LedgerError(_refusal(self.path, error)) from None
        except OtherVectors as error:
            self.close()
            raise LedgerError(f"{self.path} {error}, or remove the file to start from the first picture") from None

    def _take(self, connection: sqlite3.Connection, meaning: str, old_forms: Mapping[str, str]) -> None:
        """Keeps what an earlier job has left, if it has this meaning. Raises `OtherVectors`."""
        # One process holds the file, so the log needs no shared memory, which network file systems lack. A process that
        # is killed loses nothing; a machine that loses power may lose the last transactions, and nothing else.
        for pragma in (
            "locking_mode=EXCLUSIVE", "journal_mode=WAL", "synchronous=NORMAL", f"cache_size=-{_CACHE_KIB}",
        ):  # fmt: skip
            connection.execute(f"PRAGMA {pragma}")
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("CREATE TABLE IF NOT EXISTS job (meaning TEXT)")
        connection.execute("CREATE TABLE IF NOT EXISTS vectors (sha256 BLOB PRIMARY KEY, kept BLOB)")
        left = connection.execute("SELECT meaning FROM job").fetchone()
        if left != (meaning,):
            empty = connection.execute("SELECT 1 FROM vectors").fetchone() is None
            if left is None or empty or not is_same(left[0], meaning, old_forms):
                connection.execute("DELETE FROM vectors")
            connection.execute("DELETE FROM job")
            connection.execute("INSERT INTO job VALUES (?)", (meaning,))
        connection.execute("COMMIT")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def kept(self) -> int:
        """How many vectors it holds. Raises `LedgerError`."""
        with self._used() as connection:
            (count,) = connection.execute("SELECT COUNT(*) FROM vectors").fetchone()
        return int(count)

    def digests(self) -> bytes:
        """SHA-256 of all contents that it holds a vector of, sorted, 32 bytes each, one behind another. Raises
        `LedgerError`."""
        with self._used() as connection:
            found = connection.execute("SELECT sha256 FROM vectors ORDER BY sha256")
            return b"".join(digest for (digest,) in found)

    def find(self, sha256: str) -> Embedded | None:
        """The row of a picture with these bytes, with no path. Raises `LedgerError`."""
        with self._used() as connection:
            wanted = (bytes.fromhex(sha256),)
            found = connection.execute("SELECT kept FROM vectors WHERE sha256 = ?", wanted).fetchone()
            self.found += found is not None
        if found is None:
            return None
        kept = msgspec.msgpack.decode(found[0], type=_Kept)
        return Embedded("", sha256, kept.plan, np.frombuffer(kept.embedding, "<f4"), kept.repaired)

    def add(self, rows: Sequence[Embedded]) -> None:
        """Once this returns, a killed process has not lost them. Raises `LedgerError`."""
        kept = [
            (bytes.fromhex(row.sha256), msgspec.msgpack.encode(_Kept(row.plan, row.repaired, row.embedding.tobytes())))
            for row in rows
        ]
        with self._used() as connection:
            connection.execute("BEGIN")
            connection.executemany("INSERT OR IGNORE INTO vectors VALUES (?, ?)", kept)
            connection.execute("COMMIT")

    @contextmanager
    def _used(self) -> Iterator[sqlite3.Connection]:
        try:
            with self._lock:
                yield self._connection
        except sqlite3.Error as error:
            raise LedgerError(_refusal(self.path, error)) from None

    def close(self) -> None:
        """Keeps the file, for the next run."""
        self._end(lambda: None)

    def remove(self) -> None:
        """The job is done: what it was for is written."""
        self._end(self._unlink)

    def _end(self, last: Callable[[], None]) -> None:
        """last: what is done while no other job may take the file."""
        with self._lock:
            self._connection.close()
            if self._held is not None:
                held, self._held = self._held, None
                try:
                    last()
                finally:
                    os.close(held)

    def _unlink(self) -> None:
        for suffix in ("-wal", "-shm", ""):
            with suppress(FileNotFoundError):
                self.path.with_name(self.path.name + suffix).unlink()


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """For a job without a ledger: while it writes `out`, no other does. Raises `LedgerError`."""
    path = _path(out)
    held = _hold(path)
    try:
        yield
    finally:
        # What a killed job has left stays.
        if not os.fstat(held).st_size:
            path.unlink()
        os.close(held)


def _path(out: Path) -> Path:
    return out.with_name(f".{out.name}{_SUFFIX}")


def _hold(path: Path) -> int:
    """A descriptor of the file, which from here on no other job takes or removes.

    SQLite's own lock ends before the file is removed, and a job that began in between would lose its file.
    """
    while True:
        try:
            held = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise LedgerError(_refusal(path, error)) from None
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(held), os.stat(path)):
                return held
        except FileNotFoundError:
            pass  # The job before has just removed it.
        except OSError as error:
            os.close(held)
            raise LedgerError(_refusal(path, error)) from None
        os.close(held)


def _refusal(path: Path, error: sqlite3.Error | OSError) -> str:
    if "locked" in str(error) or isinstance(error, BlockingIOError):
        return f"{path} is in use: another job writes the same file"
    reason = error.strerror if isinstance(error, OSError) else error
    refusal = f"{path}, which keeps what a killed job has done, cannot be used: {reason}"
    broken = "malformed" in str(error) or "not a database" in str(error)
    return f"{refusal}; remove it to start from the first picture" if broken else refusal
