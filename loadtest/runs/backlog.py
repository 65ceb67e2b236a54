"""Does the server keep up? The slope of its latency, and how long it took for what it was sent. Pure.

An overloaded server that does `c` requests a second of `r` offered gains `r/c - 1` seconds of latency each second.
"""

import numpy as np

from loadtest.sending.records import Records

# A server falls behind if its latency grows by more than this many seconds each second.
FALLING_BEHIND = 0.04
# The part of a run that is left out of the slope: it starts with an empty server.
_SETTLING = 0.3


def latency_slope(records: Records) -> float:
    """Seconds of latency gained each second: least squares over the requests due after the settling time."""
    answered = records.where(records.ok)
    if len(answered) < 3:
        return 0.0
    first_s, last_s = float(answered.due_s.min()), float(answered.due_s.max())
    late = answered.where(answered.due_s >= first_s + _SETTLING * (last_s - first_s))
    spread = late.due_s - late.due_s.mean()
    if len(late) < 3 or not np.any(spread):
        return 0.0
    return float((spread * late.latency_ms).sum() / (spread**2).sum() / 1e3)


def taken_s(rows: Records, window_s: float, concurrency: int | None) -> float:
    """Seconds that the server took for the requests of a window that began at zero.

    In an open loop this is the window. If the server fell behind, it is the time until 99 % of the answers had come,
    scaled to all of them (one straggler must not count), less the shortest latency, which every answer has. In a closed
    loop it is the mean time that each of the `concurrency` places was busy.
    """
    answered = rows.where(rows.ok)
    if not len(answered):
        return window_s
    if concurrency is not None:
        return max(float(np.nansum(rows.done_s - rows.sent_s)) / concurrency, 1e-9)
    if latency_slope(answered) <= FALLING_BEHIND:
        return window_s
    fastest_s = float(answered.latency_ms.min()) / 1e3
    return max(window_s, float(np.percentile(answered.done_s, 99)) / 0.99 - fastest_s)
