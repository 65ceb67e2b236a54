"""A reverse proxy in a thread: serves a server below a path prefix, as an operator's nginx does."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from aiohttp import ClientSession, web

from tests.service.running import PATIENCE_S

# Of one connection, not of the message.
_HOP_BY_HOP = {"connection", "transfer-encoding", "content-length", "content-encoding", "host"}


@contextmanager
def proxied(port: int, prefix: str) -> Iterator[int]:
    """Yields the port where `/prefix/…` is the server's `/…`, and nothing else is anything."""
    ready, loop = threading.Event(), asyncio.new_event_loop()
    bound: list[int] = []
    stops: list[Callable[[], object]] = []

    async def serve() -> None:
        stop = asyncio.Event()
        async with ClientSession(f"http://127.0.0.1:{port}") as session:

            async def forward(request: web.Request) -> web.Response:
                path = request.path_qs.removeprefix(prefix)
                headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP_BY_HOP}
                body = await request.read()
                async with session.request(request.method, path, headers=headers, data=body or None) as answer:
                    kept = {n: v for n, v in answer.headers.items() if n.lower() not in _HOP_BY_HOP}
                    return web.Response(status=answer.status, headers=kept, body=await answer.read())

            app = web.Application(client_max_size=2**30)
            app.router.add_route("*", f"{prefix}/{{path:.*}}", forward)
            runner = web.AppRunner(app)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            bound.extend([runner.addresses[0][1]])
            stops.append(lambda: loop.call_soon_threadsafe(stop.set))
            ready.set()
            await stop.wait()
            await runner.cleanup()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), name="proxy")
    thread.start()
    assert ready.wait(PATIENCE_S)
    try:
        yield bound[0]
    finally:
        stops[0]()
        thread.join(PATIENCE_S)
        loop.close()
