"""Pictures under way: of several requests for one at a time, one embeds it and the others wait. For one event loop."""

import asyncio
from typing import Literal

from service.requests.cache.seen import Seen

Ending = Seen | Literal["abandoned", "failed"]
"""How a picture's way ended. abandoned: its request did, for a reason of its own, such as a client that left or a
deadline. failed: for a reason that others may share, such as a broken file."""


class Flights:
    """At most one lead for each key that is joined. An interactive request joins no bulk one, which may take long: its
    own lead stands in place of that."""

    def __init__(self) -> None:
        self._under_way: dict[bytes, Lead] = {}
        self._forgotten = 0

    def __len__(self) -> int:
        return len(self._under_way)

    def join(self, key: bytes, *, bulk: bool = False) -> "Lead | None":
        """The lead of a picture that is under way. bulk: the class of the request that would wait for it."""
        lead = self._under_way.get(key)
        return None if lead is not None and lead.bulk and not bulk else lead

    def lead(self, key: bytes, *, bulk: bool = False) -> "Lead":
        """The caller has to end it, whatever happens. bulk: the class of its request."""
        assert self.join(key, bulk=bulk) is None, "a picture has one lead"
        lead = self._under_way[key] = Lead(self, key, bulk=bulk)
        return lead

    def forget(self) -> None:
        """Nobody joins those under way any more. Whoever has joined is told how they end."""
        self._under_way.clear()
        self._forgotten += 1

    def _land(self, lead: "Lead") -> None:
        if self._under_way.get(lead.key) is lead:
            del self._under_way[lead.key]


class Lead:
    """The duty to embed a picture for all who ask for it meanwhile."""

    def __init__(self, flights: Flights, key: bytes, *, bulk: bool = False) -> None:
        self._flights, self.key, self.bulk = flights, key, bulk
        self._since = flights._forgotten
        self._ending: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()

    def end(self, ending: Ending) -> None:
        """Tells those who wait. The first ending counts."""
        if not self._ending.done():
            self._flights._land(self)
            self._ending.set_result(ending)

    @property
    def known(self) -> bool:
        """It has not ended, and was not forgotten. Another may stand in its place."""
        return not self._ending.done() and self._since == self._flights._forgotten

    async def ending(self) -> Ending:
        """What became of it. Cancelling the call leaves the others waiting."""
        return await asyncio.shield(self._ending)
