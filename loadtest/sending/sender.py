"""One event loop that sends prepared requests at absolute times and records what comes back.

It never decides when a request is due. In an open loop it never waits for an answer before it sends the next request. A
request that cannot leave on time leaves late or not at all, and its row says which.
"""

import asyncio
import itertools
import time
import warnings
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace

import aiohttp
import numpy as np

from loadtest.sending.answers import Usage, read_server_timing, read_usage
from loadtest.sending.records import ABANDONED, CONNECTION, TIMEOUT, UNSENT, Floats, Records, Row, from_rows
from loadtest.traffic.bodies import Wire

Clock = Callable[[], float]
# uvicorn closes an idle connection after five seconds. A request sent at that moment would look like a lost one.
_KEEP_ALIVE_S = 4.0
# A sender that wakes later than this after the end of the run sends nothing more.
_LAST_CALL_S = 0.25


@dataclass(frozen=True, slots=True)
class Load:
    """One sender's share of a run. With `due_s` the loop is open; otherwise `concurrency` requests are kept in flight.

    `start_at_s` is on the monotonic clock, which the processes of one machine share.
    """

    start_at_s: float
    duration_s: float
    templates: Sequence[int]
    requests: Sequence[int]
    due_s: Floats | None
    concurrency: int = 0
    timeout_s: float = 30.0
    grace_s: float = 10.0
    max_in_flight: int = 2048

    def rounds(self, count: int) -> list["Load"]:
        """The load cut into `count` pieces of equal time, each with due times from its own start."""
        round_s = self.duration_s / count
        return [self._round(number, round_s) for number in range(count)]

    def _round(self, number: int, round_s: float) -> "Load":
        if self.due_s is None:
            turn = number * len(self.templates) // 7 % max(len(self.templates), 1)
            return replace(self, duration_s=round_s, templates=[*self.templates[turn:], *self.templates[:turn]])
        first, last = np.searchsorted(self.due_s, (number * round_s, (number + 1) * round_s))
        return replace(
            self,
            duration_s=round_s,
            due_s=self.due_s[first:last] - number * round_s,
            templates=self.templates[first:last],
            requests=self.requests[first:last],
        )


@dataclass(slots=True)
class Tally:
    """Counts since the start, and the latencies since they were last read."""

    sent: int = 0
    answered: int = 0
    errors: int = 0
    unsent: int = 0
    in_flight: int = 0
    latencies_ms: list[float] = field(default_factory=list)


class Sender:
    """Sends one `Load` to one server. After `stop()` it sends nothing more; requests in flight get `grace_s`."""

    def __init__(self, base_url: str, wires: Sequence[Wire], load: Load, *, clock: Clock = time.monotonic) -> None:
        self._urls = [base_url + wire.target for wire in wires]
        self._wires = wires
        self._load = load
        self._clock = clock
        self._rows: list[Row] = []
        self._stages: list[dict[str, float]] = []
        self._flying: set[asyncio.Task[None]] = set()
        self._stopped = asyncio.Event()
        self._session: aiohttp.ClientSession
        self.tally = Tally()

    def stop(self) -> None:
        self._stopped.set()

    async def run(self) -> Records:
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE_S)
        timeout = aiohttp.ClientTimeout(total=self._load.timeout_s)
        with warnings.catch_warnings():
            # aiohttp warns of bodies over a megabyte. One write is best here: the body is ready, a copy costs more.
            warnings.simplefilter("ignore", ResourceWarning)
            async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
                self._session = session
                await self._until_stopped(self._open_loop() if self._load.due_s is not None else self._closed_loop())
                await self._land()
        return from_rows(self._rows, self._stages)

    async def _until_stopped(self, sending: Coroutine[None, None, None]) -> None:
        sender = asyncio.create_task(sending)
        stopper = asyncio.create_task(self._stopped.wait())
        await asyncio.wait({sender, stopper}, return_when=asyncio.FIRST_COMPLETED)
        stopper.cancel()
        if not sender.done():
            sender.cancel()
        await asyncio.gather(sender, stopper, return_exceptions=True)
        if not sender.cancelled() and (error := sender.exception()):
            raise error

    async def _land(self) -> None:
        """Waits for requests in flight: until each times out, or for `grace_s` after a stop."""
        while self._flying and not self._stopped.is_set():
            stopper = asyncio.create_task(self._stopped.wait())
            await asyncio.wait({stopper, *self._flying}, return_when=asyncio.FIRST_COMPLETED)
            stopper.cancel()
        if self._flying:
            await asyncio.wait(self._flying, timeout=self._load.grace_s)
        leftover = list(self._flying)
        for task in leftover:
            task.cancel()
        await asyncio.gather(*leftover, return_exceptions=True)

    async def _open_loop(self) -> None:
        load = self._load
        assert load.due_s is not None
        for place, due_s in enumerate(load.due_s):
            await asyncio.sleep(max(0.0, load.start_at_s + due_s - self._clock()))
            too_late = self._now_s() > load.duration_s + _LAST_CALL_S
            if too_late or len(self._flying) >= load.max_in_flight:
                self._unsent(place, float(due_s))
            else:
                self._launch(self._send(load.requests[place], load.templates[place], float(due_s)))

    async def _closed_loop(self) -> None:
        load = self._load
        await asyncio.sleep(max(0.0, load.start_at_s - self._clock()))
        places = itertools.count()

        async def user() -> None:
            while self._now_s() < load.duration_s and not self._stopped.is_set():
                place = next(places)
                template = load.templates[place % len(load.templates)]
                await self._send(place, template, self._now_s())

        for _ in range(load.concurrency):
            self._launch(user())
        # Not gather: cancelling this coroutine must not cancel the requests in flight.
        await asyncio.wait(set(self._flying))

    def _launch(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._flying.add(task)
        task.add_done_callback(self._flying.discard)

    async def _send(self, request: int, template: int, due_s: float) -> None:
        wire = self._wires[template]
        sent_s = self._now_s()
        self.tally.sent += 1
        self.tally.in_flight += 1
        status, usage, timing, size = CONNECTION, Usage(-1, -1), "", 0
        done_s = float("nan")
        try:
            url = self._urls[template]
            async with self._session.post(url, data=wire.body, headers=wire.headers) as response:
                body = await response.read()
                done_s = self._now_s()
                status, size = response.status, len(body)
                timing = ",".join(response.headers.getall("Server-Timing", ()))
                usage = read_usage(body, response.headers.get("X-Image-Tokens"))
        except TimeoutError:
            status = TIMEOUT
        except (aiohttp.ClientError, OSError):
            status = CONNECTION
        except asyncio.CancelledError:
            status = ABANDONED
            raise
        finally:
            done_s = self._now_s() if done_s != done_s else done_s
            row = Row(request, template, wire.class_index, due_s, sent_s, done_s, status, wire.images, *usage, size)
            self._note(row, read_server_timing(timing))

    def _note(self, row: Row, stages: dict[str, float]) -> None:
        self._rows.append(row)
        self._stages.append(stages)
        self.tally.in_flight -= 1
        if 200 <= row.status < 300:
            self.tally.answered += 1
            self.tally.latencies_ms.append((row.done_s - row.due_s) * 1e3)
        else:
            self.tally.errors += 1

    def _unsent(self, place: int, due_s: float) -> None:
        load, nan = self._load, float("nan")
        template = load.templates[place]
        wire = self._wires[template]
        self._rows.append(
            Row(load.requests[place], template, wire.class_index, due_s, nan, nan, UNSENT, wire.images, -1, -1, 0)
        )
        self._stages.append({})
        self.tally.unsent += 1

    def _now_s(self) -> float:
        return self._clock() - self._load.start_at_s
