"""The live display of a running load: a few lines that are redrawn on a terminal, or plain lines elsewhere.

It shows counts that others gather and measures nothing.
"""

import time
from collections import deque
from collections.abc import Callable
from typing import TextIO

import numpy as np

from loadtest.sending.sender import Tally

_BARS = "▁▂▃▄▅▆▇█"
_DRAW_EVERY_S, _SAY_EVERY_S, _WINDOW_S = 0.25, 10.0, 5.0
_UP_AND_CLEAR = "\x1b[{lines}A\x1b[J"


class Live:
    """Shows one run. Call it with each new tally; `close` it before writing anything else to the stream."""

    def __init__(
        self,
        stream: TextIO,
        *,
        title: str,
        duration_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = stream
        self._title = title
        self._duration_s = duration_s
        self._clock = clock
        self._started_s = clock()
        self._shown_s = float("-inf")
        self._recent: deque[tuple[float, list[float]]] = deque()
        self._history: list[float] = []
        self._drawn = 0
        self._redraws = stream.isatty()
        self._tally = Tally()

    def __call__(self, tally: Tally) -> None:
        now_s = self._clock() - self._started_s
        if tally.latencies_ms:
            self._recent.append((now_s, tally.latencies_ms))
        while self._recent and self._recent[0][0] < now_s - _WINDOW_S:
            self._recent.popleft()
        self._tally = tally
        if now_s - self._shown_s >= (_DRAW_EVERY_S if self._redraws else _SAY_EVERY_S):
            self._shown_s = now_s
            self._show(now_s)

    def close(self) -> None:
        if self._drawn:
            self._stream.write(_UP_AND_CLEAR.format(lines=self._drawn))
            self._stream.flush()
            self._drawn = 0

    def _show(self, now_s: float) -> None:
        latencies = [value for _, values in self._recent for value in values]
        p50, p99 = (float(v) for v in np.percentile(latencies, (50, 99))) if latencies else (0.0, 0.0)
        self._history = [*self._history, p99][-40:]
        lines = self._lines(now_s, p50, p99)
        self.close()
        self._stream.write("\n".join(lines if self._redraws else lines[:2]) + "\n")
        self._stream.flush()
        self._drawn = len(lines) if self._redraws else 0

    def _lines(self, now_s: float, p50: float, p99: float) -> list[str]:
        tally, done = self._tally, min(1.0, now_s / self._duration_s)
        rate = tally.answered / max(now_s, 1e-9)
        filled = round(done * 30)
        return [
            f"{self._title}  {'█' * filled}{'░' * (30 - filled)}  {min(now_s, self._duration_s):.0f} of "
            f"{self._duration_s:g} s",
            f"  {rate:.1f} answers/s   in flight {tally.in_flight}   errors {tally.errors}   unsent {tally.unsent}   "
            f"p50 {p50:,.0f} ms   p99 {p99:,.0f} ms",
            f"  p99 {sparkline(self._history)}",
        ]


def sparkline(values: list[float]) -> str:
    """Bars from zero to the largest value."""
    top = max(values, default=0.0) or 1.0
    return "".join(_BARS[min(7, int(value / top * 7.999))] for value in values)
