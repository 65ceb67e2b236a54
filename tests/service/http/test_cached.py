"""A real server that remembers: what it answers from memory equals what it computed, and costs no decode, no pack and
no tokens of the queue."""

import asyncio
import base64
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
import safetensors.numpy

from model.running.runner import Runner
from service.limits import ModelFacts
from tests import pictures
from tests.service.fetching.hosts import Host, Names, image
from tests.service.running import Running, raw_request, serving, until


@pytest.fixture(scope="module")
def remembering(loaded: tuple[Runner, ModelFacts]) -> Iterator[Running]:
    with serving(loaded, cache_bytes=2**20) as running:
        yield running


@pytest.fixture
def server(remembering: Running) -> Iterator[Running]:
    yield remembering
    until(remembering.is_empty)


@pytest.fixture
def picture(request: pytest.FixtureRequest) -> bytes:
    """One that no other test sends."""
    return drawn(sum(map(ord, request.node.name)))


def drawn(seed: int) -> bytes:
    return pictures.save(pictures.picture(40 + seed % 97, 64 + seed % 89), "PNG") + b"\0" * (seed % 50)


def work_of(server: Running) -> tuple[int, int]:
    return server.decoder.decodes, len(server.runner.packs)


def test_a_second_request_is_answered_from_memory(server: Running, picture: bytes) -> None:
    first = server.embed(picture, max_tokens=32).json()
    before, saved = work_of(server), server.metric("cache_saved_tokens_total")
    answer = server.embed(picture, max_tokens=32)
    second = answer.json()
    assert work_of(server) == before
    assert "cached" not in first["data"][0]
    assert "cached_tokens" not in first["usage"]
    assert second["data"][0].pop("cached") is True
    tokens = second["usage"].pop("cached_tokens")
    assert second == first
    assert tokens == first["usage"]["tokens"] == server.metric("cache_saved_tokens_total") - saved
    assert answer.headers["X-Cached-Tokens"] == str(tokens)
    assert "cache;dur=" in answer.headers["Server-Timing"]
    assert "Packlight-Packs" not in answer.headers
    assert 0 < server.metric("cache_bytes") <= 2**20


SHAPES: tuple[dict[str, object], ...] = (
    {}, {"normalize": False}, {"dimensions": 16}, {"dimensions": 16, "embedding_type": "float16"},
    {"embedding_type": "int8"}, {"embedding_type": "ubinary"}, {"encoding": "base64"}, {"output": "segments"},
)  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_form_of_a_vector_has_the_bits_that_were_computed(server: Running, shape: dict[str, object]) -> None:
    """One entry serves them all."""
    picture = drawn(7)
    server.embed(picture, strategy="anyres", max_tokens=1024)
    remembered = server.embed(picture, strategy="anyres", max_tokens=1024, **shape).json()["data"][0]
    assert remembered.pop("cached")
    # A bound on the whole request, which is not reached, is computed anew.
    computed = server.embed(picture, strategy="anyres", max_tokens=1024, max_request_tokens=1024, **shape)
    assert remembered == computed.json()["data"][0]


@pytest.mark.parametrize("media_type", ["application/x-npy", "application/x-safetensors"])
def test_arrays_say_which_images_were_remembered(server: Running, picture: bytes, media_type: str) -> None:
    files = [("image", ("a.png", each, "image/png")) for each in (drawn(1001), picture, drawn(1002))]
    server.embed(picture)
    answers = [server.http.post("/embed", files=files, headers={"Accept": media_type}) for _ in range(2)]
    if media_type.endswith("npy"):
        assert [each.headers["X-Image-Cached"] for each in answers][1] == "0,1,2"
    else:
        arrays = [safetensors.numpy.load(each.content)["embeddings"] for each in answers]
        assert np.array_equal(arrays[0], arrays[1])
        assert b'"cached":"0,1,2"' in answers[1].content
    assert answers[0].content[-256:] == answers[1].content[-256:]


def test_another_dialect_finds_the_picture_and_says_so_in_its_own_words(server: Running, picture: bytes) -> None:
    own = server.embed(picture, encoding="base64").json()
    uri = "data:image/png;base64," + base64.b64encode(picture).decode()
    body = {"model": server.facts.name, "input": [uri], "encoding_format": "base64"}
    answer = server.http.post("/v1/embeddings", json=body).json()
    assert answer["data"][0]["embedding"] == own["data"][0]["embedding"]
    tokens = own["usage"]["tokens"]
    details = {"cached_tokens": tokens}
    assert answer["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens, "prompt_tokens_details": details}
    cohere = {"model": server.facts.name, "images": [uri], "input_type": "image", "embedding_types": ["float"]}
    answered = server.http.post("/v2/embed", json=cohere)
    assert answered.headers["X-Cached-Tokens"] == str(tokens)
    vector = np.frombuffer(base64.b64decode(own["data"][0]["embedding"]), "<f4")
    assert np.array_equal(np.float32(answered.json()["embeddings"]["float"][0]), vector)


@pytest.mark.parametrize(
    "other", [{"max_tokens": 20}, {"strategy": "square"}, {"decode": "fast"}, {"output": "tokens"}], ids=str
)
def test_what_shapes_the_vector_is_part_of_the_key(server: Running, picture: bytes, other: dict[str, object]) -> None:
    server.embed(picture)
    assert "cached" not in server.embed(picture, **other).json()["data"][0]


def test_a_broken_picture_is_not_remembered(server: Running, picture: bytes) -> None:
    broken = picture[:60]
    answers = [server.embed(broken) for _ in range(2)]
    assert answers[0].status_code == answers[1].status_code == 422
    twice = server.embed_form([broken, broken, picture], partial=True).json()
    assert ["error" in item for item in twice["data"]] == [True, True, False]


def test_one_request_with_a_picture_twice_embeds_it_once(server: Running, picture: bytes) -> None:
    before = server.decoder.decodes
    answer = server.embed_form([picture, picture]).json()
    first, second = answer["data"]
    assert (first.get("cached"), second.get("cached")) == (None, True)
    assert first["embedding"] == second["embedding"]
    assert server.decoder.decodes == before + 1
    assert answer["usage"]["tokens"] == 2 * answer["usage"]["cached_tokens"] == 2 * first["tokens"]


def test_requests_for_one_picture_at_a_time_run_once(server: Running, picture: bytes) -> None:
    before = work_of(server)
    server.runner.hold()

    async def ask() -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=server.http.base_url, timeout=60, trust_env=False) as http:
            headers = {"Content-Type": "image/png"}
            asked = [asyncio.ensure_future(http.post("/embed", content=picture, headers=headers)) for _ in range(6)]
            await asyncio.to_thread(until, lambda: server.metric("inflight_bytes") >= 5 * len(picture))
            await asyncio.to_thread(server.runner.entered.wait, 60)
            # Those who wait hold no tokens.
            assert server.metric("queue_tokens") < 2 * 256
            server.runner.free.set()
            return await asyncio.gather(*asked)

    answers = [answer.json() for answer in asyncio.run(ask())]
    assert work_of(server) == (before[0] + 1, before[1] + 1)
    assert len({tuple(answer["data"][0]["embedding"]) for answer in answers}) == 1
    assert sorted("cached" in answer["data"][0] for answer in answers) == [False, *[True] * 5]


def test_others_go_on_when_the_first_has_gone(server: Running, picture: bytes) -> None:
    server.decoder.headers_free.clear()
    leads = server.connect()
    head = f"POST /embed HTTP/1.1\r\nHost: t\r\nContent-Type: image/png\r\nContent-Length: {len(picture)}\r\n\r\n"
    leads.sendall(head.encode() + picture)
    until(lambda: server.metric("inflight_bytes") == len(picture))
    answers: list[httpx.Response] = []
    waiting = [threading.Thread(target=lambda: answers.append(server.embed(picture))) for _ in range(3)]
    for thread in waiting:
        thread.start()
    until(lambda: server.metric("inflight_bytes") == 4 * len(picture))
    leads.close()
    until(lambda: server.metric("inflight_bytes") == 3 * len(picture))
    server.decoder.headers_free.set()
    for thread in waiting:
        thread.join()
    assert [answer.status_code for answer in answers] == [200] * 3
    assert len({tuple(answer.json()["data"][0]["embedding"]) for answer in answers}) == 1


def test_a_picture_from_a_url_is_fetched_and_then_found(loaded: tuple[Runner, ModelFacts]) -> None:
    """A URL may show another picture tomorrow, so its bytes count, not its name."""
    picture = drawn(55)
    with Host({"/a.png": image(picture)}) as host:
        entries = (f"private images.test:{host.port}",)
        names = Names(images_test=["127.0.0.1"])
        with serving(loaded, resolver=names, url_allowlist=entries, cache_bytes=10**6) as server:
            sent = server.embed(picture).json()
            for _ in range(2):
                fetched = server.embed_json(image=host.url("/a.png"))
                assert fetched.json()["data"][0].pop("cached") is True
                assert fetched.json()["data"][0]["embedding"] == sent["data"][0]["embedding"]
            stages = [stage.partition(";")[0] for stage in fetched.headers["server-timing"].split(", ")]
            assert stages == ["receive", "fetch", "cache", "respond"]
            assert server.decoder.decodes == 1
            until(server.is_empty)


def test_a_full_memory_never_grows(loaded: tuple[Runner, ModelFacts]) -> None:
    with serving(loaded, cache_bytes=8000) as small:
        vectors: dict[int, list[float]] = {}
        for seed in (1, 2, 3, 4, 1, 2, 3, 4):
            (item,) = small.embed(drawn(seed), max_tokens=16).json()["data"]
            assert vectors.setdefault(seed, item["embedding"]) == item["embedding"]
            assert small.metric("cache_bytes") <= 8000


def test_nothing_is_remembered_by_default(loaded: tuple[Runner, ModelFacts]) -> None:
    with serving(loaded) as plain:
        answers = [plain.embed(drawn(1), max_tokens=16) for _ in range(2)]
        assert answers[0].json() == answers[1].json()
        assert plain.decoder.decodes == 2


def test_a_picture_that_is_known_is_answered_though_the_queue_is_full(loaded: tuple[Runner, ModelFacts]) -> None:
    known, other = drawn(1), drawn(2)
    with (
        serving(loaded, cache_bytes=2**20, max_image_tokens=16, max_queue_tokens=16) as full,
        ThreadPoolExecutor() as pool,
    ):
        first = full.embed(known).json()["data"][0]["embedding"]
        full.runner.hold()
        waiting = pool.submit(full.embed, drawn(3))
        until(lambda: full.runner.entered.is_set())
        found = full.embed(known)
        assert found.json()["data"][0]["embedding"] == first
        assert full.embed_form([known, known]).json()["usage"]["cached_tokens"] == 2 * found.json()["usage"]["tokens"]
        decodes = full.decoder.decodes
        refused = full.embed(other)
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "overloaded")
        assert "max_queue_tokens" in refused.json()["error"]["message"]
        assert full.embed_form([known, other]).status_code == 429
        assert full.decoder.decodes == decodes
        full.runner.free.set()
        assert waiting.result().status_code == 200
        until(full.is_empty)


def test_a_full_server_fetches_nothing_and_reads_no_text_to_see_what_is_known(
    loaded: tuple[Runner, ModelFacts],
) -> None:
    known, whole = drawn(1), pictures.save(pictures.picture(64, 64), "PNG")
    with (
        Host({"/a.png": image(known)}) as host,
        serving(
            loaded, resolver=Names(images_test=["127.0.0.1"]), url_allowlist=(f"private images.test:{host.port}",),
            cache_bytes=2**20, max_image_tokens=16, max_queue_tokens=16,
        ) as full,
        ThreadPoolExecutor() as pool,
    ):  # fmt: skip
        full.embed(known)
        full.runner.hold()
        waiting = pool.submit(full.embed, whole)
        until(lambda: full.metric("queue_tokens") == 16)
        refused = full.embed_json(image=host.url("/a.png"))
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "overloaded")
        assert not host.heads
        assert full.embed(known, max_request_tokens=16).status_code == 429
        assert full.embed(known).status_code == 200
        full.runner.free.set()
        assert waiting.result().status_code == 200
        until(full.is_empty)


def test_a_full_server_that_knows_no_picture_refuses_before_the_body_has_come(
    loaded: tuple[Runner, ModelFacts],
) -> None:
    with (
        serving(loaded, cache_bytes=2**20, max_image_tokens=16, max_queue_tokens=16) as full,
        ThreadPoolExecutor() as pool,
    ):
        full.runner.hold()
        waiting = pool.submit(full.embed, drawn(3))
        until(lambda: full.runner.entered.is_set())
        with full.connect() as connection:
            connection.sendall(raw_request(b"", "Content-Length: 1000"))
            assert connection.recv(100).startswith(b"HTTP/1.1 429")
        full.runner.free.set()
        assert waiting.result().status_code == 200
