"""Parquet files and Lance datasets with a column of pictures, as bytes or as paths; some rows at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from service.jobs.packages import needed
from service.jobs.reading import too_large
from service.jobs.rows import Picture
from service.jobs.sources.columns import picture_column
from service.names import one_line
from service.settings.names import SettingsError

# Rows that are in memory at once, beside what the job holds: they may be large.
_BATCH_ROWS = 8
# Bytes of a Parquet column that are read at once. Without a buffer it would be read by whole row groups.
_BUFFER_BYTES = 1024**2


class TableSource:
    """The pictures of one table, in the order of its rows.

    A row is called by its path if the column holds paths, and otherwise by its table and number: `photos.parquet#12`.
    """

    def __init__(self, path: Path, *, column: str | None, most_file_bytes: int) -> None:
        """column: None for the one that looks like pictures.

        Raises `SettingsError` if none does, or several do, and for a table that cannot be opened.
        """
        self._path, self._most_file_bytes = path, most_file_bytes
        try:
            self._table = _LanceTable(path) if path.suffix == ".lance" else _ParquetTable(path)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise SettingsError(f"{one_line(path)} cannot be opened: {error}") from None
        self._column = picture_column(self._table.schema, column, table=str(path))

    @property
    def total(self) -> int | None:
        return self._table.rows

    def __iter__(self) -> Iterator[Picture]:
        number = 0
        try:
            for batch in self._table.batches(self._column):
                for scalar in batch.column(0):
                    yield self._picture(scalar, number)
                    number += 1
        except (pa.ArrowException, OSError) as error:
            yield Picture(str(self._path), error=f"the table cannot be read after row {number}: {error}")

    def _picture(self, scalar: Any, number: int) -> Picture:
        """scalar: bytes, a path, or both as the `image` of Hugging Face's datasets."""
        numbered = f"{self._path}#{number}"
        try:
            value = scalar.as_py()
        except UnicodeDecodeError:
            return Picture(numbered, error="the path is not UTF-8")
        if isinstance(value, dict):
            value = value.get("bytes") or value.get("path")
        if not value:
            return Picture(numbered, error="the row has no picture")
        if isinstance(value, str):
            return Picture(value, Path(value))
        if len(value) > self._most_file_bytes:
            return Picture(numbered, error=too_large(self._most_file_bytes))
        return Picture(numbered, value)


class _ParquetTable:
    def __init__(self, path: Path) -> None:
        if path.is_dir():
            raise ValueError(f"it is a folder; '{path}/*.parquet' names its files")
        self._path = path
        with self._opened() as file:
            self.schema: pa.Schema = file.schema_arrow
            self.rows: int = file.metadata.num_rows

    @contextmanager
    def _opened(self) -> Iterator[pq.ParquetFile]:
        # Arrow itself would take `a:b/c.parquet` for an address, and no name that is not UTF-8.
        with self._path.open("rb") as file:
            yield pq.ParquetFile(file, buffer_size=_BUFFER_BYTES, pre_buffer=False)

    def batches(self, column: str) -> Iterator[pa.RecordBatch]:
        with self._opened() as file:
            yield from file.iter_batches(_BATCH_ROWS, columns=[column], use_threads=False)


class _LanceTable:
    def __init__(self, path: Path) -> None:
        with needed("lance", str(path)):
            import lance
        # Absolute, since it would take `a:b/c.lance` for an address.
        self._dataset = lance.dataset(str(path.absolute()))
        self.schema: pa.Schema = self._dataset.schema
        self.rows: int = self._dataset.count_rows()

    def batches(self, column: str) -> Iterator[pa.RecordBatch]:
        yield from self._dataset.to_batches(
            columns=[column], batch_size=_BATCH_ROWS, batch_readahead=1, fragment_readahead=1, scan_in_order=True
        )
