"""File descriptors: how many there may be, when too few are left for another connection, and what the log says then.

Without a free descriptor the event loop closes new connections silently, so some are kept spare to refuse them with.
"""

import logging
import os
import resource
import sys
import time
from collections.abc import Callable
from contextlib import suppress

# What a server opens after its start and keeps: the event loop's own, sockets to engines, files of metrics.
_OWN = 32
# What it opens for a moment: files of metrics that it reads, connections that it refuses.
_SPARE = 16
_LOG_EVERY_S = 60.0

_log = logging.getLogger(__name__)


class Descriptors:
    """This process's limit. Making the object raises it as far as the system allows."""

    def __init__(
        self,
        max_connections: int,
        *,
        processes: int = 0,
        reserved: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """processes: that decode images for this one, each of which takes a descriptor. reserved: connections that
        there may be for a moment beside the others."""
        self._max_connections, self._clock = max_connections, clock
        self._logged_s: float | None = None
        needed = len(os.listdir("/dev/fd")) + _OWN + processes + max_connections + reserved + _SPARE
        self.limit = _raised_limit(needed)
        if self.limit < needed:
            _log.warning(
                "at most %d files may be open (ulimit -n), and max_connections=%d needs %d: connections that find "
                "no room are refused with 503", self.limit, max_connections, needed,
            )  # fmt: skip

    def run_short(self, descriptor: int) -> bool:
        """Whether a connection with this descriptor is one too many: a system gives the lowest free number."""
        return descriptor >= self.limit - _SPARE

    def spent(self, descriptor: int) -> bool:
        """Whether not even a connection for a moment may have this descriptor."""
        return descriptor >= self.limit - _SPARE // 2

    def warn(self, descriptor: int) -> None:
        """Says in the log, once in a while, why a connection with this descriptor is refused."""
        now_s = self._clock()
        if self._logged_s is not None and now_s - self._logged_s < _LOG_EVERY_S:
            return
        self._logged_s = now_s
        if self.run_short(descriptor):
            _log.warning(
                "connections are refused: of %d files that may be open (ulimit -n) %d are left; "
                "raise the limit, or lower max_connections (%d)", self.limit, _SPARE, self._max_connections,
            )  # fmt: skip
        else:
            _log.warning(
                "connections are refused: there are %d, the most there may be; raise max_connections, or have clients "
                "keep fewer", self._max_connections,
            )  # fmt: skip


def _raised_limit(needed: int) -> int:
    """The soft limit on open files, raised towards `needed` as far as the hard limit allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return sys.maxsize
    wanted = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if soft < wanted:
        # macOS refuses what is over a limit of the kernel's.
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            return wanted
    return soft
