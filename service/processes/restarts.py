"""When a process that has died is started again: pure policy, no clock."""

_FIRST_DELAY_S = 0.5
_LONGEST_DELAY_S = 30.0


class Restarts:
    """At once where the process had done its work since it was last started; else later and later."""

    def __init__(self) -> None:
        self._useless_starts = 0

    def delay_s(self, *, was_useful: bool) -> float:
        """Seconds to wait before the next start."""
        if was_useful:
            self._useless_starts = 0
            return 0.0
        delay_s: float = min(_FIRST_DELAY_S * 2**self._useless_starts, _LONGEST_DELAY_S)
        self._useless_starts += 1
        return delay_s
