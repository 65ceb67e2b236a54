"""The fate of each request of a run, in columns. Times are seconds from the start of the run.

Senders stamp the rows; this module knows no clock. A request that was never sent has a row too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Statuses beside HTTP's own.
TIMEOUT, CONNECTION, ABANDONED, UNSENT = -1, -2, -3, -4
_NAMES = {
    TIMEOUT: "no answer in time",
    CONNECTION: "connection lost",
    ABANDONED: "abandoned at the end",
    UNSENT: "never sent",
}


def status_name(status: int) -> str:
    return _NAMES.get(status, str(status))


class Row(NamedTuple):
    """One request. `request` is its place in the run's order, `template` its place in the corpus.

    `asked` counts the images that it asked for. `images` and `tokens` are what the answer says, or -1. `sent_s` and
    `done_s` are NaN if it was never sent.
    """

    request: int
    template: int
    class_index: int
    due_s: float
    sent_s: float
    done_s: float
    status: int
    asked: int
    images: int
    tokens: int
    received_bytes: int


@dataclass(frozen=True, slots=True)
class Records:
    """Rows as columns `[rows]`, ordered by due time. `stages_ms` has a column for each name of `Server-Timing`."""

    request: Ints
    template: Ints
    class_index: Ints
    due_s: Floats
    sent_s: Floats
    done_s: Floats
    status: Ints
    asked: Ints
    images: Ints
    tokens: Ints
    received_bytes: Ints
    stages_ms: Mapping[str, Floats] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.due_s)

    @property
    def ok(self) -> NDArray[np.bool_]:
        return (self.status >= 200) & (self.status < 300)

    @property
    def latency_ms(self) -> Floats:
        """Latency from when each was due, so that waiting for a busy sender counts too."""
        return (self.done_s - self.due_s) * 1e3

    @property
    def service_ms(self) -> Floats:
        """Latency from when each was sent."""
        return (self.done_s - self.sent_s) * 1e3

    @property
    def image_count(self) -> int:
        """Images of these rows. A row whose answer does not say counts as many as it asked for."""
        return int(np.where(self.images >= 0, self.images, self.asked).sum())

    def where(self, mask: NDArray[np.bool_]) -> "Records":
        columns = {name: getattr(self, name)[mask] for name in COLUMNS}
        return Records(**columns, stages_ms={name: column[mask] for name, column in self.stages_ms.items()})

    def to_json(self) -> dict[str, Any]:
        columns: dict[str, Any] = {name: _rounded(getattr(self, name)) for name in COLUMNS}
        columns["stages_ms"] = {name: _rounded(column) for name, column in self.stages_ms.items()}
        return columns

    @staticmethod
    def from_json(columns: Mapping[str, Any]) -> "Records":
        types = {name: np.int64 if name in _INTEGERS else np.float64 for name in COLUMNS}
        plain = {name: np.array(columns[name], dtype=types[name]) for name in COLUMNS}
        stages = {name: np.array(column, dtype=np.float64) for name, column in columns["stages_ms"].items()}
        return Records(**plain, stages_ms=stages)  # type: ignore[arg-type]


COLUMNS = tuple(each.name for each in fields(Records) if each.name != "stages_ms")
_INTEGERS = tuple(name for name in COLUMNS if not name.endswith("_s"))


def from_rows(rows: Sequence[Row], stages: Sequence[Mapping[str, float]]) -> Records:
    """The rows as columns. A stage that an answer does not name is NaN."""
    ordered = sorted(range(len(rows)), key=lambda place: (rows[place].due_s, rows[place].request))
    columns = {
        name: np.array(
            [getattr(rows[place], name) for place in ordered], dtype=np.int64 if name in _INTEGERS else np.float64
        )
        for name in COLUMNS
    }
    names = dict.fromkeys(name for each in stages for name in each)
    staged = {name: np.array([stages[place].get(name, np.nan) for place in ordered]) for name in names}
    return Records(**columns, stages_ms=staged)  # type: ignore[arg-type]


def join(parts: Sequence[Records]) -> Records:
    """The rows of several senders together, ordered by due time."""
    if len(parts) == 1:
        return parts[0]
    due = np.concatenate([part.due_s for part in parts])
    ordering = np.argsort(due, kind="stable")
    columns = {name: np.concatenate([getattr(part, name) for part in parts])[ordering] for name in COLUMNS}
    names = dict.fromkeys(name for part in parts for name in part.stages_ms)
    stages = {
        name: np.concatenate([part.stages_ms.get(name, np.full(len(part), np.nan)) for part in parts])[ordering]
        for name in names
    }
    return Records(**columns, stages_ms=stages)


def shift(records: Records, by_s: float) -> Records:
    """The same rows with every time `by_s` later."""
    return replace(records, due_s=records.due_s + by_s, sent_s=records.sent_s + by_s, done_s=records.done_s + by_s)


def _rounded(column: Floats | Ints) -> list[float | int | None]:
    """Times to the microsecond. NaN becomes null."""
    if column.dtype == np.int64:
        return [int(value) for value in column]
    return [None if np.isnan(value) else round(float(value), 6) for value in column]
