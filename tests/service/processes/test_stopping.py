"""`packlight serve` in one process at SIGTERM. What takes longer to see is in `tests/process/test_one_process.py`."""

import signal
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from tests import pictures
from tests.process.server import running
from tests.service.running import raw_request, read_answer, until

# A square takes exactly the 256 tokens that an image may have by default.
PNG = pictures.save(pictures.picture(64, 64), "PNG")

# A whole server in a process of its own.
pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Stopped:
    """What became of a server at SIGTERM, and of its clients: queued and uploading are statuses of answers."""

    queued: list[int]
    uploading: int
    status: int
    log: str


@pytest.fixture(scope="module")
def stopped() -> Stopped:
    """At SIGTERM eight images are queued. A client is sending the ninth, which fills the pack, and one is idle."""
    # Half of an upload may take half of its time, and nothing else ends the wait: the machine may be slow.
    patience = ("--upload-timeout-ms", "600000", "--max-wait-ms", "300000", "--default-timeout-ms", "600000")
    options = ("--engine", "thread", "--max-batch-tokens", str(9 * 256), *patience)
    half = len(PNG) // 2
    with running(*options) as server, ExitStack() as stack:
        queued = [stack.enter_context(server.connect()) for _ in range(8)]
        uploading, idle = [stack.enter_context(server.connect()) for _ in range(2)]
        idle.sendall(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n")
        read_answer(idle)
        uploading.sendall(raw_request(PNG[:half], f"Content-Length: {len(PNG)}"))
        for connection in queued:
            connection.sendall(raw_request(PNG))
        until(lambda: server.metric("queue_images") == 8 and server.metric("inflight_bytes") == len(PNG))
        server.process.send_signal(signal.SIGTERM)
        until(lambda: not server.accepts())
        uploading.sendall(PNG[half:])
        statuses = [read_answer(connection)[0].status for connection in (*queued, uploading)]
        return Stopped(statuses[:8], statuses[8], server.wait(), server.log)


def test_what_was_accepted_before_sigterm_is_answered(stopped: Stopped) -> None:
    assert stopped.queued == [200] * 8


def test_an_upload_under_way_at_sigterm_is_answered(stopped: Stopped) -> None:
    assert stopped.uploading == 200


def test_a_server_that_is_told_to_stop_ends_with_status_0_though_a_connection_is_kept_alive(stopped: Stopped) -> None:
    assert stopped.status == 0
    assert "Traceback" not in stopped.log
    assert "ERROR" not in stopped.log
