"""A wall clock that can be set, for the processes of one server alone.

A few lines of C, compiled here and loaded before the C library, move what `clock_gettime`, `gettimeofday` and `time`
say of the wall clock. Clocks that only count stay as they are, and so do the times of files. `libfaketime` does that
too, but it takes over the waits of threads as well: a change of threads in Python then costs half a millisecond.
"""

import mmap
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

_SECONDS_BYTES = 8
_SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>

static volatile const long long *ahead_s;
static int (*true_clock)(clockid_t, struct timespec *);

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("SOAK_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *found = file >= 0 ? mmap(0, 8, PROT_READ, MAP_SHARED, file, 0) : MAP_FAILED;
    if (found != MAP_FAILED) ahead_s = found;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    if (!true_clock) true_clock = dlsym(RTLD_NEXT, "clock_gettime");
    int failed = true_clock(clock, now);
    if (!failed && ahead_s && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += *ahead_s;
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *now) {
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    if (now) *now = exact.tv_sec;
    return exact.tv_sec;
}
"""


class Clock:
    """Right at first."""

    def __init__(self, compiler: str, folder: Path) -> None:
        """folder: where its files are. Raises `subprocess.CalledProcessError` if nothing can be compiled."""
        source, self._library, self._file = folder / "clock.c", folder / "clock.so", folder / "clock"
        source.write_text(_SOURCE, encoding="ascii")
        command = [compiler, "-shared", "-fPIC", "-O2", str(source), "-o", str(self._library), "-ldl"]
        subprocess.run(command, check=True, capture_output=True)
        self._file.write_bytes(bytes(_SECONDS_BYTES))

    @staticmethod
    def compiler() -> str | None:
        return shutil.which("cc")

    @property
    def environment(self) -> Mapping[str, str]:
        """What the processes that have this clock are started with."""
        return {"LD_PRELOAD": str(self._library), "SOAK_CLOCK": str(self._file)}

    def set(self, ahead_s: int) -> None:
        """From now on the processes are so much ahead of the time, or behind it."""
        with open(self._file, "r+b") as file, mmap.mmap(file.fileno(), _SECONDS_BYTES) as shared:
            shared[:] = ahead_s.to_bytes(_SECONDS_BYTES, "little", signed=True)
