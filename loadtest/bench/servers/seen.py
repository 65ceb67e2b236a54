"""What a picture costs that the server remembers, beside one that it embeds, and one that it only receives and hashes.

One server in a process of its own with `cache_bytes`, and one request at a time. A request that expects another
fingerprint is refused when its body is received and hashed, which is all that a hit should cost, and little more.

    loop_us    processor time of the event loop's thread a request, median over the rounds
    all_us     of all threads of the server
    beyond_us  loop_us of this row less that of `refused` in the same round, median over the rounds
"""

import argparse
import http.client
import statistics
from collections import defaultdict
from collections.abc import Iterator

from loadtest.bench.refusal import jpeg
from loadtest.bench.servers.inside import ServerInside

Row = dict[str, object]
_CACHE_BYTES = 256 * 1024**2
_SIDES = {"small": (240, 320), "photo": (3000, 4000)}
_KINDS = ("refused", "hit", "embedded")


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--requests", type=int, default=40, help="of each kind in a round")


def measure(options: argparse.Namespace) -> list[Row]:
    rows: list[Row] = []
    with ServerInside(port=0, cache_bytes=_CACHE_BYTES) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        for name, size in _SIDES.items():
            rows += _rows(server, connection, name, jpeg(*size), options)
        connection.close()
    return rows


def _rows(
    server: ServerInside, connection: http.client.HTTPConnection, name: str, picture: bytes, options: argparse.Namespace
) -> list[Row]:
    others = _others(picture)
    spent: dict[str, list[tuple[float, float]]] = defaultdict(list)
    _send(connection, picture, "hit")
    for _ in range(options.rounds):
        for kind in _KINDS:
            count = max(1, options.requests // (10 if kind == "embedded" else 1))
            before = server.threads_cpu_s()
            for _ in range(count):
                _send(connection, next(others) if kind == "embedded" else picture, kind)
            after = server.threads_cpu_s()
            used = {thread: after[thread] - before.get(thread, 0.0) for thread in after}
            spent[kind].append((used["loop"] / count * 1e6, sum(used.values()) / count * 1e6))
    loop_us = {kind: statistics.median(loop for loop, _ in spent[kind]) for kind in _KINDS}
    return [
        {
            "picture": name,
            "kB": len(picture) // 1000,
            "request": kind,
            "loop_us": round(loop_us[kind]),
            "all_us": round(statistics.median(whole for _, whole in spent[kind])),
            "beyond_us": round(
                statistics.median(own - bare for (own, _), (bare, _) in zip(spent[kind], spent["refused"], strict=True))
            ),
        }
        for kind in _KINDS
    ]


def _others(picture: bytes) -> Iterator[bytes]:
    """The same picture in ever other bytes: behind the end of a JPEG anything may stand."""
    number = 0
    while True:
        yield picture + number.to_bytes(8, "big")
        number += 1


def _send(connection: http.client.HTTPConnection, picture: bytes, kind: str) -> None:
    headers = {"Content-Type": "image/jpeg", "Accept": "application/x-npy"}
    if kind == "refused":
        headers["X-Expect-Fingerprint"] = "another"
    connection.request("POST", "/embed", picture, headers)
    answer = connection.getresponse()
    answer.read()
    assert answer.status == (409 if kind == "refused" else 200), answer.status
