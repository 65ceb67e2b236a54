"""The rows of a job as Arrow: one schema for Parquet, for Lance, and for callers that write them elsewhere."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from service.jobs.rows import Embedded, Row
from service.names import utf8_name

PART_ROWS = 4096
"""Rows that are held before they are written: a row group of Parquet, a batch of Lance."""


def schema_of(width: int) -> pa.Schema:
    """width: numbers of an embedding.

    size is that of the picture in pixels, and grid that of its first segment in patches, both (height, width).
    fingerprint: of the vector. A picture that failed has nulls, and says why in error.
    """
    pair = pa.list_(pa.int32(), 2)
    return pa.schema(
        [
            pa.field("path", pa.string(), nullable=False),
            pa.field("sha256", pa.string()),
            pa.field("size", pair),
            pa.field("grid", pair),
            pa.field("tokens", pa.int32()),
            pa.field("fingerprint", pa.string()),
            pa.field("error", pa.string()),
            pa.field("embedding", pa.list_(pa.float32(), width)),
        ]
    )


def batch_of(rows: Sequence[Row], schema: pa.Schema, *, fingerprint: str) -> pa.RecordBatch:
    """schema: of `schema_of`. fingerprint: of every vector."""
    done = [row if isinstance(row, Embedded) else None for row in rows]
    width = schema.field("embedding").type.list_size
    plans = [row.plan if row else None for row in done]
    columns = [
        pa.array([utf8_name(row.path) for row in rows], pa.string()),
        pa.array([row.sha256 for row in rows], pa.string()),
        _pairs([plan.size if plan else None for plan in plans]),
        _pairs([plan.segments[0].grid if plan else None for plan in plans]),
        pa.array([plan.tokens if plan else None for plan in plans], pa.int32()),
        pa.array([fingerprint if row else None for row in done], pa.string()),
        pa.array([None if isinstance(row, Embedded) else row.reason for row in rows], pa.string()),
        _vectors([row.embedding if row else None for row in done], width),
    ]
    return pa.record_batch(columns, schema=schema)


def _pairs(values: Sequence[tuple[int, int] | None]) -> pa.Array:
    return pa.array(values, pa.list_(pa.int32(), 2))


def _vectors(vectors: Sequence["np.ndarray | None"], width: int) -> pa.Array:
    """Without a Python object for each number."""
    numbers = np.zeros((len(vectors), width), np.float32)
    missing = np.zeros(len(vectors), np.bool_)
    for place, vector in enumerate(vectors):
        if vector is None:
            missing[place] = True
        else:
            numbers[place] = vector
    values = pa.array(numbers.reshape(-1), pa.float32())
    return pa.FixedSizeListArray.from_arrays(values, width, mask=pa.array(missing))
