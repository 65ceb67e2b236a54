"""What a process and those below it take together, while they change."""

import os
import subprocess
import sys
from typing import Any

import pytest
from prometheus_client import ProcessCollector

from service.process_usage import ProcessTree

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc, which only Linux has")

# Takes a fifth of a second of processor time, and then none.
BUSY = "import time\nwhile time.process_time() < 0.2: pass\nprint(flush=True)\ntime.sleep(1000)"


def cpu_s() -> float:
    (total,) = [each for each in ProcessTree(os.getpid()).collect() if each.name == "process_cpu_seconds"]
    return float(total.samples[0].value)


def test_processor_time_does_not_fall_when_a_process_ends_while_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    with subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.PIPE) as child:
        assert child.stdout
        child.stdout.readline()
        before_s = cpu_s()

        def ends_first(**given: Any) -> Any:
            """Its parent has been read by now."""
            if given["pid"]() == child.pid:
                child.kill()
                child.wait()
            return ProcessCollector(**given)

        monkeypatch.setattr("service.process_usage.ProcessCollector", ends_first)
        while_it_ends_s = cpu_s()
    assert child.returncode < 0
    assert before_s <= while_it_ends_s <= cpu_s()
