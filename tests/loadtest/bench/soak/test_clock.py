"""A clock that is set under a process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from loadtest.bench.soak.clock import Clock

# Says both clocks at each line that it gets.
PROGRAM = "import sys, time\nfor _ in sys.stdin: print(time.time(), time.monotonic(), flush=True)"
COMPILER = Clock.compiler()


@pytest.mark.skipif(COMPILER is None, reason="needs a C compiler")
@pytest.mark.skipif(sys.platform != "linux", reason="replaces functions of the C library")
def test_a_set_clock_moves_the_time_of_day_and_nothing_that_counts(tmp_path: Path) -> None:
    assert COMPILER is not None
    clock = Clock(COMPILER, tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], env={**os.environ, **clock.environment}, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdin
        assert process.stdout
        said = []
        for ahead_s in (0, 3600, -3600):
            clock.set(ahead_s)
            process.stdin.write("now\n")
            process.stdin.flush()
            said.append([float(word) for word in process.stdout.readline().split()])
        process.stdin.close()
    (day, count), (later_day, later_count), (earlier_day, last_count) = said
    assert later_day - day == pytest.approx(3600, abs=60)
    assert earlier_day - day == pytest.approx(-3600, abs=60)
    assert 0 <= later_count - count < 60
    assert 0 <= last_count - later_count < 60
