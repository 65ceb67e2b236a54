"""The clients of a soak: each request has an id of its own, which its answer must have, with a quiet server's bits."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import aiohttp
import numpy as np
from aiohttp import web

from loadtest.bench.clients.crowd import LEFT
from loadtest.bench.soak.records import Kind, Outcome
from loadtest.bench.soak.requests import Template, digest
from loadtest.sending.records import CONNECTION, TIMEOUT
from loadtest.traffic.arrivals import due_times
from loadtest.traffic.bodies import Wire

ID = "soak-"
_SHARES: Mapping[Kind, float] = {"broken": 0.02, "leaving": 0.02}
# Half of the requests have pictures that the server has not seen, and a fifth are of a job that can wait.
_NEW, _BULK = 0.5, 0.2
# The numbers of requests of bursts, beyond any of the timetable.
_BURSTS_FROM = 10**9
_LEAVES_AFTER_S = (0.01, 0.5)
# Longer than the server's own deadline: a client that waits this long will get no answer.
_PATIENCE_S = 45.0
# Short, so that the server's files follow the load and not how many connections once were needed.
_KEEP_ALIVE_S = 0.5


@dataclass(frozen=True, slots=True)
class Arrival:
    number: int
    due_s: float
    kind: Kind
    template: Template
    is_new: bool
    is_bulk: bool
    leaves_after_s: float | None

    def wire(self) -> Wire:
        if self.kind == "broken":
            return self.template.broken()
        return self.template.wire(f"{ID}{self.number}" if self.is_new else "")


def timetable(templates: Sequence[Template], *, rate: float, seconds: float, seed: int) -> list[Arrival]:
    """Poisson arrivals. The templates come in a new order in each pass."""
    due_s = due_times("poisson", rate=rate, duration_s=seconds, seed=seed)
    rng = np.random.default_rng([seed, 0x50])
    passes = [rng.permutation(len(templates)) for _ in range(-(-len(due_s) // len(templates)))]
    order = np.concatenate(passes) if passes else np.empty(0, dtype=int)
    kinds = rng.choice([*_SHARES, "good"], len(due_s), p=[*_SHARES.values(), 1 - sum(_SHARES.values())])
    return [
        Arrival(
            number, float(at_s), kind, templates[place], bool(rng.random() < _NEW), bool(rng.random() < _BULK),
            float(rng.uniform(*_LEAVES_AFTER_S)) if kind == "leaving" else None,
        )
        for number, (at_s, place, kind) in enumerate(zip(due_s, order, kinds.tolist(), strict=False))
    ]  # fmt: skip


class Clients:
    """Sends to one server and keeps every outcome."""

    def __init__(self, url: str, quiet: Mapping[int, str]) -> None:
        """quiet: digests of a quiet server's answers, by the places of templates."""
        self._url, self._quiet = url, quiet
        self._session: aiohttp.ClientSession
        self.began_s = time.monotonic()
        self.outcomes: list[Outcome] = []

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE_S)
        timeout = aiohttp.ClientTimeout(total=_PATIENCE_S)
        self._session = aiohttp.ClientSession(connector=connector, timeout=timeout)
        self.began_s = time.monotonic()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    @property
    def now_s(self) -> float:
        return time.monotonic() - self.began_s

    async def open_loop(self, arrivals: Sequence[Arrival]) -> None:
        """Sends each request when it is due, whatever the server does, and waits until the last has ended."""
        async with asyncio.TaskGroup() as group:
            for arrival in arrivals:
                await asyncio.sleep(max(0.0, arrival.due_s - self.now_s))
                group.create_task(self._ask(arrival))

    async def _ask(self, arrival: Arrival) -> None:
        sent_s = self.now_s
        status, named, wrong = CONNECTION, False, ""
        try:
            async with asyncio.timeout(arrival.leaves_after_s):
                status, named, wrong = await self._answer(arrival)
        except TimeoutError:
            status = LEFT if arrival.leaves_after_s else TIMEOUT
        except (aiohttp.ClientError, OSError):
            pass
        self.outcomes.append(
            Outcome(arrival.number, arrival.kind, arrival.due_s, sent_s, self.now_s, status, named, wrong)
        )

    async def _answer(self, arrival: Arrival) -> tuple[int, bool, str]:
        wire = arrival.wire()
        priority = "bulk" if arrival.is_bulk else "interactive"
        headers = {**wire.headers, "X-Request-ID": f"{ID}{arrival.number}", "X-Priority": priority}
        async with self._session.post(self._url + wire.target, data=wire.body, headers=headers) as response:
            body = await response.read()
        given = response.headers.get("X-Request-ID")
        if given is not None and given != headers["X-Request-ID"]:
            return response.status, True, "id"
        if response.status != 200 or arrival.kind == "broken":
            return response.status, given is not None, ""
        return response.status, given is not None, self._judged(arrival.template, body, response.content_type)

    def _judged(self, template: Template, body: bytes, content_type: str) -> str:
        try:
            return "" if digest(body, content_type) == self._quiet[template.place] else "bits"
        except (ValueError, KeyError, TypeError):
            return "bits"

    async def burst(self, templates: Sequence[Template]) -> None:
        """All at once, each new to the server."""
        first = max([_BURSTS_FROM, *(each.number + 1 for each in self.outcomes)])
        async with asyncio.TaskGroup() as group:
            for number, template in enumerate(templates, first):
                arrival = Arrival(number, self.now_s, "good", template, True, False, None)
                group.create_task(self._ask(arrival))

    async def closed_loop(self, templates: Sequence[Template], *, clients: int, seconds: float) -> float:
        """Requests a second that so many clients get, each with pictures that the server has not seen."""
        end_s, answered = self.now_s + seconds, 0

        async def client(first: int) -> None:
            nonlocal answered
            place = first
            while self.now_s < end_s:
                wire = templates[place % len(templates)].wire(f"capacity-{place}")
                async with self._session.post(
                    self._url + wire.target, data=wire.body, headers=wire.headers
                ) as response:
                    await response.read()
                    answered += response.status == 200
                place += clients

        async with asyncio.TaskGroup() as group:
            for first in range(clients):
                group.create_task(client(first))
        return answered / seconds


async def quiet_digests(url: str, templates: Sequence[Template]) -> dict[int, str]:
    """The digest of the answer to each template alone. Raises `RuntimeError` if the server does not answer one."""
    found = {}
    async with aiohttp.ClientSession() as session:
        for template in templates:
            wire = template.wire()
            async with session.post(url + wire.target, data=wire.body, headers=wire.headers) as response:
                body = await response.read()
            if response.status != 200:
                raise RuntimeError(f"the quiet server answers {response.status} to {template.form}: {body[:200]!r}")
            found[template.place] = digest(body, response.content_type)
    return found


async def picture_host(port: int, templates: Sequence[Template]) -> Callable[[], Awaitable[None]]:
    """Serves the pictures of requests that name URLs. Returns what ends it."""

    async def answer(request: web.Request) -> web.Response:
        place, number = (int(request.match_info[name]) for name in ("place", "number"))
        picture = templates[place].picture(number, request.query.get("stamp", ""))
        return web.Response(body=picture.data, content_type=picture.media_type)

    app = web.Application()
    app.router.add_get("/{place:\\d+}/{number:\\d+}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    return runner.cleanup
