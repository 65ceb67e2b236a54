"""The contender's end of `forwards.process`: it says that it is ready, and times a forward whenever it is asked.

It needs NumPy alone, since it also runs in the environments of other makers' engines.
"""

import ctypes
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

# A forward is repeated for at least this long: a single short one would be noise.
_AT_LEAST_S = 0.3

Clock = Callable[[], float]
Forward = Callable[[], NDArray[np.float32]]

CLOCKS: dict[str, Clock] = {"wall": time.perf_counter, "processor": time.process_time}


def answer_rounds(forward: Forward, clock: str, answer: str, *, computed_rows: Callable[[], int] = lambda: 0) -> None:
    """Writes the vectors of a first forward to the file `answer`, and times forwards for as long as the parent asks.

    computed_rows: how many rows of tokens and padding a forward computes, asked after the first; 0 if unknown.
    """
    ctypes.CDLL(None).malloc_trim(0)  # Freed memory would hide what forwards take.
    resident = memory_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # Resets the peak.
    np.save(answer, forward())
    answer_times(lambda: _repeated(forward, CLOCKS[clock]), resident, computed_rows=computed_rows())


def answer_times(measured: Callable[[], float], resident_bytes: int, *, computed_rows: int = 0) -> None:
    """The same for what has no vectors. measured: seconds. resident_bytes: what the process held before."""
    _say({"ready": True, "computed_rows": computed_rows})
    for _ in sys.stdin:
        _say({"seconds": measured()})
    _say({"peak_bytes": memory_bytes("VmHWM") - resident_bytes})


def seconds(call: Callable[[], object], clock: Clock) -> float:
    start = clock()
    call()
    return clock() - start


def memory_bytes(field: str) -> int:
    """A field of this process's status, such as `VmRSS`."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(f"{field}:"))


def _repeated(forward: Forward, clock: Clock) -> float:
    """The median time of forwards that fill `_AT_LEAST_S`."""
    taken: list[float] = []
    total_s = 0.0
    while total_s < _AT_LEAST_S:
        taken.append(seconds(forward, clock))
        total_s += taken[-1]
    return statistics.median(taken)


def _say(message: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()
