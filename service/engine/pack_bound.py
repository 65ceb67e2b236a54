"""How many tokens a pack may hold after packs ran out of memory: pure policy.

One such pack changes nothing: another program may have held the memory for a moment. A second one within
`RECOVERY_S` lowers the bound to three quarters of what did not fit. Each `RECOVERY_S` without one raises it by a third,
up to the limit. A limit that is too high for good costs one or two failed packs in that time.
"""

RECOVERY_S = 600.0


class PackBound:
    """Between `least` and `most` tokens. Times are seconds of one monotonic clock."""

    def __init__(self, most: int, *, least: int) -> None:
        self._most, self._least = most, least
        self._lowered = most
        self._last_fault_s: float | None = None

    def tokens(self, now_s: float) -> int:
        """The bound at `now_s`."""
        tokens = self._lowered
        if self._last_fault_s is not None:
            for _ in range(int((now_s - self._last_fault_s) / RECOVERY_S)):
                if tokens >= self._most:
                    break
                tokens += -(-tokens // 3)
        return min(tokens, self._most)

    def out_of_memory(self, tokens: int, now_s: float) -> bool:
        """A pack of `tokens` ran out of memory. True if that lowers the bound."""
        before = bound = self.tokens(now_s)
        if self._last_fault_s is not None and now_s - self._last_fault_s < RECOVERY_S:
            bound = min(bound, max(self._least, tokens * 3 // 4))
        self._lowered, self._last_fault_s = bound, now_s
        return bound < before
