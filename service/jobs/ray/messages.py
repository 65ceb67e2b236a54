"""What the stages of a job hand to one another: Arrow tables, a row a picture.

`place` columns stand in all of them. Texts are bytes, since names of files need not be UTF-8.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import pyarrow as pa

from model.sizing.plan import ImagePlan
from service.jobs.packs import PackCount
from service.jobs.rows import Decoded, Embedded, Failed, Picture, Row

_PLACE = [pa.field("unit", pa.int64()), pa.field("number", pa.int64()), pa.field("path", pa.binary())]
_DONE = [
    *_PLACE, pa.field("sha256", pa.string()), pa.field("error", pa.binary()), pa.field("repaired", pa.bool_()),
    pa.field("plan", pa.binary()),
]  # fmt: skip
READ = pa.schema([*_PLACE, pa.field("data", pa.large_binary()), pa.field("error", pa.binary())])
DECODED = pa.schema([*_DONE, pa.field("rows", pa.large_binary())])
EMBEDDED = pa.schema([*_DONE, pa.field("embedding", pa.binary()), pa.field("count", pa.binary())])


@dataclass(frozen=True, slots=True)
class Place:
    """Where a picture stands in the source: the number of its read task, and its own in there."""

    unit: int
    number: int

    def follows(self, other: "Place | None") -> bool:
        if other is not None and other.unit == self.unit:
            return self.number == other.number + 1
        return self.number == 0 and (other is None or self.unit > other.unit)


@dataclass(frozen=True, slots=True)
class Known:
    """A picture whose vector an earlier run has kept."""

    path: str
    sha256: str


def read_table(unit: int, first: int, pictures: Sequence[Picture]) -> pa.Table:
    """first: number of the first picture. Their data are bytes."""
    rows = [
        {
            **_place(Place(unit, number), picture.path), "data": None if picture.error else picture.data,
            "error": _bytes(picture.error) if picture.error else None,
        }
        for number, picture in enumerate(pictures, first)
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, READ)


def read_rows(table: pa.Table) -> Iterator[tuple[Place, Picture]]:
    for row in table.to_pylist():
        yield Place(row["unit"], row["number"]), Picture(_text(row["path"]), row["data"] or b"", _text(row["error"]))


def decoded_table(done: Sequence[tuple[Place, Decoded | Failed | Known]]) -> pa.Table:
    rows = []
    for place, row in done:
        made = {**_place(place, row.path), "sha256": row.sha256}
        if isinstance(row, Decoded):
            made |= {"repaired": row.repaired, "plan": msgspec.msgpack.encode(row.plan), "rows": row.rows.tobytes()}
        elif isinstance(row, Failed):
            made["error"] = _bytes(row.reason)
        rows.append(made)
    return pa.Table.from_pylist(rows, DECODED)


def decoded_rows(table: pa.Table, *, row_bytes: int) -> Iterator[tuple[Place, Decoded | Failed | Known]]:
    """row_bytes: of one token's patch. The rows of pictures are views of the table."""
    patches = table.column("rows").combine_chunks()
    if isinstance(patches, pa.ChunkedArray):
        patches = pa.concat_arrays(patches.chunks)
    for row, scalar in zip(table.drop_columns(["rows"]).to_pylist(), patches, strict=True):
        place, path = Place(row["unit"], row["number"]), _text(row["path"])
        if row["error"] is not None:
            yield place, Failed(path, _text(row["error"]), row["sha256"])
        elif row["plan"] is None:
            yield place, Known(path, row["sha256"])
        else:
            plan = msgspec.msgpack.decode(row["plan"], type=ImagePlan)
            pixels = np.frombuffer(scalar.as_buffer(), np.uint8).reshape(-1, row_bytes)
            yield place, Decoded(path, row["sha256"], plan, pixels, row["repaired"])


def embedded_table(done: Sequence[tuple[Place, Row | Known]], count: PackCount) -> pa.Table:
    """count: of the packs that made these rows."""
    rows = []
    for place, row in done:
        made = {**_place(place, row.path), "sha256": row.sha256}
        if isinstance(row, Embedded):
            made |= {
                "repaired": row.repaired, "plan": msgspec.msgpack.encode(row.plan),
                "embedding": row.embedding.astype("<f4", copy=False).tobytes(),
            }  # fmt: skip
        elif isinstance(row, Failed):
            made["error"] = _bytes(row.reason)
        rows.append(made)
    if rows:
        rows[0]["count"] = msgspec.msgpack.encode(count)
    return pa.Table.from_pylist(rows, EMBEDDED)


def embedded_rows(table: pa.Table) -> Iterator[tuple[Place, Row | Known]]:
    for row in table.to_pylist():
        place, path = Place(row["unit"], row["number"]), _text(row["path"])
        if row["error"] is not None:
            yield place, Failed(path, _text(row["error"]), row["sha256"])
        elif row["plan"] is None:
            yield place, Known(path, row["sha256"])
        else:
            plan = msgspec.msgpack.decode(row["plan"], type=ImagePlan)
            yield place, Embedded(path, row["sha256"], plan, np.frombuffer(row["embedding"], "<f4"), row["repaired"])


def counts(table: pa.Table) -> Iterator[PackCount]:
    for scalar in table.column("count"):
        if scalar.is_valid:
            yield msgspec.msgpack.decode(scalar.as_py(), type=PackCount)


def _place(place: Place, path: str) -> dict[str, object]:
    return {"unit": place.unit, "number": place.number, "path": _bytes(path)}


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _text(data: bytes | None) -> str:
    return (data or b"").decode("utf-8", "surrogateescape")
