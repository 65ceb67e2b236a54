"""Pictures under way: of several requests for one at a time, one embeds it and the others wait. For one event loop."""

import asyncio
from typing import Literal

from service.requests.cache.seen import Seen

Ending = Seen | Literal["abandoned", "failed"]
"""How a picture's way ended. abandoned: its request did, for a reason of its own, such as a client that left or a
deadline. failed: for a reason that others may share, such as a broken file."""


class Flights:
    """At most one lead for each key."""

    def __init__(self) -> None:
        self._under_way: dict[bytes, Lead] = {}

    def __len__(self) -> int:
        return len(self._under_way)

    def join(self, key: bytes) -> "Lead | None":
        """The lead of a picture that is under way."""
        return self._under_way.get(key)

    def lead(self, key: bytes) -> "Lead":
        """The caller has to end it, whatever happens."""
        assert key not in self._under_way, "a picture has one lead"
        lead = self._under_way[key] = Lead(self, key)
        return lead

    def forget(self) -> None:
        """Nobody joins those under way any more. Whoever has joined is told how they end."""
        self._under_way.clear()

    def _land(self, lead: "Lead") -> None:
        if self._under_way.get(lead.key) is lead:
            del self._under_way[lead.key]


class Lead:
    """The duty to embed a picture for all who ask for it meanwhile."""

    def __init__(self, flights: Flights, key: bytes) -> None:
        self._flights, self.key = flights, key
        self._ending: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()

    def end(self, ending: Ending) -> None:
        """Tells those who wait. The first ending counts."""
        if not self._ending.done():
            self._flights._land(self)
            self._ending.set_result(ending)

    @property
    def known(self) -> bool:
        """It has not ended, and was not forgotten."""
        return self._flights.join(self.key) is self

    async def ending(self) -> Ending:
        """What became of it. Cancelling the call leaves the others waiting."""
        return await asyncio.shield(self._ending)
