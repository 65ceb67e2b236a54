#!/usr/bin/env bash
# Ray Serve: a replica holds the whole body of a request whose application answers from its headers and reads none of it.
#
# Versions: ray 2.60.0, aiohttp 3.14.5. Seen on 2026-11-30.
# Behaviour: the proxy takes pieces of a body as they come, and the replica fetches them into a queue before the
#   application asks for any. Nothing slows a client down, and there is no limit. The proxy answers `Expect:
#   100-continue` at once, so a client that asks first is told to send.
# Output seen (16 bodies of 20 MB to an application that reads none; in brackets what the replica's own memory grows by):
#   320 MB sent, all of it held: True (474 MB)
#   100-continue before the application has answered: True
# Why it matters: a server of embeddings takes pictures of some MB from many clients. What keeps its memory bounded elsewhere
#   (a look at Content-Length, a count of bytes in flight, reading no faster than one can) comes too late here: the bytes
#   are held already. A bound must stand before the proxy, or in it as a middleware.
set -euo pipefail
folder=$(mktemp -d /tmp/raysXXX)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet 'ray[serve]==2.60.0' aiohttp==3.14.5
cat >program.py <<'PYTHON'
import asyncio
import socket
import sys
from pathlib import Path

import aiohttp
import ray
from ray import serve

BODIES, MB = 16, 20


class App:
    """Reads no body. It answers late, so that what is held meanwhile can be seen."""

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        await asyncio.sleep(8)
        await send({"type": "http.response.start", "status": 413, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})


@serve.deployment(max_ongoing_requests=100)
@serve.ingress(App())
class Refuses:
    pass


def private_mb(pid):
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon")).split()[1]) // 1024


def replica():
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if (folder / "cmdline").read_bytes().startswith(b"ray::ServeReplica:mine:"):
                return int(folder.name)
        except OSError:
            pass


async def send_all(url, pid):
    body, before = bytes(MB * 10**6), private_mb(pid)
    async with aiohttp.ClientSession() as session:
        sending = [asyncio.create_task(session.post(url, data=body)) for _ in range(BODIES)]
        peak = 0
        while not all(each.done() for each in sending):
            peak = max(peak, private_mb(pid) - before)
            await asyncio.sleep(0.1)
    return peak


def continues(port):
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99\r\nExpect: 100-continue\r\n\r\n")
        return connection.recv(100).startswith(b"HTTP/1.1 100")


ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, _temp_dir=sys.argv[1])
with socket.socket() as found:
    found.bind(("127.0.0.1", 0))
    port = found.getsockname()[1]
serve.start(http_options={"host": "127.0.0.1", "port": port})
serve.run(Refuses.bind(), name="mine")
grown = asyncio.run(send_all(f"http://127.0.0.1:{port}/", replica()))
stated = {"all of it held": grown > 0.9 * BODIES * MB, "100-continue": continues(port)}
print(f"{BODIES * MB} MB sent, all of it held: {stated['all of it held']} ({grown} MB)")
print(f"100-continue before the application has answered: {stated['100-continue']}")
serve.shutdown()
ray.shutdown()
sys.exit(0 if all(stated.values()) else "the behaviour has changed")
PYTHON
# Ray would leave a token in the home folder, and refuse programs without it later.
RAY_AUTH_MODE=disabled venv/bin/python program.py "$folder/ray" 2>/dev/null
