"""The log: one line a request, as text or as JSON, with nothing of the image in it."""

import io
import json
import logging
import re
import shlex
import socket
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, redirect_stderr
from typing import Any, Literal

import pytest

from model.running.runner import Runner
from service import logs
from service.__main__ import main
from service.limits import ModelFacts
from tests import pictures
from tests.service.running import PATIENCE_S, Running, serving, until

PNG = pictures.save(pictures.picture(48, 64), "PNG")
SECRET = "a-key-nobody-sees"
HEADERS = {"Authorization": f"Bearer {SECRET}", "Content-Type": "image/png"}
STAGES = {f"{stage}_ms" for stage in ("receive", "decode", "queue", "pack", "forward", "respond")}


class Log(io.StringIO):
    """What a process would write to standard error once its logging is configured."""

    def configure(self, log_format: Literal["text", "json"], log_level: str = "info") -> None:
        with redirect_stderr(self):
            logs.configure(log_format, log_level)

    @property
    def lines(self) -> list[str]:
        return self.getvalue().splitlines()

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines]


@pytest.fixture
def log() -> Iterator[Log]:
    """Restores logging afterwards. The clients, in the same process, log nothing."""
    loggers = [logging.getLogger(name) for name in ("", "uvicorn", "PIL", "httpx", "httpcore")]
    levels = [logger.level for logger in loggers]
    for client in loggers[3:]:
        client.setLevel(logging.ERROR)
    with Log() as made:
        yield made
        loggers[0].handlers.clear()
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


@pytest.fixture
def server(loaded: tuple[Runner, ModelFacts]) -> Iterator[Running]:
    with serving(loaded, api_keys=(SECRET,)) as running:
        yield running


def test_a_server_warns_of_a_setting_in_the_format_of_its_log(log: Log) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, redirect_stderr(log):
        port = str(taken.getsockname()[1])
        assert main(["serve", "--layout", "packed", "--log-format", "json", "--port", port]) == 2
    event = json.loads(log.lines[0])
    assert (event["level"], event["message"].split()[0]) == ("warning", "layout=packed")


def test_a_request_is_one_line_of_json(log: Log, server: Running) -> None:
    log.configure("json")
    answer = server.http.post("/embed?max_tokens=12", content=PNG, headers=HEADERS | {"X-Request-ID": "mine"})
    until(lambda: log.lines)
    (event,) = log.events
    assert answer.status_code == 200
    assert (event["level"], event["message"], event["request_id"]) == ("info", "request", "mine")
    assert (event["method"], event["route"], event["status"]) == ("POST", "/embed", 200)
    assert (event["images"], event["tokens"], event["error"]) == (1, 12, None)
    assert set(event) >= STAGES
    assert 0 < event["ms"] < 15_000


def test_a_request_is_one_line_of_text(log: Log, server: Running) -> None:
    log.configure("text")
    server.http.post("/embed?max_tokens=12", content=PNG, headers=HEADERS)
    until(lambda: log.lines)
    (line,) = log.lines
    assert " INFO packlight.request request request_id=" in line
    assert "route=/embed dialect=packlight status=200" in line
    assert "images=1 tokens=12" in line
    assert "error=" not in line


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_nothing_of_an_image_or_a_key_is_in_the_log(log: Log, server: Running, log_format: Any) -> None:
    described = pictures.save(pictures.picture(), "TIFF", tiffinfo={270: "unmistakable"})
    log.configure(log_format, "debug")
    server.http.post("/embed", content=described, headers=HEADERS)
    server.http.post("/embed", content=b"an unmistakable text", headers=HEADERS)
    server.http.post("/embed?strategy=unmistakable", content=PNG, headers=HEADERS)
    server.http.post("/embed", json={"images": ["unmistakable"]}, headers={"Authorization": HEADERS["Authorization"]})
    server.http.post("/embed", content=PNG, headers={"X-API-Key": "unmistakable"})
    server.decoder.fault = RuntimeError()
    server.http.post("/embed", content=PNG, headers=HEADERS)
    until(lambda: "Traceback" in log.getvalue())
    until(lambda: sum("/embed" in line and "status" in line for line in log.lines) >= 6)
    assert "unmistakable" not in log.getvalue()
    assert SECRET not in log.getvalue()


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (b"no request\r\n\r\n", "with 400: this is no HTTP/1 request"),
        (b"GET / HTTP/1.1\r\n\r\n", "400: an HTTP/1.1 request"),
    ],
)
def test_what_is_no_request_is_one_line_that_says_why(log: Log, server: Running, sent: bytes, said: str) -> None:
    log.configure("text")
    with server.connect() as connection:
        connection.sendall(sent)
        while connection.recv(4096):
            pass
    until(lambda: log.lines)
    (line,) = log.lines
    assert said in line


def test_an_error_is_named_by_its_code(log: Log, server: Running) -> None:
    log.configure("json")
    server.http.post("/embed", content=b"text", headers=HEADERS)
    server.http.get("/info")
    until(lambda: len(log.lines) == 2)
    assert [(event["status"], event["error"]) for event in log.events] == [
        (415, "unsupported_media"),
        (401, "unauthorized"),
    ]


def test_a_fault_is_logged_whole_under_the_id_that_the_caller_was_told(log: Log, server: Running) -> None:
    log.configure("json")
    server.decoder.fault = RuntimeError("the cause")
    answer = server.http.post("/embed", content=PNG, headers=HEADERS)
    until(lambda: any(event["message"] == "request" for event in log.events))
    faults = [event for event in log.events if event["level"] == "error"]
    assert len(faults) == 1
    assert answer.headers["X-Request-ID"] in faults[0]["message"]
    assert "the cause" in faults[0]["exception"]
    assert server.counted("images_total", outcome="internal") == 1


def test_every_line_of_a_request_has_its_id_and_what_outlives_it_has_none(
    log: Log, loaded: tuple[Runner, ModelFacts]
) -> None:
    with serving(loaded, url_allowlist=("private http://127.0.0.1:1",), cache_url="redis://127.0.0.1:1/0") as server:
        log.configure("json")
        for one in ("first", "second"):
            asked = {"images": [b64encode(PNG).decode(), "http://127.0.0.1:1/a.png"], "partial": True}
            server.http.post("/embed", json=asked, headers={"X-Request-ID": one})
        until(lambda: sum(event["message"] == "request" for event in log.events) == 2)
    fetches = [event for event in log.events if event["message"] == "fetch"]
    assert [event["request_id"] for event in fetches] == ["first", "second"]
    (away,) = [event for event in log.events if "cache" in event["message"]]
    assert "request_id" not in away


def test_the_id_stands_before_a_traceback(log: Log, server: Running) -> None:
    log.configure("text")
    server.decoder.fault = RuntimeError("the cause")
    server.http.post("/embed", content=PNG, headers=HEADERS | {"X-Request-ID": "mine"})
    until(lambda: any("status=500" in line for line in log.lines))
    first = next(index for index, line in enumerate(log.lines) if " ERROR " in line)
    assert log.lines[first].endswith(" request_id=mine")
    assert log.lines[first + 1].startswith("Traceback")


def test_a_client_that_left_has_a_status_of_its_own(log: Log, server: Running) -> None:
    log.configure("json")
    server.runner.hold()
    with ThreadPoolExecutor() as pool:
        first = pool.submit(server.http.post, "/embed", content=PNG, headers=HEADERS)
        assert server.runner.entered.wait(PATIENCE_S)
        with server.connect() as connection:
            head = f"POST /embed HTTP/1.1\r\nHost: a\r\nContent-Type: image/png\r\nX-API-Key: {SECRET}\r\n"
            connection.sendall(f"{head}Content-Length: {len(PNG)}\r\n\r\n".encode() + PNG)
            until(lambda: server.metric("queue_images") == 1)
        until(lambda: log.lines)
        server.runner.free.set()
        assert first.result().status_code == 200
    left = log.events[0]
    assert (left["status"], left["error"], left["level"]) == (499, "client_gone", "info")


def test_health_checks_are_not_logged(log: Log, server: Running) -> None:
    log.configure("json")
    server.http.get("/livez")
    server.http.get("/readyz")
    server.http.get("/metrics", headers=HEADERS)
    server.http.get("/info", headers=HEADERS)
    until(lambda: log.lines)
    assert [event["route"] for event in log.events] == ["/info"]


def test_a_request_id_cannot_forge_a_field_of_the_text(log: Log, server: Running) -> None:
    log.configure("text")
    server.http.get("/info", headers=HEADERS | {"X-Request-ID": "a status=500 error=engine_fault"})
    until(lambda: log.lines)
    (line,) = log.lines
    assert [field for field in shlex.split(line) if field.startswith(("status=", "error="))] == ["status=200"]


EVENTS = """
import logging, sys
from service import logs
logs.configure(sys.argv[1], "info", process="http-1")
logs.request_id.set("mine")
log = logging.getLogger("packlight.test")
fields = {"status": 200, "route": "/embed", "error": None, "said": "two words", "ms": 1.5}
logs.log_event(log, logging.INFO, "request", fields)
log.info("request", extra={"fields": fields})
logs.log_event(log, logging.DEBUG, "too much", fields)
logging.root.addHandler(logging.StreamHandler(sys.stdout))
logs.log_event(log, logging.WARNING, "request", fields)
logs.leave(0)
"""
STAMP = re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d[,.]\d{3}")


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_an_event_without_a_record_is_the_line_of_one_and_other_handlers_get_a_record(log_format: str) -> None:
    ended = subprocess.run([sys.executable, "-c", EVENTS, log_format], capture_output=True, text=True, check=True)
    first, second, third = STAMP.sub("now", ended.stderr).splitlines()
    assert first == second == third.replace("WARNING", "INFO").replace('"warning"', '"info"')
    assert ended.stdout == "request\n"
    if log_format == "text":
        told = 'status=200 route=/embed said="two words" ms=1.5 request_id=mine'
        assert first == f"now INFO [http-1] packlight.test request {told}"
    else:
        fields = {"status": 200, "route": "/embed", "error": None, "said": "two words", "ms": 1.5, "request_id": "mine"}
        head = {"time": "now", "level": "info", "logger": "packlight.test", "process": "http-1", "message": "request"}
        assert list(json.loads(first).items()) == list((head | fields).items())


# A log that takes nothing

WRITES = """
import logging, os, sys
from service import logs
logs._MAX_WAITING_CHARS = {most_chars}
logs._FLUSH_S = {flush_s}
logs.configure("json", "info")
lost = []
logs.count_lost(lambda: lost.append(1))
log = logging.getLogger("test")
{before}
for number in range(1000):
    log.info("%d", number)
print(len(lost), flush=True)
sys.stdin.readline()
{end}
"""


@contextmanager
def writing(
    end: str, *, before: str = "", most_chars: int = 10**6, flush_s: float = PATIENCE_S
) -> Iterator["subprocess.Popen[str]"]:
    """A process that logs more than its pipe holds, which nobody reads."""
    program = WRITES.format(end=end, before=before, most_chars=most_chars, flush_s=flush_s)
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=pipe, stdout=pipe, stderr=pipe, text=True, pipesize=4096
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def messages(log: str) -> list[str]:
    return [json.loads(line)["message"] for line in log.splitlines()]


def test_lines_that_nothing_takes_are_counted_and_the_log_says_so_once_it_writes_again() -> None:
    with writing('logs.flush(); log.info("after"); logs.leave(3)', most_chars=20_000) as process:
        assert process.stdout
        lost = int(process.stdout.readline())
        _, log = process.communicate("\n", timeout=PATIENCE_S)
    assert 0 < lost < 900
    told = f"{lost} lines of the log are lost: nothing took them"
    assert messages(log) == [*map(str, range(1000 - lost)), told, "after"]


@pytest.mark.parametrize("end", ["logs.leave(3)", "sys.exit(3)"])
@pytest.mark.parametrize("before", ["", "os.set_blocking(2, False)"])
def test_a_process_that_ends_writes_all_its_lines(end: str, before: str) -> None:
    with writing(f'log.critical("last"); {end}', before=before) as process:
        assert process.stdout
        assert process.stdout.readline() == "0\n"
        _, log = process.communicate("\n", timeout=PATIENCE_S)
    assert messages(log) == [*map(str, range(1000)), "last"]
    assert process.returncode == 3


@pytest.mark.parametrize("end", ["logs.leave(3)", "sys.exit(3)"])
def test_a_process_ends_though_nothing_takes_its_log(end: str) -> None:
    with writing(end, flush_s=0.01) as process:
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.close()
        assert process.wait(PATIENCE_S) == 3


def test_a_log_that_was_closed_holds_nobody() -> None:
    with writing("logs.flush(); print(len(lost), flush=True); logs.leave(3)") as process:
        assert process.stderr
        process.stderr.close()
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.close()
        assert process.stdout
        _, lost = process.stdout.read().splitlines()
        assert process.wait(PATIENCE_S) == 3
    assert 0 < int(lost) <= 1000
