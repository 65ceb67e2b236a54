"""The pictures seen, as requests ask for them: which are known, which are under way, and which the caller embeds."""

import hashlib
import importlib.metadata
import math
import time
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Self

import PIL

from model.images.decode import DecodeMode
from model.sizing.budget import Budget
from model.sizing.geometry import Strategy
from service.engine.client import EngineClient
from service.limits import ModelFacts
from service.metrics import CacheOutcome, Metrics
from service.requests.cache.flights import Flights, Lead
from service.requests.cache.seen import Seen, packed, unpacked
from service.requests.cache.unproven import Unproven
from service.settings.names import SettingsError
from service.settings.settings import Settings

if TYPE_CHECKING:
    from service.requests.cache.memory import Memory
    from service.requests.cache.store import SharedStore


class SeenPictures:
    """Remembers pictures for one application, which has one model for its life."""

    def __init__(self, client: EngineClient, memory: "Memory", metrics: Metrics, store: "SharedStore | None") -> None:
        self._client, self._memory, self._metrics, self._store = client, memory, metrics, store
        self._flights, self._unproven = Flights(), Unproven()
        self._doubts = client.trust.doubts
        self._space = lru_cache(maxsize=256)(partial(_space, _made_with(client.model), client.model))
        metrics.cache_bytes.set(0)

    @classmethod
    def of(cls, settings: Settings, client: EngineClient, metrics: Metrics) -> Self | None:
        """None if the settings ask for none. Raises `SettingsError` if a package is missing."""
        url = settings.cache_url
        if not settings.cache_bytes and url is None:
            return None
        from service.requests.cache.memory import Memory

        store = None
        if url is not None:
            try:
                from service.requests.cache.store import SharedStore
            except ImportError:
                raise SettingsError("cache_url needs the package redis: pip install 'packlight[cache]'") from None
            store = SharedStore(
                url.get_secret_value(),
                timeout_s=settings.cache_timeout_ms / 1000,
                ttl_s=settings.cache_ttl_s,
                count=lambda outcome: metrics.cache_store.labels(outcome).inc(),
            )
        return cls(client, Memory(settings.cache_bytes), metrics, store)

    def knows_any(self) -> bool:
        """Whether a picture can be found now, here or in the store."""
        return self._store is not None or self._memory.held_bytes > 0

    def key(self, digest: bytes, decode: DecodeMode, strategy: Strategy, budget: Budget) -> bytes:
        """Stands for the bytes of a picture and all that shapes its vector. How vectors are written, as by dimensions,
        is no part of it."""
        return digest + self._space(decode, strategy, budget)

    def find(self, key: bytes, *, bulk: bool = False) -> Seen | Lead | None:
        """A picture that this process remembers; or the lead of one that is under way, to wait for; or None. bulk: the
        class of the request that asks."""
        self._heed_canary()
        return self._memory.get(key) or self._flights.join(key, bulk=bulk)

    def lead(self, key: bytes, *, bulk: bool = False) -> Lead:
        """The caller embeds it, and ends the lead in every case."""
        return self._flights.lead(key, bulk=bulk)

    async def fetch(self, key: bytes) -> Seen | None:
        """The picture from the shared store, if there is one and it has it."""
        if self._store is None or (data := await self._store.get(key)) is None:
            return None
        seen = unpacked(key, data, dim=self._client.model.dim)
        if seen is not None:
            self._remember(key, seen)
        return seen

    def keep(self, lead: Lead, seen: Seen) -> None:
        """Remembers a picture that was embedded, unless all was forgotten meanwhile. The store gets it once the canary
        has passed."""
        self._heed_canary()
        if not lead.known:
            return
        self._remember(lead.key, seen)
        if self._store is None:
            return
        value = packed(lead.key, seen)
        if self._client.trust.proven_s == math.inf:  # nobody watches
            self._store.put(lead.key, value)
        elif not self._unproven.add(time.monotonic(), lead.key, value):
            self._metrics.cache_store.labels("not_written").inc()

    def _heed_canary(self) -> None:
        """Forgets all if a canary has failed, and lets the store have what was computed before one has passed."""
        trust = self._client.trust
        if trust.doubts != self._doubts:
            self._doubts = trust.doubts
            self.clear()
        elif self._store is not None:
            for key, value in self._unproven.proven(trust.proven_s):
                self._store.put(key, value)

    def clear(self) -> None:
        """Forgets all pictures, and those under way: they are answered, and not remembered. For when vectors turn out
        to be wrong. The shared store keeps what it has."""
        self._memory.clear()
        self._flights.forget()
        self._metrics.cache_store.labels("not_written").inc(self._unproven.clear())
        self._metrics.cache_bytes.set(0)

    def count(self, found: CacheOutcome, seen: Seen | None = None) -> None:
        """Counts an answered picture."""
        self._metrics.cache_images.labels(found).inc()
        if seen is not None:
            self._metrics.cache_saved_tokens.inc(seen.plan.tokens)

    def _remember(self, key: bytes, seen: Seen) -> None:
        self._memory.put(key, seen)
        self._metrics.cache_bytes.set(self._memory.held_bytes)


def _made_with(model: ModelFacts) -> str:
    """What shapes every vector of an application: the model, its device, and the versions of what decodes."""
    versions = importlib.metadata.version("packlight"), PIL.__version__
    device = model.device.partition(":")[0], model.dtype, model.attention
    return repr((versions, model.name, model.dim, model.pooling, device, model.geometry))


def _space(made_with: str, model: ModelFacts, decode: DecodeMode, strategy: Strategy, budget: Budget) -> bytes:
    """16 bytes of what shapes a vector beside the picture's bytes."""
    named = repr((made_with, model.fingerprint_of(decode), strategy, budget))
    return hashlib.sha256(named.encode("utf-8", "surrogatepass")).digest()[:16]
