"""What a refusal costs the server in processor time of its own, over a real socket.

One keep-alive connection sends the same request many times; the server's user and system time is read before and
after. `livez` shows what any answer costs. Each round takes the cases in turn.
"""

import http.client
import io
import statistics
from collections.abc import Callable

import httpx
import numpy as np
from PIL import Image

from loadtest.bench.servers.processes import cpu_s
from loadtest.bench.servers.running import serving
from model.child_process import process_tree

_ROUNDS, _CALLS = 5, 200
_KEY = "a-key"
# A key, a small upload limit and a small pixel limit.
_SERVER = ("--api-keys", _KEY, "--max-upload-bytes", "4000000", "--max-decode-pixels", "1000000")


def measure() -> list[dict[str, object]]:
    """Median microseconds of the server's processor time a request, for each case."""
    with serving(*_SERVER) as server, httpx.Client(base_url=server.url) as client:
        pids = process_tree(server.pid)
        cases = _cases(client)
        statuses = {name: call() for name, call in cases.items()}
        costs: dict[str, list[float]] = {name: [] for name in cases}
        for _ in range(_ROUNDS):
            for name, call in cases.items():
                before_s = cpu_s(pids)
                for _ in range(_CALLS):
                    call()
                costs[name].append((cpu_s(pids) - before_s) / _CALLS * 1e6)
        return [
            {"case": name, "status": statuses[name], "server_cpu_us": round(statistics.median(values))}
            for name, values in costs.items()
        ]


def _cases(client: httpx.Client) -> dict[str, Callable[[], int]]:
    """Functions that send one request and return its status, by name."""
    icon, photo = jpeg(64, 64), jpeg(3000, 4000)
    key = {"X-API-Key": _KEY}

    def post(content: bytes, headers: dict[str, str], query: str = "") -> Callable[[], int]:
        headers = {"Content-Type": "image/jpeg", **headers}
        return lambda: client.post(f"/embed{query}", content=content, headers=headers).status_code

    return {
        "livez, for comparison": lambda: client.get("/livez").status_code,
        "first gate: no key": post(icon, {}),
        "first gate: too many bytes announced (a connection each)": lambda: _announce(client.base_url, 9_999_999),
        "after the body: unknown strategy": post(icon, key, "?strategy=best"),
        "second gate: 12 MP header over max_decode_pixels": post(photo, key),
    }


def _announce(url: httpx.URL, size: int) -> int:
    """Sends only the headers, and reads the refusal."""
    connection = http.client.HTTPConnection(url.host, url.port)
    try:
        connection.putrequest("POST", "/embed")
        for name, value in {"Content-Type": "image/jpeg", "X-API-Key": _KEY, "Content-Length": str(size)}.items():
            connection.putheader(name, value)
        connection.endheaders()
        return connection.getresponse().status
    finally:
        connection.close()


def jpeg(height: int, width: int) -> bytes:
    """A smooth picture: few bytes to send, all its pixels to decode."""
    row = np.linspace(0, 255, width, dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(np.broadcast_to(row[None, :, None], (height, width, 3)).copy()).save(buffer, "JPEG")
    return buffer.getvalue()
