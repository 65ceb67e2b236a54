"""The bytes of bodies and answers that a process holds, bounded. It measures how fast they leave.

Nothing waits here. What does not fit is refused at once, with the time after which it would fit.
"""

import math
import time
from collections.abc import Callable

from service.errors import Overloaded


class InflightBytes:
    """A count of bytes that new bodies may not bring over a limit. For one event loop."""

    def __init__(
        self,
        most: int,
        *,
        upload_timeout_s: float,
        on_change: Callable[[int], None] = lambda held: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """on_change: is told of every new count."""
        self._most, self._upload_timeout_s, self._on_change = most, upload_timeout_s, on_change
        self._outflow = _Outflow(clock)
        self.held = 0

    def retry_after_s(self, size: int) -> int:
        """Seconds until `size` bytes would fit if no new body came, at least 1. At most the upload timeout, by when
        every upload has ended."""
        rate = self._outflow.bytes_per_s()
        excess = self.held + size - self._most
        seconds = min(excess / rate, self._upload_timeout_s) if rate else 1
        return max(1, math.ceil(seconds))

    def check(self, size: int, *, left: int = 0) -> None:
        """Raises `Overloaded` if `size` bytes more do not fit. left: so many have to stay free behind them, unless
        nothing else is held."""
        most = self._most - (left if self.held else 0)
        if self.held + size > most:
            names = "max_inflight_bytes, interactive_queue_share" if left else "max_inflight_bytes"
            raise Overloaded(
                f"overloaded: {self.held} bytes of bodies are held, of at most {most} ({names})",
                retry_after_s=self.retry_after_s(size + left),
                reason="bytes_in_flight",
            )

    def take(self, size: int, *, left: int = 0) -> None:
        """Raises `Overloaded` as `check`."""
        self.check(size, left=left)
        self._set(self.held + size)

    def charge(self, size: int) -> None:
        """Counts bytes that are held already, even over the limit, which then admits no further body."""
        self._set(self.held + size)

    def give_back(self, size: int) -> None:
        self._set(self.held - size)

    def _set(self, held: int) -> None:
        assert held >= 0, f"{held} bytes in flight"
        self._outflow.note(self.held, held)
        self.held = held
        self._on_change(held)


class _Outflow:
    """Measures bytes given back per second, while any are held, over about half a minute."""

    _SPAN_S = 20.0

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._since_s = clock()
        self._given_back = 0.0

    def note(self, before: int, after: int) -> None:
        """The bytes held change."""
        if not before:
            self._since_s, self._given_back = self._clock(), 0.0
        self._given_back += max(0, before - after)

    def bytes_per_s(self) -> float:
        """0 if nothing has been given back yet."""
        now_s = self._clock()
        if now_s - self._since_s > self._SPAN_S:
            # Older bytes count half.
            self._given_back *= self._SPAN_S / 2 / (now_s - self._since_s)
            self._since_s = now_s - self._SPAN_S / 2
        return self._given_back / (now_s - self._since_s) if now_s > self._since_s else 0.0
