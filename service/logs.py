"""Logging: one line an event, as text or as JSON. No line shows anything of an image, a key or a body."""

import json
import logging
import os
import re
import select
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from queue import SimpleQueue
from typing import Literal, NoReturn

from model import threads

# They name the request that a line belongs to. Both are empty without one, the second also if it is in no trace.
request_id: ContextVar[str] = ContextVar("request_id", default="")
trace_id: ContextVar[str] = ContextVar("trace_id", default="")
_OF_REQUESTS = (("request_id", request_id), ("trace_id", trace_id))

_NUMBERS = (int, float)
_WORD = re.compile(r"[\w.:/+-]+")

_STDERR = 2
# About 15,000 lines of requests.
_MAX_WAITING_CHARS = 4 << 20
# How long the end of a process waits for a log that takes nothing.
_FLUSH_S = 1.0
# Lines that come close together are written together: to wake a thread for each costs more than to write it.
_GATHER_S = 0.01

_log = logging.getLogger(__name__)


class _Formatter(logging.Formatter, ABC):
    @abstractmethod
    def line(self, created_s: float, level: str, logger: str, message: str, fields: Mapping[str, object]) -> str:
        """What happened, in one line. created_s: seconds since 1970."""


class _TextFormatter(_Formatter):
    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = f" [{process}]" if process else ""
        # The second of the last line, and its text: set as one, since the thread that writes formats lines too.
        self._last_second = (-1, "")

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The first line: a traceback stands behind it."""
        return self.line(record.created, record.levelname, record.name, record.message, _fields(record))

    def line(self, created_s: float, level: str, logger: str, message: str, fields: Mapping[str, object]) -> str:
        named = [f"{name}={_plain(value)}" for name, value in _of_request(fields).items() if value is not None]
        return " ".join([f"{self._time(created_s)} {level}{self._process} {logger} {message}", *named])

    def _time(self, created_s: float) -> str:
        """Lines of the same second share what takes long."""
        second, text = self._last_second
        if second != int(created_s):
            text = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(created_s))
            self._last_second = int(created_s), text
        return f"{text},{_milliseconds(created_s):03d}"


def _milliseconds(created_s: float) -> int:
    return int(created_s % 1 * 1000)


def _fields(record: logging.LogRecord) -> Mapping[str, object]:
    fields: Mapping[str, object] = getattr(record, "fields", {})
    return fields


def _of_request(fields: Mapping[str, object]) -> Mapping[str, object]:
    """What a line says beside its message, with the request that it belongs to."""
    for name, of_request in _OF_REQUESTS:
        if name not in fields and (value := of_request.get()):
            fields = {**fields, name: value}
    return fields


def _plain(value: object) -> str:
    """The value, quoted unless it is one simple word, so that it cannot be taken for another field."""
    if isinstance(value, _NUMBERS):
        return str(value)
    text = str(value)
    return text if _WORD.fullmatch(text) else json.dumps(text)


class _JsonFormatter(_Formatter):
    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = {"process": process} if process else {}

    def format(self, record: logging.LogRecord) -> str:
        fields = _of_request(_fields(record))
        if record.exc_info:
            fields = {**fields, "exception": self.formatException(record.exc_info)}
        return self.line(record.created, record.levelname, record.name, record.getMessage(), fields)

    def line(self, created_s: float, level: str, logger: str, message: str, fields: Mapping[str, object]) -> str:
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(created_s))
        return json.dumps({
            "time": f"{when}.{_milliseconds(created_s):03d}",
            "level": level.lower(),
            "logger": logger,
            **self._process,
            "message": message,
            **_of_request(fields),
        })  # fmt: skip


class _Writer(logging.Handler):
    """Writes to standard error in a thread of its own, so that a log that takes nothing holds nobody else.

    Lines beyond `_MAX_WAITING_CHARS` are lost, as is every line until those that wait are written. Then a line says
    how many. The process's own `sys.stderr` is passed by: while the thread waits, nobody else could use that either.
    on_lost: called for each.
    """

    def __init__(self) -> None:
        """Raises `RuntimeError` if the system has no room for the thread."""
        super().__init__()
        self.on_lost: Callable[[], object] = lambda: None
        self._lines: SimpleQueue[str] = SimpleQueue()
        # Guards the two. Not the lock of handlers, which `logging.shutdown` holds while it flushes. Handlers of signals
        # log, too.
        self._lock = threading.RLock()
        self._waiting_chars = self._lost = 0
        self._encoding = sys.stderr.encoding
        self._thread = threads.keep(self._main, "log")

    def emit(self, record: logging.LogRecord) -> None:
        # Here, since the thread knows neither the request's trace nor the exception that is handled.
        try:
            line = self.format(record)
        except Exception:
            self.handleError(record)
            return
        self.take(line)

    def take(self, line: str) -> None:
        """Has the thread write it."""
        line += "\n"
        with self._lock:
            if self._lost or self._waiting_chars + len(line) > _MAX_WAITING_CHARS:
                self._lost += 1
                self.on_lost()
            else:
                self._put(line)

    def flush(self) -> None:
        """Waits until all lines are written, for a bounded time."""
        until = time.monotonic() + _FLUSH_S
        while self._waiting_chars and time.monotonic() < until:
            if self._thread.is_alive():
                time.sleep(0.001)
            elif self._lines.empty():
                return
            else:
                # The last lines say that the thread has failed.
                self._write_next()

    def _put(self, line: str) -> None:
        self._waiting_chars += len(line)
        self._lines.put(line)

    def _main(self) -> None:
        while True:
            if self._lines.empty():
                time.sleep(_GATHER_S)
            self._write_next()

    def _write_next(self) -> None:
        line = self._lines.get()
        if not _written(line.encode(self._encoding, "backslashreplace")):
            self.on_lost()
        with self._lock:
            self._waiting_chars -= len(line)
            if self._lost and not self._waiting_chars:
                message = "%d lines of the log are lost: nothing took them"
                self._put(self.format(_record(message, self._lost)) + "\n")
                self._lost = 0


def _record(message: str, *values: object) -> logging.LogRecord:
    return _log.makeRecord(_log.name, logging.WARNING, "", 0, message, values, None)


def _written(line: bytes) -> bool:
    """Whether standard error took it, however long that lasts. In one piece, if it can: processes share a pipe."""
    while line:
        try:
            line = line[os.write(_STDERR, line) :]
        except BlockingIOError:
            # Another program that has the pipe, too, made it so.
            select.select([], [_STDERR], [])
        except OSError:
            return False
    return True


def _handler() -> logging.Handler:
    try:
        is_own = sys.stderr.fileno() == _STDERR
    except (AttributeError, OSError):
        is_own = False
    if not is_own:
        return logging.StreamHandler(sys.stderr)
    # One thread a process, however often logging is configured.
    return next((each for each in logging.root.handlers if isinstance(each, _Writer)), None) or _Writer()


def configure(log_format: Literal["text", "json"], log_level: str, *, process: str = "") -> None:
    """Sends all logging of the process to standard error. process: its name if it is one of several.

    Whoever logs waits for nobody. A process that ends by `os._exit` calls `leave` instead.
    """
    handler = _handler()
    handler.setFormatter(_JsonFormatter(process) if log_format == "json" else _TextFormatter(process))
    # What no line shows: threads, processes, and the place in the code, for which the stack would be walked.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None
    logging.basicConfig(level=log_level.upper(), handlers=[handler], force=True)
    # Our own lines about starting, stopping and what is no request say more than uvicorn's.
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    # At level debug Pillow logs the metadata of images.
    logging.getLogger("PIL").setLevel(logging.WARNING)
    # At level debug it logs where a URL redirects, which may be signed.
    logging.getLogger("httpcore2").setLevel(logging.WARNING)
    # Its warnings about a form quote the form.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)


def log_event(logger: logging.Logger, level: int, message: str, fields: Mapping[str, object]) -> None:
    """As `logger.log` with `fields` as its extra, without a record where the handler of `configure` is the only one: a
    request has a line, and its record took a thirtieth of what a request takes of the event loop."""
    if not logger.isEnabledFor(level):
        return
    handlers = logging.root.handlers
    if len(handlers) == 1 and isinstance(writer := handlers[0], _Writer) and isinstance(writer.formatter, _Formatter):
        writer.take(writer.formatter.line(time.time(), logging.getLevelName(level), logger.name, message, fields))
    else:
        logger.log(level, message, extra={"fields": fields})


def count_lost(count: Callable[[], object]) -> None:
    """Calls it for every line that is lost from now on."""
    for handler in logging.root.handlers:
        if isinstance(handler, _Writer):
            handler.on_lost = count


def flush() -> None:
    """Waits until the lines so far are written, at most a second."""
    for handler in logging.root.handlers:
        handler.flush()


def leave(status: int) -> NoReturn:
    """Ends the process at once, but for the lines of its log."""
    flush()
    os._exit(status)
