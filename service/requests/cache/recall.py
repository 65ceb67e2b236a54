"""What one request finds of its pictures, and what it owes to other requests: pictures that it was the first to ask
for."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import TracebackType
from typing import Self

from model.errors import ModelError
from model.images.decode import DecodeMode
from model.sizing.budget import Budget
from model.sizing.geometry import Strategy
from service.engine.client import JobResult
from service.errors import EngineFault, Invalid, Unavailable
from service.metrics import CacheOutcome
from service.requests.admission.hold import Hold
from service.requests.cache.digests import digest_of
from service.requests.cache.flights import Lead
from service.requests.cache.pictures import SeenPictures
from service.requests.cache.seen import Seen
from service.requests.results import EmbeddedImage
from service.requests.steps import in_time

_NOBODY_WAITS = nullcontext()


class Recall:
    """Whatever ends the request ends its leads."""

    def __init__(
        self,
        pictures: SeenPictures | None,
        hold: Hold,
        decode: DecodeMode,
        bounds_of: Callable[[int], tuple[Strategy, Budget]],
    ) -> None:
        """pictures: None if nothing is remembered for this request. bounds_of: the strategy and the budget of an image
        by its index; raises `Invalid` where it can have none."""
        self._pictures, self._hold, self._decode, self._bounds_of = pictures, hold, decode, bounds_of
        self._leads: dict[int, Lead] = {}
        self._found = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for lead in self._leads.values():
            lead.end("abandoned")

    @property
    def remembers(self) -> bool:
        """False if nothing is remembered for this request."""
        return self._pictures is not None

    async def look(self, index: int) -> EmbeddedImage | Lead | None:
        """The image if it is remembered, whose bytes are then let go; or the lead of another that embeds it; or None:
        this request embeds it."""
        if self._pictures is None:
            return None
        began_s = time.monotonic()
        hold = self._hold
        if index not in hold.digests:
            hold.digests[index] = await digest_of(hold.images[index])
        try:
            key = self._pictures.key(hold.digests[index], self._decode, *self._bounds_of(index))
        except Invalid:  # as its plan will say
            return None
        known = self._pictures.find(key, bulk=hold.bulk)
        if isinstance(known, Lead):
            return known
        found: CacheOutcome = "hit"
        if known is None:
            lead = self._leads[index] = self._pictures.lead(key, bulk=hold.bulk)
            if (known := await self._pictures.fetch(key)) is None:
                return None
            found = "shared"
            lead.end(known)
        return self._known(index, known, found, began_s)

    async def wait(self, index: int, lead: Lead, deadline_s: float) -> EmbeddedImage | None:
        """The image that another request embeds. None if that came to nothing: this request embeds it. Raises
        `DeadlineExceeded`."""
        assert self._pictures is not None, "something was under way"
        began_s = time.monotonic()
        while True:
            match await in_time(lead.ending(), deadline_s):
                case Seen() as seen:
                    return self._known(index, seen, "joined", began_s)
                case "failed":
                    # Others that wait find the same fault, and none should wait for the next.
                    return None
            found = await self.look(index)
            if not isinstance(found, Lead):
                return found
            lead = found

    def embedding(self, index: int) -> AbstractContextManager[None]:
        """Tells those who wait if it comes to nothing, and whether the image or the engine is at fault."""
        lead = self._leads.get(index)
        return _NOBODY_WAITS if lead is None else _telling(lead)

    def give_up(self, index: int) -> None:
        """The image has no plan."""
        if lead := self._leads.get(index):
            lead.end("abandoned")

    def embedded(self, index: int, image: EmbeddedImage) -> None:
        """The image is embedded: it is remembered, and those who wait have it."""
        if self._pictures is None or not (lead := self._leads.get(index)):
            return
        seen = Seen.of(image.plan, image.result.pooled, repaired=image.repaired, format=image.format)
        self._pictures.keep(lead, seen)
        self._pictures.count("miss")
        lead.end(seen)

    def _known(self, index: int, seen: Seen, found: CacheOutcome, began_s: float) -> EmbeddedImage:
        assert self._pictures is not None
        self._pictures.count(found, seen)
        self._found += 1
        if self._hold.lookup is not None and self._found == len(self._hold.images):
            self._hold.lookup.found()
        self._hold.drop_image(index)
        result = JobResult(seen.pooled, None, time.monotonic() - began_s, 0.0, 0.0)
        return EmbeddedImage(seen.plan, result, 0.0, seen.repaired, format=seen.format, cached=True)


@contextmanager
def _telling(lead: Lead) -> Iterator[None]:
    try:
        yield
    except (ModelError, EngineFault, Unavailable):
        lead.end("failed")
        raise
    except BaseException:
        lead.end("abandoned")
        raise
