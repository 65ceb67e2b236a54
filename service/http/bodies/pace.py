"""How a body may arrive: how many bytes it reserves ahead, and how fast it must come. Pure arithmetic.

Knows no clock and no connection: both bounds are functions of the bytes received so far.
"""

from dataclasses import dataclass

# Reserved for an upload before any byte of it has come.
FIRST_BYTES = 64 * 1024
# After that, an upload may reserve this many times what has come: to hold much, a client must send an eighth of it.
_AHEAD = 8
# Honest clients start slowly too.
_GRACE_S = 5.0


@dataclass(frozen=True, slots=True)
class Upload:
    """One body that is being received.

    announced_bytes: its Content-Length, or None. copies: how many copies of it exist while it is read. max_bytes: the
    most a body may have. max_held_bytes: the most that all bodies may reserve. timeout_s: the longest it may take.
    """

    announced_bytes: int | None
    copies: int
    max_bytes: int
    max_held_bytes: int
    timeout_s: float

    def held_bytes(self, received: int) -> int:
        """What to reserve once `received` bytes have come. Never less than those, and never less than before."""
        ahead = received
        if self.announced_bytes is not None:
            ahead = max(received, min(self.announced_bytes, max(FIRST_BYTES, _AHEAD * received)))
        return min(ahead * self.copies, max(received, self.max_held_bytes))

    def limit_s(self, received: int) -> float:
        """Seconds from its start after which an upload with no more than `received` bytes is given up.

        After a short grace, an upload must keep the even pace that would just bring it in time. A body of unknown
        length must keep the pace of one of `FIRST_BYTES`.
        """
        whole = min(FIRST_BYTES, self.max_bytes) if self.announced_bytes is None else self.announced_bytes
        due_s = self.timeout_s * min(1.0, received / whole) if whole else self.timeout_s
        return max(due_s, min(_GRACE_S, self.timeout_s / 4))
