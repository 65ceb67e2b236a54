"""Logging: one line an event, as text or as JSON. No line shows anything of an image, a key or a body."""

import json
import logging
import re
import sys
from contextvars import ContextVar
from typing import Literal

# Of the request that a line belongs to. Empty without one, or if it is in no trace.
trace_id: ContextVar[str] = ContextVar("trace_id", default="")

_NUMBERS = (int, float)
_WORD = re.compile(r"[\w.:/+-]+")


class _TextFormatter(logging.Formatter):
    def __init__(self, process: str) -> None:
        super().__init__(f"%(asctime)s %(levelname)s {f'[{process}] ' if process else ''}%(name)s %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        fields = getattr(record, "fields", {}) | {"trace_id": trace_id.get() or None}
        return " ".join([line, *[f"{name}={_plain(value)}" for name, value in fields.items() if value is not None]])


def _plain(value: object) -> str:
    """The value, quoted unless it is one simple word, so that it cannot be taken for another field."""
    text = str(value)
    return text if isinstance(value, _NUMBERS) or _WORD.fullmatch(text) else json.dumps(text)


class _JsonFormatter(logging.Formatter):
    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = {"process": process} if process else {}

    def format(self, record: logging.LogRecord) -> str:
        event = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S") + f".{record.msecs:03.0f}",
            "level": record.levelname.lower(),
            "logger": record.name,
            **self._process,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if trace := trace_id.get():
            event["trace_id"] = trace
        if record.exc_info:
            event["exception"] = self.formatException(record.exc_info)
        return json.dumps(event)


def configure(log_format: Literal["text", "json"], log_level: str, *, process: str = "") -> None:
    """Sends all logging of the process to standard error. process: its name if it is one of several."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter(process) if log_format == "json" else _TextFormatter(process))
    # What no line shows: threads, processes, and the place in the code, for which the stack would be walked.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None
    logging.basicConfig(level=log_level.upper(), handlers=[handler], force=True)
    # Our own lines about starting and stopping say more than uvicorn's.
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    # At level debug Pillow logs the metadata of images.
    logging.getLogger("PIL").setLevel(logging.WARNING)
    # At level debug it logs where a URL redirects, which may be signed.
    logging.getLogger("httpcore2").setLevel(logging.WARNING)
    # Its warnings about a form quote the form.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
