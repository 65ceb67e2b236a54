"""`packlight serve` with its engine in a thread: how it stops, and what it says when it cannot start."""

import re
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack

import httpx

from tests import pictures
from tests.process.server import OPTIONS, REAL, ROOT, START_PATIENCE_S, refused, running
from tests.service.running import raw_request, read_answer
from tests.waiting import PATIENCE_S, until

PNG = pictures.save(pictures.picture(48, 64), "PNG")
THREAD = ("--engine", "thread")


def test_a_second_signal_ends_it_at_once_while_the_device_computes() -> None:
    tokens = "6000"
    options = ("--max-image-tokens", tokens, "--max-batch-tokens", tokens, "--max-queue-tokens", "100000")
    with running(*THREAD, *options) as server, ExitStack() as stack:
        for _ in range(12):
            path = f"/embed?max_tokens={tokens}&timeout_ms=3600000"
            stack.enter_context(server.connect()).sendall(raw_request(PNG, path=path))
        until(lambda: server.metric("queue_images") > 5)
        server.process.send_signal(signal.SIGTERM)
        until(lambda: not server.accepts())
        assert server.end(signal.SIGINT) == 1
        assert "terminate" not in server.log


def test_draining_ends_and_what_is_not_done_by_then_gets_503() -> None:
    with running(*THREAD, "--max-wait-ms", "20000", "--drain-s", "1") as server, server.connect() as connection:
        connection.sendall(raw_request(PNG))
        until(lambda: server.metric("queue_images") == 1)
        server.process.send_signal(signal.SIGTERM)
        answer, body = read_answer(connection)
        server.wait()
    assert answer.status == 503
    assert b'"unavailable"' in body
    assert "Traceback" not in server.log


def test_ctrl_c_ends_it_at_once_while_the_device_warms_up() -> None:
    program = """
import sys, threading
from service.processes import server
def warm_up(runner, limits):
    print("warming up", flush=True)
    threading.Event().wait()
server.warm_up = warm_up
from service.__main__ import main
sys.exit(main(["serve", "--port", "0", "--devices", "cpu", "--engine", "thread"]))
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "warming up\n"
            process.send_signal(signal.SIGINT)
            _, log = process.communicate(timeout=START_PATIENCE_S)
        finally:
            process.kill()
    assert (process.returncode, log.splitlines()[-1]) == (130, "packlight: interrupted")


def test_a_model_that_is_not_there_is_told_in_one_line() -> None:
    assert "nowhere" in refused(*THREAD, "--model", "./nowhere")


def test_a_port_that_is_taken_is_told_in_one_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        line = refused(*THREAD, "--port", port, "--log-level", "error")
    assert port in line


def test_a_server_answers_though_nothing_takes_its_log() -> None:
    command = [sys.executable, *REAL, *OPTIONS, *THREAD, "--hang-after-s", "3"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, pipesize=4096) as process:
        try:
            assert process.stderr
            before = iter(process.stderr.readline, "")
            ready = next(found for line in before if (found := re.search(r"ready on (\S+)", line)))
            with httpx.Client(base_url=ready[1], timeout=PATIENCE_S, trust_env=False) as http:
                for number in range(100):
                    assert http.get("/info", headers={"X-Request-ID": f"request-{number}"}).status_code == 200
            process.terminate()
            _, log = process.communicate(timeout=PATIENCE_S)
        finally:
            process.kill()
    assert re.findall(r"request_id=request-(\d+)", log) == [*map(str, range(100))]
    assert process.returncode == 0
