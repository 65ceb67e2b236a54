import subprocess
import sys
from pathlib import Path

import pytest

# Threads hold memory of their own at once; says how many arenas that took beside the main one.
PROGRAM = """
import re, sys, threading
from pathlib import Path
from model.memory import limit_arenas
if sys.argv[1:]: limit_arenas(int(sys.argv[1]))
all_have, seen = threading.Barrier(9), threading.Barrier(9)
def hold():
    held = [bytes(60_000) for _ in range(20)]
    all_have.wait(), seen.wait()
threads = [threading.Thread(target=hold) for _ in range(8)]
for thread in threads: thread.start()
all_have.wait()
starts = re.findall(r"(?m)^([0-9a-f]+)-[0-9a-f]+ rw-p 0+ 00:00 0 *$", Path("/proc/self/maps").read_text())
print(sum(int(start, 16) % (64 << 20) == 0 for start in starts))
seen.wait()
"""


def arenas(*cores: str) -> int:
    command = [sys.executable, "-c", PROGRAM, *cores]
    ended = subprocess.run(
        command, cwd=Path(__file__).parents[2], env={}, check=True, capture_output=True, text=True
    )  # fmt: skip
    return int(ended.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
def test_threads_share_one_arena_a_core() -> None:
    if arenas() < 8:
        pytest.skip("this C library has no arena for each thread")
    assert arenas("4") <= 4
    assert arenas("1") <= 2
