"""How a server of several processes ends: in order at a signal, at once at a second one, with no trace at SIGKILL."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from model.child_process import children_of
from tests import pictures
from tests.process.programs.faulty_engine import HANGS
from tests.process.server import (
    FAULTY,
    OPTIONS,
    ROOT,
    SMALL_PACKS,
    START_PATIENCE_S,
    Server,
    coloured,
    is_there,
    refused,
    running,
)
from tests.service.running import raw_request, read_answer
from tests.waiting import until

# A square takes exactly the 256 tokens that an image may have by default.
IMAGE = pictures.save(pictures.picture(64, 64), "PNG")
SIGNALS = [signal.SIGTERM, signal.SIGINT]


def traces(server: Server, children: list[int], names: set[str]) -> list[object]:
    """Processes, sockets and folders that a server has left behind."""
    sockets = [line for line in Path("/proc/net/unix").read_text().splitlines() if line.split()[-1] in names]
    folders = list(Path(tempfile.gettempdir()).glob(f"packlight-metrics-{server.process.pid}-*"))
    return [*filter(is_there, children), *sockets, *folders]


def socket_names(children: list[int]) -> set[str]:
    """Names of the abstract sockets of these processes."""
    links = [os.readlink(link) for pid in children for link in Path(f"/proc/{pid}/fd").iterdir()]
    inodes = {link.removeprefix("socket:[").removesuffix("]") for link in links if link.startswith("socket:")}
    lines = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()]
    return {line[-1] for line in lines if line[6] in inodes and line[-1].startswith("@packlight-")}


@pytest.mark.parametrize(
    ("number", "engine_dies"), [(signal.SIGTERM, False), (signal.SIGINT, True)], ids=["SIGTERM", "SIGINT-engine-dies"]
)
def test_a_signal_lets_what_was_accepted_finish_lets_nothing_in_and_ends_with_0(
    number: int, *, engine_dies: bool
) -> None:
    """Twelve images are queued. The thirteenth is being sent, and fills the pack after the signal."""
    # Half of an upload may take half of its time, and nothing else ends the wait: the machine may be slow.
    patience = ("--upload-timeout-ms", "600000", "--max-wait-ms", "300000", "--default-timeout-ms", "600000")
    options = ("--http-workers", "2", "--max-batch-tokens", str(13 * 256), "--drain-s", "600", *patience)
    half = len(IMAGE) // 2
    with running(*options) as server, ThreadPoolExecutor(12) as pool, server.connect() as uploading:
        children = server.children()
        (engine,) = server.engines
        names = socket_names(children)
        assert names
        with following(server, connections=4) as following_all, asking(server) as late:
            uploading.sendall(raw_request(IMAGE[:half], f"Content-Length: {len(IMAGE)}"))
            waiting = [pool.submit(server.embed, IMAGE) for _ in range(12)]
            until(lambda: server.metric("queue_images") == 12 and server.metric("inflight_bytes") == len(IMAGE))
            server.process.send_signal(number)
            until(lambda: not server.accepts())
            # Who follows how the server is doing does not delay its end: the streams end, and whole, before the rest.
            answers = [read_answer(connection)[0] for connection in following_all]
            assert [(answer.status, answer.chunked) for answer in answers] == [(200, True)] * 4
            if engine_dies:
                os.kill(engine, signal.SIGKILL)
            uploading.sendall(IMAGE[half:])
            assert read_answer(uploading)[0].status == 200
            assert server.wait() == 0
            with pytest.raises(httpx.TransportError):
                late.get("/livez")
        assert [answer.result().status_code for answer in waiting] == [200] * 12
        assert (f"engine-0 (pid {engine}) died: " in server.log) == engine_dies
        assert traces(server, children, names) == []
        assert "Traceback" not in server.log


@contextmanager
def following(server: Server, *, connections: int) -> Iterator[list[socket.socket]]:
    """Connections on which /stats has begun."""
    with ExitStack() as stack:
        opened = [stack.enter_context(server.connect()) for _ in range(connections)]
        for connection in opened:
            connection.sendall(b"GET /stats HTTP/1.1\r\nHost: test\r\n\r\n")
            assert connection.recv(1, socket.MSG_PEEK)
        yield opened


@contextmanager
def asking(server: Server) -> Iterator[httpx.Client]:
    """A client with a connection that is open."""
    with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", trust_env=False, verify=False) as client:
        assert client.get("/livez").status_code == 200
        yield client


@pytest.mark.parametrize("number", SIGNALS)
def test_a_second_signal_ends_everything_at_once(number: int) -> None:
    with running("--hang-after-s", "1000", *SMALL_PACKS, program=FAULTY) as server, ThreadPoolExecutor(1) as pool:
        children = server.children()
        hung = pool.submit(server.embed, coloured(HANGS))
        until(lambda: server.metric("queue_tokens") > 0)
        server.process.send_signal(number)
        until(lambda: "stopping" in server.log)
        assert server.end(number) == 1
        assert isinstance(hung.exception(), httpx.TransportError)
        until(lambda: not any(map(is_there, children)))
        assert "Traceback" not in server.log


def test_a_parent_that_is_killed_takes_everything_with_it_but_a_folder_that_the_next_server_removes() -> None:
    with running("--http-workers", "2", *SMALL_PACKS) as server:
        children = server.children()
        names = socket_names(children)
        assert len(children) == 3
        server.process.kill()
        server.wait()
        until(lambda: not any(map(is_there, children)))
    (folder,) = traces(server, children, names)
    assert isinstance(folder, Path)
    assert folder.is_dir()
    with running(*SMALL_PACKS):
        assert not folder.exists()


def test_a_signal_before_it_is_ready_ends_it(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-m", "service", "serve", *OPTIONS], cwd=ROOT, stderr=subprocess.PIPE)
    until(lambda: children_of(process.pid))
    # An engine, and perhaps HTTP processes already: they start beside it.
    started = children_of(process.pid)
    process.send_signal(signal.SIGTERM)
    _, log = process.communicate(timeout=START_PATIENCE_S)
    assert process.returncode == 0
    assert b"Traceback" not in log
    until(lambda: not any(map(is_there, started)))


# What cannot start


def test_a_model_that_is_not_there_ends_the_server_with_the_engines_reason() -> None:
    assert "nowhere" in refused("--log-level", "warning", "--model", "./nowhere")


def test_a_device_that_is_not_there_ends_the_server_with_the_engines_reason() -> None:
    assert "cuda:9" in refused("--log-level", "error", "--devices", "cpu,cuda:9")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--engine", "thread", "--http-workers", "2"], "http_workers"),
        (["--engine", "thread", "--devices", "cpu,cpu"], "devices"),
        (["--http-workers", "9"], "max_inflight_bytes"),
        (["--http-workers", "2", "--max-queue-tokens", "1000"], "max_queue_tokens"),
    ],
)
def test_what_cannot_be_shared_is_refused_by_name(options: list[str], named: str) -> None:
    assert named in refused("--log-level", "error", *options)
