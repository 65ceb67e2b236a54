"""What waits to be written to the shared store until the canary has passed: a wrong vector there would reach every
replica, and nothing calls it back."""

from collections import deque

# One process keeps so much. What does not fit is not written.
_MOST_BYTES = 32 * 1024**2


class Unproven:
    """For one event loop."""

    def __init__(self, *, most_bytes: int = _MOST_BYTES) -> None:
        self._waiting: deque[tuple[float, bytes, bytes]] = deque()
        self._most_bytes = most_bytes
        self.held_bytes = 0

    def add(self, now_s: float, key: bytes, value: bytes) -> bool:
        """False if there is no room for it. now_s: when it was computed, or later."""
        if self.held_bytes + len(value) > self._most_bytes:
            return False
        self._waiting.append((now_s, key, value))
        self.held_bytes += len(value)
        return True

    def proven(self, proven_s: float) -> list[tuple[bytes, bytes]]:
        """Takes out what was computed before `proven_s`."""
        found = []
        while self._waiting and self._waiting[0][0] < proven_s:
            _, key, value = self._waiting.popleft()
            self.held_bytes -= len(value)
            found.append((key, value))
        return found

    def clear(self) -> int:
        """Forgets all. Returns how many they were."""
        count, self.held_bytes = len(self._waiting), 0
        self._waiting.clear()
        return count
