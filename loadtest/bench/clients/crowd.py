"""Good and bad clients on one event loop, and the answer that each got.

`good` clients wait for their answers, and so do `bulk` ones, who say that they are; `corrupt` ones send broken images,
`leaving` ones close the connection before the answer comes, `slow` ones announce a body and trickle it. Times are
seconds from the start of the crowd.
"""

import asyncio
import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self
from urllib.parse import urlsplit

import aiohttp
import numpy as np

from loadtest.sending.records import CONNECTION, TIMEOUT, status_name
from loadtest.traffic.arrivals import due_times
from loadtest.traffic.bodies import Wire

Kind = Literal["good", "bulk", "corrupt", "leaving", "slow"]

# Instead of a status: a client that left on purpose before the answer came.
LEFT = -10
# Shorter than the server's, as in the sender of `loadtest`.
_KEEP_ALIVE_S = 4.0
# A leaving client leaves after this long.
_LEAVES_AFTER_S = (0.05, 2.0)
# What a slow client sends at a time, and how often.
_TRICKLE_BYTES, _TRICKLE_EVERY_S = 16, 0.25
# How long a slow client waits after a refusal without Retry-After.
_SLOW_PAUSE_S = 1.0


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request of the timetable. leaves_after_s: None for a client that waits."""

    due_s: float
    kind: Kind
    wire: Wire
    leaves_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What one client got. status: HTTP's, or `LEFT`, or one of `loadtest.sending.records` if there was no answer."""

    kind: Kind
    due_s: float
    sent_s: float
    done_s: float
    status: int
    images: int
    retry_after_s: int | None = None


def name_of(status: int) -> str:
    return "left" if status == LEFT else status_name(status)


def timetable(
    wires: Mapping[Kind, Sequence[Wire]], shares: Mapping[Kind, float], *, rate: float, seconds: float, seed: int
) -> list[Arrival]:
    """Poisson arrivals. Each kind has its share to within one request, and uses its wires in turn."""
    due_s = due_times("poisson", rate=rate, duration_s=seconds, seed=seed)
    rng = np.random.default_rng([seed, 0x0C])
    kinds: list[Kind] = ["good"] * len(due_s)
    starts = itertools.accumulate((round(share * len(due_s)) for share in shares.values()), initial=0)
    for (kind, share), start in zip(shares.items(), starts, strict=False):
        kinds[start : start + round(share * len(due_s))] = [kind] * round(share * len(due_s))
    turns = {kind: itertools.cycle(wires[kind]) for kind in {*kinds}}
    return [
        Arrival(
            float(at_s), kind, next(turns[kind]), float(rng.uniform(*_LEAVES_AFTER_S)) if kind == "leaving" else None
        )
        for at_s, kind in zip(due_s, (kinds[place] for place in rng.permutation(len(kinds))), strict=True)
    ]


class Crowd:
    """Sends to one server and keeps every answer."""

    def __init__(self, url: str, *, timeout_s: float, distinct: bool = False) -> None:
        """timeout_s: when a waiting client gives up. distinct: no raw picture is sent twice, to a byte."""
        self._url, self._timeout_s, self._distinct = url, timeout_s, distinct
        self._numbers = itertools.count(1)
        self._began_s = time.monotonic()
        self._session: aiohttp.ClientSession
        self.answers: list[Answer] = []

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE_S)
        self._session = aiohttp.ClientSession(connector=connector)
        self._began_s = time.monotonic()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    @property
    def now_s(self) -> float:
        return time.monotonic() - self._began_s

    async def ask(
        self, wire: Wire, kind: Kind = "good", *, due_s: float | None = None, within_s: float = 0.0
    ) -> Answer:
        """One request. within_s: when the client leaves; zero for one that waits."""
        sent_s = self.now_s
        status, retry_after = CONNECTION, None
        timeout = aiohttp.ClientTimeout(total=within_s or self._timeout_s)
        url = self._url + wire.target
        try:
            async with self._session.post(
                url, data=self._body(wire), headers=wire.headers, timeout=timeout
            ) as response:
                await response.read()
                status, retry_after = response.status, _seconds(response.headers.get("Retry-After"))
        except TimeoutError:
            status = LEFT if within_s else TIMEOUT
        except (aiohttp.ClientError, OSError):
            pass
        due_s = sent_s if due_s is None else due_s
        answer = Answer(kind, due_s, sent_s, self.now_s, status, wire.images, retry_after)
        self.answers.append(answer)
        return answer

    def _body(self, wire: Wire) -> bytes:
        """What stands behind the end of a picture is part of its bytes, and no decoder reads it."""
        raw = wire.headers["Content-Type"].startswith("image/")
        return wire.body + next(self._numbers).to_bytes(8, "big") if self._distinct and raw else wire.body

    async def open_loop(self, arrivals: Sequence[Arrival]) -> None:
        """Sends each request when it is due, whatever the server does, and waits until the last has ended."""
        began_s = self.now_s
        async with asyncio.TaskGroup() as group:
            for arrival in arrivals:
                due_s = began_s + arrival.due_s
                await asyncio.sleep(max(0.0, due_s - self.now_s))
                within_s = arrival.leaves_after_s or 0.0
                group.create_task(self.ask(arrival.wire, arrival.kind, due_s=due_s, within_s=within_s))

    async def closed_loop(self, wires: Sequence[Wire], *, clients: int, seconds: float) -> None:
        """Each client sends its next request after its answer, or when a refusal told it to."""
        turns, end_s = itertools.cycle(wires), self.now_s + seconds

        async def client() -> None:
            while self.now_s < end_s:
                answer = await self.ask(next(turns))
                await asyncio.sleep(min(answer.retry_after_s or 0, max(0.0, end_s - self.now_s)))

        async with asyncio.TaskGroup() as group:
            for _ in range(clients):
                group.create_task(client())

    async def slow_uploads(self, wire: Wire, *, clients: int, seconds: float) -> None:
        """Sends bodies that never end. A client whose connection the server ends starts again."""
        end_s = self.now_s + seconds

        async def client() -> None:
            while self.now_s < end_s:
                answer = await self._trickle(wire, end_s)
                self.answers.append(answer)
                if answer.status != LEFT:
                    await asyncio.sleep(min(answer.retry_after_s or _SLOW_PAUSE_S, max(0.0, end_s - self.now_s)))

        async with asyncio.TaskGroup() as group:
            for _ in range(clients):
                group.create_task(client())

    async def _trickle(self, wire: Wire, end_s: float) -> Answer:
        began_s = self.now_s
        status, retry_after = LEFT, None
        address = urlsplit(self._url)
        try:
            reader, writer = await asyncio.open_connection(address.hostname, address.port)
        except OSError:
            return Answer("slow", began_s, began_s, self.now_s, CONNECTION, wire.images)
        reading = asyncio.create_task(reader.readuntil(b"\r\n\r\n"))
        try:
            headers = {"Host": "bench", "Content-Length": str(len(wire.body)), **wire.headers}
            lines = [f"POST {wire.target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
            writer.write("\r\n".join([*lines, "", ""]).encode())
            # Never the whole body.
            for start in range(0, len(wire.body) - _TRICKLE_BYTES, _TRICKLE_BYTES):
                if reading.done() or self.now_s >= end_s:
                    break
                writer.write(wire.body[start : start + _TRICKLE_BYTES])
                await asyncio.wait([reading], timeout=_TRICKLE_EVERY_S)
            if reading.done():
                status, retry_after = _read_head(reading.result())
        except (OSError, asyncio.IncompleteReadError):
            status = CONNECTION
        finally:
            reading.cancel()
            writer.close()
        return Answer("slow", began_s, began_s, self.now_s, status, wire.images, retry_after)


def _read_head(head: bytes) -> tuple[int, int | None]:
    """Status and Retry-After of an answer."""
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return int(first.split()[1]), _seconds(headers.get("retry-after"))


def _seconds(value: str | None) -> int | None:
    return int(value) if value and value.isdecimal() else None
