"""One request at a time over one connection, with pauses in which the server comes to rest.

A blocking socket: an event loop of the client's would add its own wake-ups to what is measured.
"""

import itertools
import re
import socket
import time
from collections.abc import Sequence

from loadtest.bench.clients.closed_loop import Answers

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_TIMING = re.compile(rb"\r\nserver-timing: *([^\r]+)", re.IGNORECASE)
_TIMEOUT_S = 60.0


def lone(port: int, requests: Sequence[bytes], *, seconds: float, pause_s: float) -> Answers:
    """requests: whole ones, sent in turn. Latencies are from before the first byte is sent until the last has come."""
    answers = Answers()
    end_s = time.perf_counter() + seconds
    with socket.create_connection(("127.0.0.1", port), timeout=_TIMEOUT_S) as connection:
        for request in itertools.cycle(requests):
            if time.perf_counter() >= end_s:
                return answers
            time.sleep(pause_s)
            sent_s = time.perf_counter()
            connection.sendall(request)
            head = _answered(connection)
            answers.answered_s.append(time.perf_counter())
            answers.latencies_s.append(answers.answered_s[-1] - sent_s)
            answers.failed += not head.startswith(b"HTTP/1.1 200")
            timing = _TIMING.search(head)
            answers.timings.append(timing[1].decode() if timing else "")
    return answers


def _answered(connection: socket.socket) -> bytes:
    """The head of an answer, whose body has come too. Raises `ConnectionError`."""
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += _received(connection)
    head, _, body = answer.partition(b"\r\n\r\n")
    length = _LENGTH.search(head)
    missing = (int(length[1]) if length else 0) - len(body)
    while missing > 0:
        missing -= len(_received(connection))
    return head


def _received(connection: socket.socket) -> bytes:
    if not (data := connection.recv(256 * 1024)):
        raise ConnectionError("the server closed the connection")
    return data
