"""Many clients at once, and what each got."""

import asyncio
import itertools
import re
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO

import aiohttp
import httpx
import numpy as np
from PIL import Image

KEY = "the-key-of-these-tests"
HEADERS = {"Content-Type": "image/*", "Accept": "application/x-npy", "X-API-Key": KEY}
_TIMEOUT = aiohttp.ClientTimeout(total=120)


def photographs(count: int) -> list[bytes]:
    """JPEGs that take some time to decode, 256 tokens each."""
    rng = np.random.default_rng(3)
    made = []
    for _ in range(count):
        small = Image.fromarray(rng.integers(0, 255, (12, 16, 3), np.uint8))
        file = BytesIO()
        small.resize((400, 300), Image.Resampling.BICUBIC).save(file, "JPEG", quality=85)
        made.append(file.getvalue())
    return made


@dataclass
class Outcome:
    """statuses: of all answers; 0 for none. without_hint: answers of 429 and 503 that name no time to wait."""

    statuses: Counter[int] = field(default_factory=Counter)
    without_hint: int = 0
    lost: int = 0


class Clients:
    """Sends to some URLs in turn."""

    def __init__(self, urls: Sequence[str], bodies: Sequence[bytes]) -> None:
        self._urls, self._bodies = urls, itertools.cycle(bodies)
        self.outcome = Outcome()

    def run(self, count: int, *, seconds: float, tries: int = 1) -> Outcome:
        """Each of `count` clients sends one request at least, the next after its answer, and one that was refused up to
        `tries` times."""
        asyncio.run(self._run(count, seconds, tries))
        return self.outcome

    async def _run(self, count: int, seconds: float, tries: int) -> None:
        end_s = time.monotonic() + seconds
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=_TIMEOUT) as session:

            async def client(url: str) -> None:
                await self._until_answered(session, url, tries)
                while time.monotonic() < end_s:
                    await self._until_answered(session, url, tries)

            await asyncio.gather(
                *(client(url) for url, _ in zip(itertools.cycle(self._urls), range(count), strict=False))
            )

    async def _until_answered(self, session: aiohttp.ClientSession, url: str, tries: int) -> None:
        body = next(self._bodies)
        for _ in range(tries):
            status, retry_after = await self._ask(session, url, body)
            self.outcome.statuses[status] += 1
            self.outcome.without_hint += status in (429, 503) and retry_after is None
            if status not in (0, 429, 503):
                break
            await asyncio.sleep(min(float(retry_after or 1), 2.0))
        self.outcome.lost += status != 200

    async def _ask(self, session: aiohttp.ClientSession, url: str, body: bytes) -> tuple[int, str | None]:
        try:
            async with session.post(f"{url}/embed", data=BytesIO(body), headers=HEADERS) as answer:
                await answer.read()
                return answer.status, answer.headers.get("Retry-After")
        except (aiohttp.ClientError, TimeoutError):
            return 0, None


class Packs:
    """What servers count of their packs, from now on."""

    def __init__(self, urls: Sequence[str]) -> None:
        self._urls = urls
        self._before = self._read()

    def mean_images(self) -> list[float]:
        """The mean of each server."""
        pairs = zip(self._read(), self._before, strict=True)
        return [(now[0] - before[0]) / (now[1] - before[1]) for now, before in pairs]

    def _read(self) -> list[tuple[float, float]]:
        pages = [httpx.get(f"{url}/metrics", headers=HEADERS, trust_env=False, timeout=60).text for url in self._urls]
        names = ("packlight_pack_images_sum", "packlight_pack_images_count")
        return [(sample(page, names[0]), sample(page, names[1])) for page in pages]


def sample(page: str, name: str) -> float:
    found = re.search(rf"^{re.escape(name)} (\S+)", page, re.MULTILINE)
    assert found, f"no {name}"
    return float(found[1])


def say(figures: str) -> None:
    sys.stdout.write(f"\n{figures}\n")
