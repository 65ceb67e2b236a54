"""`.safetensors`: vectors, and beside them tokens, grids and names."""

import json
import shutil
import tempfile
from array import array
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from service.jobs.rows import Embedded, Row, TextVector
from service.jobs.sinks.sink import Sink
from service.names import utf8_name

# What readers of the format take. The names are in there.
_MOST_HEADER_BYTES = 100_000_000


class SafetensorsSink(Sink):
    """One vector for each picture that has one, and then one for each text: `embeddings` float32 `[B, E]`, `tokens`
    int32 `[B]`, the tensors of `results.grid_tensors` for the pictures; in the metadata, as JSON lists, the names under
    `files` and the texts, if there are any, under `texts`.

    The header says how long each tensor is, so the vectors lie in another file until the end.
    """

    def __init__(self, path: Path, *, width: int) -> None:
        super().__init__(path)
        self._out = self.partial.open("wb")
        self._vectors = cast(BinaryIO, tempfile.TemporaryFile(dir=path.parent))  # noqa: SIM115
        self._width = width
        # In the order of rows. `counts` is how many segments each picture has.
        self._names: list[str] = []
        self._name_bytes = 0
        self._texts: list[str] = []
        self._tokens, self._grids, self._segment_grids, self._counts = (array("i") for _ in range(4))

    def add(self, row: Row) -> None:
        if not isinstance(row, Embedded):
            return
        self._add_name(utf8_name(row.path))
        segments = row.plan.segments
        self._grids.extend(segments[0].grid)
        self._counts.append(len(segments))
        for segment in segments:
            self._segment_grids.extend(segment.grid)
        self._add_vector(row.embedding, row.plan.tokens)

    def _add_name(self, name: str) -> None:
        """Days of work must not end with a header that is too long."""
        self._names.append(name)
        self._name_bytes += len(json.dumps(json.dumps(name)))
        if self._name_bytes > _MOST_HEADER_BYTES:
            raise _too_many_names()

    def add_text(self, text: TextVector) -> None:
        self._texts.append(text.text)
        self._add_vector(text.embedding, text.tokens)

    def _add_vector(self, vector: "np.ndarray[tuple[int], np.dtype[np.float32]]", tokens: int) -> None:
        self._vectors.write(vector.astype("<f4", copy=False).tobytes())
        self._tokens.append(tokens)

    def finish(self) -> None:
        numbers = self._numbers()
        self._out.write(self._header(numbers))
        self._vectors.seek(0)
        shutil.copyfileobj(self._vectors, self._out, 1024**2)
        for values in numbers.values():
            self._out.write(values.tobytes())
        self.abandon()

    def abandon(self) -> None:
        self._vectors.close()
        self._out.close()

    def _numbers(self) -> dict[str, "np.ndarray[tuple[int, ...], np.dtype[np.int32]]"]:
        """The tensors of whole numbers, as `results.grid_tensors` makes them of plans."""
        numbers = {"grids": _pairs(self._grids), "tokens": np.array(self._tokens, "<i4")}
        counts = np.array(self._counts, "<i4")
        if (counts > 1).any():
            numbers["segment_grids"] = _pairs(self._segment_grids)
            numbers["cu_segments"] = np.concatenate([[0], np.cumsum(counts)]).astype("<i4")
        return numbers

    def _header(self, numbers: dict[str, "np.ndarray[tuple[int, ...], np.dtype[np.int32]]"]) -> bytes:
        metadata = {"files": json.dumps(self._names)}
        if self._texts:
            metadata["texts"] = json.dumps(self._texts)
        count = len(self._tokens)
        end = 4 * count * self._width
        header: dict[str, object] = {
            "__metadata__": metadata,
            "embeddings": {"dtype": "F32", "shape": [count, self._width], "data_offsets": [0, end]},
        }
        for name, values in numbers.items():
            header[name] = {"dtype": "I32", "shape": list(values.shape), "data_offsets": [end, end + values.nbytes]}
            end += values.nbytes
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        if len(text) > _MOST_HEADER_BYTES:
            raise _too_many_names()
        return len(text).to_bytes(8, "little") + text


def _too_many_names() -> OSError:
    return OSError(f"the names take more than the {_MOST_HEADER_BYTES:,} bytes that a .safetensors may hold")


def _pairs(values: "array[int]") -> "np.ndarray[tuple[int, ...], np.dtype[np.int32]]":
    return np.array(values, "<i4").reshape(-1, 2)
