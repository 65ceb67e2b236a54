"""A Lance dataset, which is a folder."""

import shutil
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from queue import Queue

import lance
import pyarrow as pa

from service.jobs.rows import Row
from service.jobs.sinks.sink import Sink
from service.jobs.sinks.tables import PART_ROWS, batch_of, schema_of
from service.names import utf8_name


class LanceSink(Sink):
    """Lance takes batches from an iterator, so a thread of ours feeds it. One version, files of a million rows."""

    def __init__(self, path: Path, *, width: int, fingerprint: str) -> None:
        super().__init__(path)
        self._clear()
        self._before = self.partial.with_name(f"{self.partial.name}.before")
        # A job was killed where there was none for a moment.
        if self._before.exists() and not path.exists():
            self._before.rename(path)
        # Absolute, since Lance would take `a:b/c.lance` for an address.
        self._address = str(self.partial.absolute())
        if utf8_name(path) != str(path):
            raise OSError("Lance takes names in UTF-8 only")
        self._schema, self._fingerprint = schema_of(width), fingerprint
        self._part: list[Row] = []
        # None ends it. Two parts wait at most.
        self._batches: Queue[pa.RecordBatch | None] = Queue(2)
        self._failure: BaseException | None = None
        self._abandoned = False
        self._thread = threading.Thread(target=self._write, name="lance", daemon=True)
        self._thread.start()

    def add(self, row: Row) -> None:
        self._part.append(row)
        if len(self._part) == PART_ROWS:
            self._hand_over()

    def finish(self) -> None:
        if self._part:
            self._hand_over()
        self._end()
        self._raise_failure()

    def abandon(self) -> None:
        self._abandoned = True
        self._end()

    def _end(self) -> None:
        self._batches.put(None)
        self._thread.join()

    def _hand_over(self) -> None:
        self._raise_failure()
        self._batches.put(batch_of(self._part, self._schema, fingerprint=self._fingerprint))
        self._part.clear()

    def _raise_failure(self) -> None:
        if self._failure:
            raise OSError(str(self._failure)) from self._failure

    def _write(self) -> None:
        try:
            reader = pa.RecordBatchReader.from_batches(self._schema, self._each_batch())
            lance.write_dataset(reader, self._address, schema=self._schema, mode="create")
        except BaseException as error:
            self._failure = error
            # Whoever hands over must not wait for room that nobody makes.
            while self._batches.get() is not None:
                pass

    def _each_batch(self) -> Iterator[pa.RecordBatch]:
        while (batch := self._batches.get()) is not None:
            yield batch
        if self._abandoned:
            # What is written is thrown away: Lance need not commit it.
            self._batches.put(None)
            raise InterruptedError

    def _replace(self) -> None:
        """A folder cannot replace another in one step: for a moment there is none."""
        # There is one if a job was killed right here. The path's own is newer, if it is there again.
        if self.path.exists():
            shutil.rmtree(self._before, ignore_errors=True)
            self.path.rename(self._before)
        self.partial.rename(self.path)
        shutil.rmtree(self._before, ignore_errors=True)

    def _clear(self) -> None:
        with suppress(FileNotFoundError):
            shutil.rmtree(self.partial)
