"""`GET /stats`: a stream that costs nothing while nobody reads, and that nobody waits for."""

import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import pydantic
import pytest

from model.running.runner import Runner
from service.http.stats.line import StatsLine
from service.limits import ModelFacts
from tests.service.running import PATIENCE_S, Running, error_of, read_answer, serving, until

Loaded = tuple[Runner, ModelFacts]


@contextmanager
def listening(server: Running, **headers: str) -> Iterator[Iterator[dict[str, Any]]]:
    with server.http.stream("GET", "/stats", headers=headers) as answer:
        assert (answer.status_code, answer.headers["content-type"]) == (200, "application/x-ndjson")
        assert answer.headers["cache-control"] == "no-store"
        yield (json.loads(line) for line in answer.iter_lines())


def pack_of(lines: Iterator[dict[str, Any]], images: list[list[int]]) -> dict[str, Any]:
    """The pack that held these images alone, in as many lines as it takes."""
    while True:
        for pack in next(lines)["packs"]:
            if pack["images"] == images:
                found: dict[str, Any] = pack
                return found


def test_the_first_line_has_the_last_packs_and_later_ones_the_new(server: Running, png: bytes) -> None:
    assert server.embed_form([png, png], max_tokens=100).status_code == 200
    with listening(server) as lines:
        first = next(lines)
        assert first["full"]
        (image,) = server.embed(png, max_tokens=77, strategy="square").json()["data"]
        pack = pack_of(lines, [[image["tokens"]]])
    assert (pack["texts"], pack["left_out"], pack["tokens"]) == ([], 0, image["tokens"])
    assert pack["computed_tokens"] == server.runner.computed[-1]
    assert (pack["longest_tokens"], pack["cap_tokens"]) == (image["tokens"], 77)
    assert pack["forward_ms"] > 0
    assert pack["id"] not in {known["id"] for known in first["packs"]}
    assert sum(len(known["images"]) for known in first["packs"]) >= 2


def test_an_answer_names_the_packs_that_ran_it(server: Running, png: bytes) -> None:
    with listening(server) as lines:
        next(lines)
        server.runner.hold()
        with ThreadPoolExecutor(3) as threads:
            first = threads.submit(server.embed, png, max_tokens=100)
            assert server.runner.entered.wait(PATIENCE_S)
            others = [threads.submit(server.embed_form, [png] * number, max_tokens=64) for number in (1, 2)]
            until(lambda: server.metric("queue_images") == 3)
            server.runner.free.set()
        alone, *together = (each.result().headers["Packlight-Packs"] for each in (first, *others))
        assert together[0] == together[1] != alone
        packs: dict[str, int] = {}
        while not {alone, together[0]} <= set(packs):
            packs |= {pack["id"]: len(pack["images"]) for pack in next(lines)["packs"]}
    assert (packs[alone], packs[together[0]]) == (1, 3)


def test_an_answer_of_several_packs_names_each_once(loaded: Loaded, png: bytes) -> None:
    with serving(loaded, max_image_tokens=64, default_max_tokens=64, max_batch_tokens=64) as server:
        ids = server.embed_form([png] * 3).headers["Packlight-Packs"].split(", ")
        with listening(server) as lines:
            assert sorted(pack["id"] for pack in next(lines)["packs"]) == sorted(ids)
        assert len(set(ids)) == 3
        assert "Packlight-Packs" not in server.embed(b"no picture").headers


def test_tiles_are_segments_of_one_image(server: Running, png: bytes) -> None:
    with listening(server) as lines:
        next(lines)
        (image,) = server.embed(png, strategy="anyres", max_tokens=1024).json()["data"]
        pack = pack_of(lines, [[segment["tokens"] for segment in image["segments"]]])
    assert pack["tokens"] == image["tokens"]


def test_every_line_has_the_shape_that_the_page_shows(server: Running, png: bytes) -> None:
    server.embed(png)
    with listening(server) as lines:
        taken = [next(lines)]
        while taken[-1]["rates"] is None:
            server.embed(png)
            taken.append(next(lines))
    shape = pydantic.TypeAdapter(StatsLine)
    for line in taken:
        assert json.loads(shape.dump_json(shape.validate_python(line))) == line
    last = taken[-1]
    assert last["rates"]["images_per_s"] > 0
    assert last["stages"]["forward"]["count"] > 0
    assert last["stages"]["tokenize"] is None
    assert (last["ready"], last["all_ready"]) == (True, True)
    assert last["queue"]["max_tokens"] == 8 * last["max_batch_tokens"]


def test_all_listeners_get_the_same_lines_and_none_counts_as_a_slow_request(server: Running) -> None:
    with ExitStack() as stack:
        streams = [stack.enter_context(listening(server)) for _ in range(20)]
        for lines in streams:
            next(lines)
        until(lambda: len({next(lines)["at"] for lines in streams}) == 1)
    until(lambda: server.metric("requests_total", route="/stats", status="200", dialect="") >= 20)
    assert server.metric("request_seconds_count", route="/stats", dialect="") == 0


def test_head_has_no_body_and_ends(server: Running) -> None:
    answer = server.http.head("/stats")
    assert (answer.status_code, answer.headers["content-type"], answer.content) == (200, "application/x-ndjson", b"")
    assert server.http.get("/livez").status_code == 200


def test_more_listeners_than_may_be_are_told_to_come_again(loaded: Loaded) -> None:
    with serving(loaded, max_connections=4) as server, ExitStack() as stack:
        for _ in range(2):
            next(stack.enter_context(listening(server)))
        refused = server.http.get("/stats")
        assert error_of(refused)[:2] == (429, "overloaded")
        assert refused.headers["retry-after"] == "1"
    with serving(loaded, max_connections=4) as server:
        with listening(server) as lines:
            next(lines)
        with listening(server) as lines:
            assert next(lines)["full"]


def test_it_can_be_switched_off(loaded: Loaded) -> None:
    with serving(loaded, stats="off") as server:
        assert error_of(server.http.get("/stats"))[:2] == (404, "not_found")
        assert "/stats" not in server.http.get("/openapi.json").json()["paths"]


def test_it_asks_for_a_key_unless_metrics_are_open(loaded: Loaded) -> None:
    with serving(loaded, api_keys=("sesame",)) as server:
        assert server.http.get("/stats").status_code == 401
        with listening(server, authorization="Bearer sesame") as lines:
            next(lines)
    with serving(loaded, api_keys=("sesame",), metrics_open=True) as server, listening(server) as lines:
        next(lines)


def test_a_page_of_another_origin_may_read_it(loaded: Loaded) -> None:
    origin = "https://shop.example"
    with (
        serving(loaded, cors_origins=(origin,)) as server,
        server.http.stream("GET", "/stats", headers={"Origin": origin}) as answer,
    ):
        assert answer.headers["access-control-allow-origin"] == origin
        next(answer.iter_lines())


def test_it_ends_when_the_server_drains(loaded: Loaded) -> None:
    draining = threading.Event()
    with serving(loaded, draining=draining.is_set) as server:
        with server.connect() as connection, listening(server) as lines:
            connection.sendall(b"GET /stats HTTP/1.1\r\nHost: test\r\n\r\n")
            assert connection.recv(1, socket.MSG_PEEK)
            next(lines)
            draining.set()
            assert all(not line["full"] for line in lines)
            answer, body = read_answer(connection)
            assert (answer.status, answer.chunked) == (200, True)
            assert body.endswith(b"\n")
        assert error_of(server.http.get("/stats"))[:2] == (503, "unavailable")


def test_a_line_that_cannot_be_made_ends_the_stream_and_the_next_listener_is_served(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*given: object, **named: object) -> None:
        raise OSError("no files")

    with serving(loaded) as server:
        with listening(server) as lines:
            next(lines)
            with monkeypatch.context() as patch:
                patch.setattr("service.http.stats.reader.read_gauges", fail)
                assert not any(line["full"] for line in lines)
        with listening(server) as lines:
            assert next(lines)["full"]
