"""The two classes of requests: how a caller names them, and how many tokens of each a queue takes. Pure."""

import math
import re
from typing import Any, Final, Literal, get_args

Priority = Literal["interactive", "bulk"]
"""interactive: somebody waits for the answer. bulk: it goes when there is time, and never not at all."""
PRIORITIES: Final[tuple[Priority, ...]] = get_args(Priority)
"""By whether it is bulk."""

PRIORITY_HEADER: Final = "X-Priority"
NAMES: Final = "interactive or bulk, or vLLM's integer: 0 and less is interactive, more is bulk"

# More digits than anybody means: an integer of 64 bits has 19.
_INTEGER = re.compile(r"[+-]?[0-9]{1,100}")
# After the last request of bulk, how long its part of the queue is kept for it.
_KEPT_S = 60.0


def named(priority: Any) -> Any:
    """The class that an integer stands for, where lower is earlier and 0 is usual; anything else as it is."""
    if isinstance(priority, str) and _INTEGER.fullmatch(priority):
        priority = int(priority)
    if isinstance(priority, int) and not isinstance(priority, bool):
        return PRIORITIES[priority > 0]
    return priority


class Backlog:
    """The tokens of requests that are admitted and not yet answered, and how many more may be.

    Bulk cannot have all of the queue: a share is left to interactive requests. Those can have it all, but for what bulk
    has, and while bulk requests come for a part that is kept for them: a full queue would let in hardly any.
    """

    def __init__(self, max_tokens: int, *, interactive_share: float, bulk_share: float) -> None:
        self._max_tokens = max_tokens
        self._most_bulk = max_tokens - int(interactive_share * max_tokens)
        self._kept = min(int(bulk_share * max_tokens), self._most_bulk)
        self._kept_until_s = -math.inf
        self._held = [0, 0]

    @property
    def tokens(self) -> int:
        return sum(self._held)

    def held(self, *, bulk: bool) -> int:
        return self._held[bulk]

    def asked_for_bulk(self, now_s: float) -> None:
        """A bulk request has come."""
        self._kept_until_s = now_s + _KEPT_S

    def most(self, now_s: float, *, bulk: bool) -> int:
        """How many tokens of a class there may be now."""
        if bulk:
            return min(self._most_bulk, self._max_tokens - self._held[False])
        # Otherwise a request for most of an empty queue would be told to come again for as long as bulk comes.
        kept = self._kept if self._held[False] and now_s < self._kept_until_s else 0
        return self._max_tokens - max(self._held[True], kept)

    def ever(self, *, bulk: bool) -> int:
        """How many tokens of a class there may be at most."""
        return self._most_bulk if bulk else self._max_tokens

    def change(self, tokens: int, *, bulk: bool) -> None:
        self._held[bulk] += tokens
        assert self._held[bulk] >= 0, f"{self._held} tokens admitted"
        assert self.tokens <= self._max_tokens, f"{self._held} tokens admitted of {self._max_tokens}"
