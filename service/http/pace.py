"""How a body may arrive: how much of it is held before it is there, and how fast it has to come. Pure arithmetic.

Knows no clock and no connection: both bounds are functions of the bytes received so far.
"""

from dataclasses import dataclass

# What an upload is given on its word alone.
FIRST_BYTES = 64 * 1024
# After that, how many times what has arrived an upload may hold. Holding much costs a client an eighth of it.
_AHEAD = 8
# Starting up is slow for honest clients too.
_GRACE_S = 5.0


@dataclass(frozen=True, slots=True)
class Upload:
    """One body under way.

    announced_bytes: by its Content-Length, or None. copies: how many times over it is held while it is read.
    max_bytes: the most a body may have. max_held_bytes: the most that may be held at all. timeout_s: the most it may
    take.
    """

    announced_bytes: int | None
    copies: int
    max_bytes: int
    max_held_bytes: int
    timeout_s: float

    def held_bytes(self, received: int) -> int:
        """What is to be held once `received` bytes are there: no less than them, and never less than before."""
        ahead = received
        if self.announced_bytes is not None:
            ahead = max(received, min(self.announced_bytes, max(FIRST_BYTES, _AHEAD * received)))
        return min(ahead * self.copies, max(received, self.max_held_bytes))

    def limit_s(self, received: int) -> float:
        """Seconds from its start after which an upload that has brought no more than `received` bytes is given up.

        After a short grace that is when it falls behind the even pace at which all of it would just be in time. A body
        of unknown length is held to the pace of one of `FIRST_BYTES`.
        """
        whole = min(FIRST_BYTES, self.max_bytes) if self.announced_bytes is None else self.announced_bytes
        due_s = self.timeout_s * min(1.0, received / whole) if whole else self.timeout_s
        return max(due_s, min(_GRACE_S, self.timeout_s / 4))
