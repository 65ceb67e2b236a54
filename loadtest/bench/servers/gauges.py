"""A server's gauges now, and their maximum: queue and bytes in flight."""

import asyncio
import re
from collections import Counter
from typing import Any

import aiohttp

_GAUGE = re.compile(r"^packlight_(queue_tokens|queue_images|inflight_bytes) (\S+)$", re.MULTILINE)

# Reading /metrics costs a server of several processes ten milliseconds: once a second would disturb the measurement.
_EVERY_S = 5.0


class Gauges:
    """Reads `/metrics` and `/info` over a connection of its own."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._session: aiohttp.ClientSession
        self._most: Counter[str] = Counter()

    async def __aenter__(self) -> "Gauges":
        self._session = aiohttp.ClientSession()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def watch(self) -> None:
        while True:
            for name, value in (await self.read()).items():
                self._most[name] = max(self._most[name], round(value))
            await asyncio.sleep(_EVERY_S)

    async def read(self) -> dict[str, float]:
        async with self._session.get(self._url + "/metrics") as response:
            text = await response.text()
        return {name: float(value) for name, value in _GAUGE.findall(text)}

    async def queue_tokens(self) -> float:
        return (await self.read())["queue_tokens"]

    async def max_queue_tokens(self) -> int:
        async with self._session.get(self._url + "/info") as response:
            info: dict[str, Any] = await response.json()
        return int(info["limits"]["max_queue_tokens"])

    def most(self) -> dict[str, object]:
        return dict(self._most)
