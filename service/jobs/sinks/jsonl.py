"""`.jsonl`: an object a line."""

from pathlib import Path

import orjson

from service.jobs.rows import Embedded, Row, TextVector
from service.jobs.sinks.sink import Sink
from service.names import utf8_name
from service.requests.results import describe_plan, describe_segments


class JsonlSink(Sink):
    """The fields of an HTTP answer, and the `file` they belong to; a line for each text after them. A picture that
    failed has none."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._file = self.partial.open("wb")

    def add(self, row: Row) -> None:
        if isinstance(row, Embedded):
            self._write(as_json(row))

    def add_text(self, text: TextVector) -> None:
        vector = {"text": text.text, "embedding": text.embedding}
        self._write({**vector, "tokens": text.tokens, "truncated": text.truncated})

    def finish(self) -> None:
        self._file.close()

    def abandon(self) -> None:
        self._file.close()

    def _write(self, item: dict[str, object]) -> None:
        self._file.write(orjson.dumps(item, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE))


def as_json(row: Embedded) -> dict[str, object]:
    """The fields of an HTTP answer, and the file they belong to."""
    segments = {"segments": describe_segments(row.plan)} if len(row.plan.segments) > 1 else {}
    repaired = {"repaired": True} if row.repaired else {}
    item = {"file": utf8_name(row.path), "embedding": row.embedding}
    return segments | item | describe_plan(row.plan) | repaired
