"""Parquet files and Lance datasets with a column of pictures, as bytes or as paths; some rows at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from service.jobs.packages import needed
from service.jobs.reading import too_large
from service.jobs.rows import Picture
from service.jobs.sources.columns import column_kind, picture_column, several, within
from service.jobs.sources.files import listed
from service.names import one_line
from service.settings.names import SettingsError

# Rows that are in memory at once, beside what the job holds: they may be large.
_BATCH_ROWS = 8
# Bytes of a Parquet column that are read at once. Without a buffer it would be read by whole row groups.
_BUFFER_BYTES = 1024**2
# Bytes that Lance reads ahead; by itself it would read 2 GiB.
_AHEAD_BYTES = 32 * 1024**2


class TableSource:
    """The pictures of one table, in the order of its rows.

    A row is called by its path if the column holds paths, and otherwise by its table and number: `photos.parquet#12`.
    A column of lists may have several pictures in a row, `photos.parquet#12.0` and so on, or none.
    """

    def __init__(self, path: Path, *, column: str | None, most_file_bytes: int) -> None:
        """column: None for the one that looks like pictures.

        Raises `SettingsError` if none does, or several do, and for a table that cannot be opened.
        """
        self._path, self._most_file_bytes = path, most_file_bytes
        try:
            self._table = _LanceTable(path) if path.suffix.lower() == ".lance" else _ParquetTable(path)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise SettingsError(f"{one_line(path)} cannot be opened: {error}") from None
        self._column = picture_column(self._table.schema, column, table=str(path))

    @property
    def total(self) -> int | None:
        return None if self._has_lists else self._table.rows

    def __iter__(self) -> Iterator[Picture]:
        number = 0
        try:
            for array in self._table.arrays(self._column):
                for scalar in array:
                    if self._has_lists:
                        for place, each in enumerate(scalar.values or ()):
                            yield self._picture(each, f"{number}.{place}")
                    else:
                        yield self._picture(scalar, str(number))
                    number += 1
        except (pa.ArrowException, OSError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else error
            yield Picture(str(self._path), error=f"the table cannot be read after row {number}: {reason}")

    @property
    def _has_lists(self) -> bool:
        return several(column_kind(self._table.schema, self._column)) is not None

    def _picture(self, scalar: Any, number: str) -> Picture:
        """scalar: bytes, a path, or both as the `image` of Hugging Face's datasets."""
        numbered = f"{self._path}#{number}"
        try:
            value = _value(scalar)
        except UnicodeDecodeError:
            return Picture(numbered, error="the path is not UTF-8")
        if not value:
            return Picture(numbered, error="the row has no picture")
        if isinstance(value, str):
            return listed(value)
        if len(value) > self._most_file_bytes:
            return Picture(numbered, error=too_large(self._most_file_bytes))
        return Picture(numbered, value)


def _value(scalar: Any) -> bytes | str | None:
    """Raises `UnicodeDecodeError` for a path that is needed."""
    if isinstance(scalar, pa.StructScalar):
        values = (_value(scalar[name]) for name in ("bytes", "path") if name in scalar)
        return next((value for value in values if value), None)
    value: bytes | str | None = scalar.as_py()
    return value


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

    def arrays(self, column: str) -> Iterator[pa.Array]:
        with self._opened() as file:
            # A job of days opens the file long after it was named.
            if not file.schema_arrow.equals(self.schema):
                raise pa.ArrowInvalid("it was replaced by a table with other columns")
            for batch in file.iter_batches(_BATCH_ROWS, columns=[column], use_threads=False):
                array = batch.column(0)
                for name in within(self.schema, column):
                    array = pc.struct_field(array, name)
                yield array


class _LanceTable:
    def __init__(self, path: Path) -> None:
        with needed("lance", str(path)):
            import lance
        # Absolute, since it would take `a:b/c.lance` for an address.
        self._dataset = lance.dataset(str(path.absolute()))
        self.schema: pa.Schema = self._scanner().projected_schema
        self.rows: int = self._dataset.count_rows()

    def arrays(self, column: str) -> Iterator[pa.Array]:
        for batch in self._scanner(columns=[column]).to_batches():
            yield batch.column(0)

    def _scanner(self, **columns: Any) -> Any:
        return self._dataset.scanner(
            **columns, batch_size=_BATCH_ROWS, batch_readahead=1, fragment_readahead=1, scan_in_order=True,
            # Lance says only where the blobs of a column lie, unless it is asked for them.
            io_buffer_size=_AHEAD_BYTES, blob_handling="all_binary",
        )  # fmt: skip
