"""Images from URLs, through a real server: what a request gets, holds, and does to others."""

import json
import socket
import threading
from base64 import b64encode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from model.running.runner import Runner
from service.limits import ModelFacts
from tests import pictures
from tests.service.conftest import small_png
from tests.service.fetching.hosts import Host, Listener, Names, hang, image, reply
from tests.service.running import PATIENCE_S, Running, error_of, raw_request, serving, until

PNG = small_png()
OTHER = pictures.save(pictures.picture(80, 40), "PNG")
NAMES = {"images_test": ["127.0.0.1"], "slow_test": ["127.0.0.2"], "secret_test": ["10.0.0.7"]}


@pytest.fixture(scope="module")
def slow() -> Iterator[Host]:
    """Under another name and another address than `host`."""
    with Host({f"/{number}": hang for number in range(100)}, address="127.0.0.2") as made:
        yield made


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with Host({"/a.png": image(PNG), "/b.png": image(OTHER), "/large": image(b"x" * 500_000)}) as made:
        yield made


@pytest.fixture(scope="module")
def shared(loaded: tuple[Runner, ModelFacts], host: Host, slow: Host) -> Iterator[Running]:
    entries = (f"private images.test:{host.port}", f"private slow.test:{slow.port}", "secret.test", "private none.test")
    with serving(
        loaded, resolver=Names(**NAMES), url_allowlist=entries, max_url_fetches=16, max_upload_bytes=400_000,
        max_inflight_bytes=1_000_000,
    ) as running:  # fmt: skip
        yield running


@pytest.fixture
def server(shared: Running) -> Iterator[Running]:
    yield shared
    until(shared.is_empty)
    assert shared.embed(PNG, max_tokens=1).status_code == 200


def vector(answer: Any) -> list[float]:
    assert answer.status_code == 200, answer.text
    found: list[float] = answer.json()["data"][0]["embedding"]
    return found


def test_an_image_from_a_url_gets_the_bits_of_one_that_is_sent(server: Running, host: Host) -> None:
    answer = server.embed_json(image=host.url("/a.png"), max_tokens=16)
    assert vector(answer) == vector(server.embed(PNG, max_tokens=16))
    assert vector(server.embed_json(images=[{"url": host.url("/a.png")}], max_tokens=16)) == vector(answer)
    stages = [stage.partition(";")[0] for stage in answer.headers["server-timing"].split(", ")]
    assert stages == ["receive", "fetch", "decode", "queue", "pack", "forward", "respond"]


def test_openais_inputs_may_be_urls(server: Running, host: Host) -> None:
    urls = [host.url("/a.png"), host.url("/b.png")]
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    for content in ({"input": urls}, {"input": parts}, {"messages": [{"content": parts}]}):
        answer = server.http.post("/v1/embeddings", json=content, headers={"Packlight-Parts": "separate"})
        assert answer.status_code == 200, answer.text
        assert len(answer.json()["data"]) == 2
        assert vector(answer) == vector(server.embed(PNG))


def test_errors_name_the_input_that_the_caller_wrote(server: Running, host: Host) -> None:
    answer = server.http.post("/v1/embeddings", json={"input": [host.url("/a.png"), host.url("/none")]})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"], error["index"]) == (422, "fetch_failed", "input", 1)
    assert "status 404" in error["message"]


def test_many_urls_of_one_request_are_fetched_and_answered_in_order(server: Running, host: Host) -> None:
    before = server.metric("url_fetches_total", outcome="fetched")
    urls = [host.url("/a.png" if number % 2 else "/b.png") for number in range(64)]
    answer = server.embed_json(images=urls, max_tokens=4)
    assert answer.status_code == 200, answer.text
    assert [tuple(item["size"]) for item in answer.json()["data"]] == [(80, 40), (48, 64)] * 32
    assert server.metric("url_fetches_total", outcome="fetched") == before + 64


def test_images_may_come_both_ways_in_one_request(server: Running, host: Host) -> None:
    uri = "data:image/png;base64," + b64encode(OTHER).decode()
    answer = server.embed_json(images=[uri, host.url("/a.png"), uri], max_tokens=4)
    assert [tuple(item["size"]) for item in answer.json()["data"]] == [(80, 40), (48, 64), (80, 40)]


def test_one_url_that_fails_harms_no_other_where_the_request_says_so(server: Running, host: Host) -> None:
    urls = [host.url("/a.png"), host.url("/none"), host.url("/large"), host.url("/b.png"), "http://secret.test/"]
    answer = server.embed_json(images=urls, partial=True, max_tokens=4)
    assert answer.status_code == 200
    found = [item.get("error", {}).get("code") for item in answer.json()["data"]]
    assert found == [None, "fetch_failed", "too_large", None, "invalid"]
    assert error_of(server.embed_json(images=urls, max_tokens=4))[0] in (413, 422)


@pytest.mark.parametrize(
    ("url", "status", "code"),
    [
        ("http://other.test/", 422, "invalid"),
        ("http://images.test/", 422, "invalid"),
        ("http://user:secret@images.test/", 422, "invalid"),
        ("HTTP://127.0.0.1/", 422, "invalid"),
        ("http://secret.test/", 422, "invalid"),
        ("http://none.test/", 422, "fetch_failed"),
    ],
)
def test_what_is_not_fetched_is_named(server: Running, url: str, status: int, code: str) -> None:
    answer = server.embed_json(images=[url])
    assert error_of(answer)[:2] == (status, code)
    assert error_of(answer)[2:] == ("images", 0)
    assert "secret" not in answer.json()["error"]["message"]
    assert "10.0.0.7" not in answer.text


def test_an_image_over_the_limit_of_a_request_is_too_large(server: Running, host: Host) -> None:
    answer = server.embed_json(image=host.url("/large"))
    assert error_of(answer)[:2] == (413, "too_large")
    assert "max_upload_bytes" in answer.json()["error"]["message"]


def test_the_images_of_a_request_share_its_limit(server: Running, host: Host) -> None:
    host.answers["/part"] = image(PNG + b"\0" * (150_000 - len(PNG)))
    assert server.embed_json(images=[host.url("/part")] * 2, max_tokens=4).status_code == 200
    assert error_of(server.embed_json(images=[host.url("/part")] * 3, max_tokens=4))[:2] == (413, "too_large")


def test_bytes_that_do_not_fit_now_are_refused_with_a_time(loaded: tuple[Runner, ModelFacts], host: Host) -> None:
    entries = (f"private images.test:{host.port}",)
    host.answers["/part"] = image(PNG + b"\0" * (70_000 - len(PNG)))
    with serving(
        loaded, resolver=Names(**NAMES), url_allowlist=entries, max_upload_bytes=100_000, max_inflight_bytes=100_000
    ) as running:
        running.runner.hold()
        with ThreadPoolExecutor() as pool, running.connect() as connection:
            # An upload that does not come to its end.
            connection.sendall(raw_request(b"x" * 60_000, "Content-Length: 60001"))
            until(lambda: running.metric("inflight_bytes") >= 60_000)
            answer = pool.submit(running.embed_json, image=host.url("/part")).result()
            assert error_of(answer)[:2] == (429, "overloaded")
            assert int(answer.headers["retry-after"]) >= 1
        running.runner.free.set()
        until(running.is_empty)
        assert running.embed_json(image=host.url("/part")).status_code == 200


def test_a_hanging_host_makes_nobody_else_wait(server: Running, host: Host, slow: Host) -> None:
    free = threading.Event()

    def late(connection: socket.socket) -> None:
        assert free.wait(PATIENCE_S)
        connection.sendall(reply(status="404 Not Found"))

    slow.answers["/late"] = late
    before = len(slow.heads)
    urls = [slow.url("/late", name="slow.test")] * 4
    with ThreadPoolExecutor(20) as pool:
        hanging = [pool.submit(server.embed_json, images=urls, timeout_ms=60_000) for _ in range(20)]
        # A quarter of the fetches.
        until(lambda: len(slow.heads) == before + 4)
        assert server.embed(PNG).status_code == 200
        assert server.embed_json(images=[host.url("/a.png")] * 8, max_tokens=4).status_code == 200
        assert server.http.get("/livez").status_code == 200
        assert not any(each.done() for each in hanging)
        assert len(slow.heads) == before + 4
        free.set()
        assert {error_of(each.result())[:2] for each in hanging} == {(422, "fetch_failed")}


def test_bulk_leaves_an_interactive_request_a_turn_of_the_host_it_hangs_on(
    server: Running, host: Host, slow: Host
) -> None:
    free = threading.Event()

    def late(connection: socket.socket) -> None:
        assert free.wait(PATIENCE_S)
        connection.sendall(reply(status="404 Not Found"))

    slow.answers |= {"/bulk": late, "/a.png": image(PNG)}
    before = len(slow.heads)
    bulk = {"images": [slow.url("/bulk", name="slow.test")] * 4, "priority": "bulk", "timeout_ms": 60_000}
    with ThreadPoolExecutor(8) as pool:
        hanging = [pool.submit(server.embed_json, **bulk) for _ in range(8)]
        # Three quarters of the four that a host has.
        until(lambda: len(slow.heads) == before + 3)
        for _ in range(3):
            answer = server.embed_json(image=slow.url("/a.png", name="slow.test"), max_tokens=16)
            assert vector(answer) == vector(server.embed(PNG, max_tokens=16))
        assert len(slow.heads) == before + 3 + 3
        assert not any(each.done() for each in hanging)
        free.set()
        assert {error_of(each.result())[:2] for each in hanging} == {(422, "fetch_failed")}


def test_the_deadline_ends_a_fetch_and_closes_its_connection(server: Running, slow: Host) -> None:
    while slow.left.acquire(blocking=False):
        pass
    answer = server.embed_json(image=slow.url("/1", name="slow.test"), timeout_ms=300)
    assert error_of(answer)[:2] == (504, "deadline_exceeded")
    assert slow.left.acquire(timeout=60)


def test_a_client_that_leaves_frees_everything(server: Running, slow: Host) -> None:
    while slow.left.acquire(blocking=False):
        pass
    before = len(slow.heads), server.metric("url_fetches_total", outcome="abandoned")
    content = json.dumps({"images": [slow.url("/2", name="slow.test")] * 8}).encode()
    with server.connect() as connection:
        connection.sendall(raw_request(content, kind="application/json"))
        until(lambda: len(slow.heads) == before[0] + 4)
        assert not server.is_empty()
    until(server.is_empty)
    until(lambda: server.metric("url_fetches_total", outcome="abandoned") == before[1] + 8)
    for _ in range(4):
        assert slow.left.acquire(timeout=60)
    assert len(slow.heads) == before[0] + 4


def test_by_default_nothing_is_fetched(loaded: tuple[Runner, ModelFacts]) -> None:
    listener = Listener()
    with serving(loaded) as running:
        for content in ({"image": f"http://127.0.0.1:{listener.port}/"}, {"images": [{"url": "https://a.test/"}]}):
            answer = running.embed_json(**content)
            assert error_of(answer)[:2] == (422, "invalid")
            assert "url_allowlist" in answer.json()["error"]["message"]
            assert "allow_urls" in answer.json()["error"]["message"]
        assert running.http.get("/info").json()["image_urls"] == "off"
    assert not listener.heard()
    listener.close()


def test_public_hosts_are_fetched_from_their_public_addresses_alone(loaded: tuple[Runner, ModelFacts]) -> None:
    listener = Listener()
    with serving(loaded, allow_urls="public", resolver=Names(**NAMES)) as running:
        for url in (
            "http://images.test/",
            "http://127.0.0.1/",
            "https://[::1]/",
            f"http://images.test:{listener.port}/",
        ):
            assert error_of(running.embed_json(image=url))[:2] == (422, "invalid")
        assert running.http.get("/info").json()["image_urls"] == "public"
    assert not listener.heard()
    listener.close()


def test_info_says_that_some_hosts_are_listed_and_not_which(server: Running) -> None:
    info = server.http.get("/info")
    assert info.json()["image_urls"] == "listed"
    assert "images.test" not in info.text


def test_a_text_that_begins_with_a_url_is_told_its_form_where_urls_are_fetched(server: Running) -> None:
    answer = server.http.post("/v1/embeddings", json={"input": ["https://images.test is down"]})
    assert error_of(answer) == (422, "invalid", "input", 0)
    assert '{"type": "text"' in answer.json()["error"]["message"]
