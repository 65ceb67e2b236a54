"""Servers on loopback that behave as a test tells them: the other end of every test of `loadtest`.

`FakePacklight` speaks Packlight's HTTP and metrics, and answers after a delay that the test chooses.
"""

import asyncio
import base64
import json
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Self

from aiohttp import web

from loadtest.traffic.bodies import Wire

TOKENS = 100
Delay = Callable[[int], float]


class FakeServer(ABC):
    """An aiohttp application in its own thread. Use it as a context manager; it listens at `url`."""

    url: str

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._up = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        assert self._up.wait(60)
        return self

    def __exit__(self, *error: object) -> None:
        self._loop.call_soon_threadsafe(self._done.set)
        self._thread.join(10)
        self._loop.close()

    @abstractmethod
    def routes(self) -> Sequence[web.AbstractRouteDef]: ...

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._listen())

    async def _listen(self) -> None:
        self._done = asyncio.Event()
        app = web.Application(client_max_size=1 << 28)
        app.add_routes(self.routes())
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = site.name
        self._up.set()
        await self._done.wait()
        await runner.cleanup()
        # Handlers that are still asleep would outlive the loop.
        leftover = asyncio.all_tasks() - {asyncio.current_task()}
        for task in leftover:
            task.cancel()
        await asyncio.gather(*leftover, return_exceptions=True)


class FakePacklight(FakeServer):
    """Answers every image with `TOKENS` tokens. `delay_s` is called with the number of the request, from 0."""

    def __init__(
        self,
        delay_s: Delay = lambda number: 0.0,
        *,
        api_key: str | None = None,
        metrics: bool = True,
        refuse: Callable[[int], int] = lambda number: 0,
    ) -> None:
        self._delay_s = delay_s
        self._api_key = api_key
        self._metrics = metrics
        self.forget_images = False
        self._refuse = refuse
        self.requests: Counter[tuple[str, int]] = Counter()
        self.images = 0
        self._counted = 0
        self.bodies: list[bytes] = []
        self.queries: list[str] = []
        self.took_s: list[float] = []
        self.started_s = time.monotonic()

    def routes(self) -> Sequence[web.AbstractRouteDef]:
        return [
            web.post("/embed", self._embed),
            web.post("/v1/embeddings", self._embeddings),
            web.get("/metrics", self._scrape),
            web.get("/info", self._info),
        ]

    async def _embed(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        if request.content_type.startswith("image/"):
            count = 1
        elif request.content_type == "application/json":
            count = len(json.loads(body)["images"])
        else:
            count = body.count(b'name="image"')
        return await self._answer(request, body, count)

    async def _embeddings(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        return await self._answer(request, body, len(json.loads(body)["input"]))

    async def _answer(self, request: web.Request, body: bytes, count: int) -> web.StreamResponse:
        number = len(self.bodies)
        self.bodies.append(body[:4000])
        self.queries.append(request.query_string)
        if self._api_key and request.headers.get("Authorization") != f"Bearer {self._api_key}":
            return self._refused(request, 401, "unauthorized", "this server wants a key")
        if status := self._refuse(number):
            return self._refused(request, status, "overloaded", "the queue is full")
        before_s = time.monotonic()
        await asyncio.sleep(self._delay_s(number))
        took_s = time.monotonic() - before_s
        self.took_s.append(took_s)
        self.images += count
        self._counted += 0 if self.forget_images else count
        self.requests[request.path, 200] += 1
        headers = {"Server-Timing": f"decode;dur=1.5, queue;dur=0.5, forward;dur={took_s * 1e3:.3f}"}
        if request.headers.get("Accept") == "application/x-npy":
            headers["X-Image-Tokens"] = ",".join([str(TOKENS)] * count)
            return web.Response(body=b"\x93NUMPY", headers=headers, content_type="application/x-npy")
        vector = base64.b64encode(bytes(8)).decode()
        data = [{"index": place, "embedding": vector} for place in range(count)]
        tokens = TOKENS * count
        usage = {"images": count, "tokens": tokens} if request.path == "/embed" else {"prompt_tokens": tokens}
        return web.json_response({"data": data, "usage": usage}, headers=headers)

    def _refused(self, request: web.Request, status: int, code: str, message: str) -> web.Response:
        self.requests[request.path, status] += 1
        return web.json_response({"error": {"code": code, "message": message}}, status=status)

    async def _info(self, request: web.Request) -> web.Response:
        return web.json_response({"model": "fake"})

    async def _scrape(self, request: web.Request) -> web.Response:
        if not self._metrics:
            raise web.HTTPNotFound
        return web.Response(text=self._exposition())

    def _exposition(self) -> str:
        tokens, packs = self.images * TOKENS, self.images // 2
        lines = [
            f'packlight_requests_total{{route="{route}",status="{status}"}} {count}'
            for (route, status), count in self.requests.items()
        ]
        lines += [
            f'packlight_images_total{{outcome="embedded"}} {self._counted}',
            f"packlight_charged_tokens_total {tokens}",
            f'packlight_tokens_total{{kind="image"}} {tokens}',
            f'packlight_tokens_total{{kind="padding"}} {tokens // 50}',
            f'packlight_padding_avoided_tokens_total{{layout="pad_to_longest"}} {tokens // 2}',
            f'packlight_padding_avoided_tokens_total{{layout="pad_to_cap"}} {tokens}',
        ]
        for name, labels, bounds, mean in (
            ("pack_fill_ratio", "", (0.5, 0.75, 1.0), 0.7),
            ("stage_seconds", 'stage="forward",', (0.01, 0.1, 1.0), 0.05),
            ("stage_seconds", 'stage="queue",', (0.01, 0.1, 1.0), 0.02),
        ):
            share = 0.0
            for bound in (*bounds, float("inf")):
                share = min(1.0, share + 0.4)
                lines.append(
                    f'packlight_{name}_bucket{{{labels}le="{bound:g}"}} {round(packs * share)}'.replace("inf", "+Inf")
                )
            lines.append(f"packlight_{name}_sum{{{labels[:-1]}}} {packs * mean}".replace("{}", ""))
            lines.append(f"packlight_{name}_count{{{labels[:-1]}}} {packs}".replace("{}", ""))
        return "# HELP packlight_x Text.\n" + "\n".join(lines) + "\n"


class Queue:
    """The delays of a server that handles one request at a time, in order of arrival, in `service_s` each."""

    def __init__(self, service_s: float) -> None:
        self._service_s = service_s
        self._free_at_s = 0.0

    def __call__(self, number: int) -> float:
        now_s = time.monotonic()
        self._free_at_s = max(now_s, self._free_at_s) + self._service_s
        return self._free_at_s - now_s


class Stall:
    """The delays of a fast server that answers nothing between `at_s` and `at_s + for_s` after its first request."""

    def __init__(self, *, at_s: float, for_s: float) -> None:
        self._at_s = at_s
        self._for_s = for_s
        self._start_s = float("inf")

    def __call__(self, number: int) -> float:
        now_s = time.monotonic()
        if number == 0:
            self._start_s = now_s
        since_s = now_s - self._start_s - self._at_s
        return self._for_s - since_s if 0 <= since_s < self._for_s else 0.001


def plain_wires(count: int = 4, target: str = "/embed") -> list[Wire]:
    """Small requests of one image each, without real pictures."""
    body = b'--b\r\nContent-Disposition: form-data; name="image"; filename="0"\r\n\r\nx\r\n--b--\r\n'
    return [Wire(target, {"Content-Type": "multipart/form-data; boundary=b"}, body, 1, 0) for _ in range(count)]
