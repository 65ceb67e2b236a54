"""Servers that a benchmark starts."""

import os
import signal
import subprocess
import sys

import pytest

from tests.service.running import until

# Runs a server of the standard library, and says its process.
BENCHMARK = """
import sys, time
from loadtest.bench.servers.running import free_port, running
port = free_port()
with running([sys.executable, "-m", "http.server", str(port)], port=port, ready_path="/") as server:
    print(server.pid, flush=True)
    time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks the Linux kernel")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_benchmark_that_is_killed_leaves_no_server(number: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", BENCHMARK], stdout=subprocess.PIPE, text=True) as benchmark:
        assert benchmark.stdout is not None
        pid = int(benchmark.stdout.readline())
        benchmark.send_signal(number)
    until(lambda: not _runs(pid))


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
