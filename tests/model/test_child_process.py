"""The processes below another, while it changes."""

import os
import signal
import subprocess
import sys
from select import select

import pytest

from model.child_process import children_of, process_tree

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc, which only Linux has")

# A thread of it has a child, which has a child. The threads that were started before it end, the last one first.
RESTLESS = """
import subprocess, sys, threading, time
sleeper = "import time; print(flush=True); time.sleep(1000)"
below = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {sleeper!r}])"
waits = [threading.Event() for _ in range(400)]
for wait in waits: threading.Thread(target=wait.wait).start()

def have_a_child():
    with subprocess.Popen([sys.executable, "-c", below], stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        print(child.pid, flush=True)

threading.Thread(target=have_a_child).start()
sys.stdin.readline()
for wait in reversed(waits): wait.set(); time.sleep(0.001)
print(flush=True)
"""


def test_children_are_found_whichever_threads_end_meanwhile() -> None:
    command = [sys.executable, "-c", RESTLESS]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as restless:
        assert restless.stdin
        assert restless.stdout
        below: list[int] = []
        try:
            child = int(restless.stdout.readline())
            below = process_tree(restless.pid)[1:]
            assert below[0] == child
            assert len(below) == 2
            restless.stdin.write("\n")
            restless.stdin.flush()
            while not select([restless.stdout], [], [], 0)[0]:
                assert children_of(restless.pid) == [child]
                assert process_tree(restless.pid) == [restless.pid, *below]
        finally:
            for pid in [restless.pid, *below]:
                os.kill(pid, signal.SIGKILL)
    assert children_of(restless.pid) == []
    assert process_tree(restless.pid) == [restless.pid]
