"""The store that replicas share: Redis or Valkey. It may be slow or away; then requests go on without it.

One task has the only connection. It asks for all keys that wait in one command, and writes what is to be written.
"""

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterable
from contextvars import Context
from typing import Final

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from service.metrics import StoreOutcome
from service.watching.tasks import how_failed

# How long a store that failed is left alone.
_PAUSE_S = 1.0
# How long a connection may take with its greetings. No request waits for it longer than for an answer.
_CONNECT_S = 1.0
# The connection is closed after so long without a request.
_IDLE_S = 60.0
_MOST_WAITING: Final = 1024
_PREFIX: Final = b"packlight:1:"

_log = logging.getLogger(__name__)


class SharedStore:
    """Keeps bytes by keys for `ttl_s`. No call raises, or takes longer than `timeout_s`. For one event loop."""

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float,
        ttl_s: int,
        count: Callable[[StoreOutcome], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """url: checked by the settings. count: is told what became of each key."""
        self._url, self._timeout_s, self._ttl_s = url, timeout_s, ttl_s
        self._count, self._clock = count, clock
        self._gets: dict[bytes, asyncio.Future[bytes | None]] = {}
        self._sets: dict[bytes, bytes] = {}
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._away_until_s = 0.0
        # When the exchange under way began.
        self._began_s = math.inf
        self._connected = self._failing = False

    async def get(self, key: bytes) -> bytes | None:
        """None if the store does not have it, or does not answer in time."""
        if self._takes_none:
            self._count("skipped")
            return None
        if key not in self._gets:
            self._gets[key] = asyncio.get_running_loop().create_future()
        answer = self._gets[key]
        self._go_on()
        try:
            async with asyncio.timeout(self._timeout_s):
                found = await asyncio.shield(answer)
        except (TimeoutError, RedisError):
            self._count("failed")
            return None
        self._count("missing" if found is None else "found")
        return found

    def put(self, key: bytes, value: bytes) -> None:
        """Writes it soon, if the store can take it."""
        if self._takes_none:
            self._count("not_written")
            return
        self._sets[key] = value
        self._go_on()

    def _go_on(self) -> None:
        self._wake.set()
        if self._task is None or self._task.done():
            if self._task and (why := how_failed(self._task)):
                _log.error("%s; another takes its place", why)
            # It belongs to no request: it outlives the one that begins it.
            self._task = asyncio.create_task(self._run(), name="shared cache", context=Context())

    @property
    def _takes_none(self) -> bool:
        """It has just failed, is late with an answer, or too many wait."""
        now_s = self._clock()
        late = now_s - self._began_s > self._timeout_s
        return late or now_s < self._away_until_s or max(len(self._gets), len(self._sets)) >= _MOST_WAITING

    def _pause(self, why: str) -> None:
        self._connected, self._away_until_s = False, self._clock() + _PAUSE_S
        if not self._failing:
            _log.warning("the shared cache fails, and requests go on without it: %s (cache_url)", why)
        self._failing = True

    async def _run(self) -> None:
        """Until nothing has been asked for a while, or the server stops."""
        client = _client(self._url)
        self._connected = False
        try:
            while await self._asked():
                gets, self._gets = self._gets, {}
                sets, self._sets = self._sets, {}
                await self._exchange(client, gets, sets)
            # What is asked while the connection closes begins another task.
            self._task = None
        finally:
            gets, self._gets = self._gets, {}
            _give_up(gets.values())
            await client.aclose()

    async def _asked(self) -> bool:
        """Waits for a request. False if none comes for a while."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_IDLE_S):
                await self._wake.wait()
        asked = self._wake.is_set()
        self._wake.clear()
        return asked

    async def _exchange(
        self, client: Redis, gets: dict[bytes, "asyncio.Future[bytes | None]"], sets: dict[bytes, bytes]
    ) -> None:
        written, self._began_s = 0, self._clock()
        try:
            async with asyncio.timeout(self._timeout_s if self._connected else _CONNECT_S):
                if gets:
                    values = await client.mget([_PREFIX + key for key in gets])
                    for answer, value in zip(gets.values(), _checked(values, len(gets)), strict=True):
                        answer.set_result(value)
                if sets:
                    async with client.pipeline(transaction=False) as pipeline:
                        for key, value in sets.items():
                            pipeline.set(_PREFIX + key, value, ex=self._ttl_s)
                        await pipeline.execute()
                    written = len(sets)
            self._connected, self._failing = True, False
        except Exception as error:
            # The client raises many kinds for what is no Redis. What it has read of that must not be read on.
            late = "no answer within cache_timeout_ms"
            self._pause(late if isinstance(error, TimeoutError) else type(error).__name__)
            await client.connection_pool.disconnect()
        finally:
            self._began_s = math.inf
            _give_up(gets.values())
            for number in range(len(sets)):
                self._count("written" if number < written else "not_written")


def _checked(values: object, count: int) -> list[bytes | None]:
    """Raises `ValueError` for what Redis would not answer."""
    if isinstance(values, list) and len(values) == count:
        found = [value for value in values if value is None or isinstance(value, bytes)]
        if len(found) == count:
            return found
    raise ValueError("not what MGET answers")


def _give_up(answers: Iterable["asyncio.Future[bytes | None]"]) -> None:
    for answer in answers:
        if not answer.done():
            answer.set_exception(RedisError("the store did not answer"))
            answer.exception()  # nobody may be waiting any more


def _client(url: str) -> Redis:
    scheme, _, rest = url.partition("://")
    return Redis.from_url(
        f"{scheme.replace('valkey', 'redis')}://{rest}",
        socket_timeout=_CONNECT_S,
        socket_connect_timeout=_CONNECT_S,
        retry=Retry(NoBackoff(), 0),
    )
