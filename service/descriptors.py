"""File descriptors, of which a connection takes one: what the system allows, and a word in the log when they run short.

Without a free descriptor the event loop closes connections before this server hears of them, so some are kept spare.
"""

import logging
import os
import resource
import time
from collections.abc import Callable

# For what a running server opens beside connections: files of metrics, sockets to engines, connections it refuses.
_SPARE = 16
_LOG_EVERY_S = 60.0

_log = logging.getLogger(__name__)


class Descriptors:
    """The limit of this process, raised at its start as far as the system lets it."""

    def __init__(self, max_connections: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_connections, self._clock = max_connections, clock
        self._logged_s: float | None = None
        needed = len(os.listdir("/dev/fd")) + max_connections + _SPARE
        self.limit = _raised_limit(needed)
        if self.limit < needed:
            _log.warning(
                "at most %d files may be open (ulimit -n), and max_connections=%d needs %d: connections that find "
                "no room are refused with 503", self.limit, max_connections, needed,
            )  # fmt: skip

    def run_short(self, descriptor: int) -> bool:
        """Whether a connection with this descriptor is to be refused. Systems give the lowest free number."""
        if descriptor < self.limit - _SPARE:
            return False
        now_s = self._clock()
        if self._logged_s is None or now_s - self._logged_s >= _LOG_EVERY_S:
            self._logged_s = now_s
            _log.warning(
                "connections are refused: of %d files that may be open (ulimit -n) %d are left; "
                "raise the limit, or lower max_connections (%d)", self.limit, _SPARE, self._max_connections,
            )  # fmt: skip
        return True


def _raised_limit(needed: int) -> int:
    """The soft limit on open files, raised towards `needed` as far as the hard limit allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return needed
    if soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return soft
