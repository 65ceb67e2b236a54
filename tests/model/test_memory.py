import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

# Threads hold memory of their own at once; says how many arenas that took beside the main one.
ARENAS = """
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

# Frees 100 MB in holes between blocks that stay. Says what the process has of it after each piece of work.
HOLES = """
import resource
from pathlib import Path
from model.memory import MemoryReturns
def resident_mb(): return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() >> 20
now_s = 0.0
memory = MemoryReturns(every_s=60.0, clock=lambda: now_s)
before_mb = resident_mb()
blocks = [bytearray(b"x" * 100_000) for _ in range(1000)]
stay = blocks[::10]
del blocks
for now_s in (59.0, 61.0):
    memory.work_done()
    print(resident_mb() - before_mb)
"""


def output_of(program: str, *arguments: str) -> list[int]:
    command = [sys.executable, "-c", program, *arguments]
    ended = subprocess.run(
        command, cwd=Path(__file__).parents[2], env={}, check=True, capture_output=True, text=True
    )  # fmt: skip
    return [int(number) for number in ended.stdout.split()]


def arenas(*cores: str) -> int:
    (count,) = output_of(ARENAS, *cores)
    return count


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
def test_threads_share_one_arena_a_core() -> None:
    if arenas() < 8:
        pytest.skip("this C library has no arena for each thread")
    assert arenas("4") <= 4
    assert arenas("1") <= 2


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
def test_holes_between_blocks_that_stay_are_given_back_when_they_are_due() -> None:
    if not hasattr(ctypes.CDLL(None), "malloc_trim"):
        pytest.skip("this C library gives nothing back")
    early_mb, due_mb = output_of(HOLES)
    assert early_mb > 80
    assert due_mb < 30
