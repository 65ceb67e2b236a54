"""`.npy`: vectors alone."""

from pathlib import Path

import numpy as np
from numpy.lib import format as npy_format

from service.jobs.rows import Embedded, Row, TextVector
from service.jobs.sinks.sink import Sink


class NumpySink(Sink):
    """float32 `[B, E]`: one vector for each picture that has one, and then one for each text."""

    def __init__(self, path: Path, *, width: int) -> None:
        super().__init__(path)
        self._file = self.partial.open("wb")
        self._rows, self._width = 0, width
        self._write_header()

    def add(self, row: Row) -> None:
        if isinstance(row, Embedded):
            self._write(row.embedding)

    def add_text(self, text: TextVector) -> None:
        self._write(text.embedding)

    def finish(self) -> None:
        self._file.seek(0)
        self._write_header()
        self._file.close()

    def abandon(self) -> None:
        self._file.close()

    def _write(self, vector: "np.ndarray[tuple[int], np.dtype[np.float32]]") -> None:
        self._rows += 1
        self._file.write(vector.astype("<f4", copy=False).tobytes())

    def _write_header(self) -> None:
        """NumPy pads a header so that it keeps its length however many rows are added."""
        header = {"descr": "<f4", "fortran_order": False, "shape": (self._rows, self._width)}
        npy_format.write_array_header_1_0(self._file, header)
