"""Parquet, a row group a part."""

from pathlib import Path

import pyarrow.parquet as pq

from service.jobs.rows import Row
from service.jobs.sinks.sink import Sink
from service.jobs.sinks.tables import PART_ROWS, batch_of, schema_of


class ParquetSink(Sink):
    """A column of vectors does not get smaller, so only the others are packed.

    PyArrow reads nulls in lists of a fixed size since version 26.
    """

    def __init__(self, path: Path, *, width: int, fingerprint: str) -> None:
        super().__init__(path)
        self._schema, self._fingerprint = schema_of(width), fingerprint
        self._part: list[Row] = []
        # Arrow itself would take `a:b/c.parquet` for an address, and no name that is not UTF-8.
        self._file = self.partial.open("wb")
        self._writer = pq.ParquetWriter(
            self._file, self._schema, use_dictionary=["fingerprint", "error"], compression="zstd", compression_level=1
        )

    def add(self, row: Row) -> None:
        self._part.append(row)
        if len(self._part) == PART_ROWS:
            self._write_part()

    def finish(self) -> None:
        if self._part:
            self._write_part()
        self._writer.close()
        self._file.close()

    def abandon(self) -> None:
        with self._file:
            self._writer.close()

    def _write_part(self) -> None:
        self._writer.write_batch(batch_of(self._part, self._schema, fingerprint=self._fingerprint), PART_ROWS)
        self._part.clear()
