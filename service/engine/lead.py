"""How long before the device is free its next pack is chosen: pure arithmetic.

Choosing it later lets more images in; choosing it too late leaves the device idle.
"""

from collections import deque

# The slowest of so many recent packs counts: a pack that comes a little too early costs less than an idle device.
_RECENT_PACKS = 8
# Choosing and submitting an empty pack would take as long as gathering so many tokens.
_BASE_TOKENS = 1024
# A thread that waits is woken up to this much late.
_WAKE_S = 0.0005


class Lead:
    """Follows how long submitting packs takes the host. One thread calls it."""

    def __init__(self) -> None:
        self._seconds_a_token: deque[float] = deque(maxlen=_RECENT_PACKS)

    def observe(self, tokens: int, seconds: float) -> None:
        """A pack took the host so long."""
        self._seconds_a_token.append(seconds / (tokens + _BASE_TOKENS))

    def seconds(self, tokens: int) -> float:
        """For a pack of so many tokens."""
        return max(self._seconds_a_token, default=0.0) * (tokens + _BASE_TOKENS) + _WAKE_S
