"""Interactive and bulk requests at the door: who says the class, what it is told, and what each class is refused."""

from collections.abc import Iterator

import pytest

from model.running.runner import Runner
from service.limits import ModelFacts
from tests import pictures
from tests.service.http.dialects.spoken import DIALECTS, Spoken, uri
from tests.service.running import Running, serving, until

PNG = pictures.save(pictures.picture(48, 64), "PNG")
BULK = {"X-Priority": "bulk"}
Loaded = tuple[Runner, ModelFacts]


def request(query: str) -> bytes:
    head = f"POST /embed{query} HTTP/1.1\r\nHost: a\r\nContent-Type: image/png\r\nContent-Length: {len(PNG)}\r\n\r\n"
    return head.encode() + PNG


def bulk_requests(server: Running) -> float:
    return server.metric("priority_request_seconds_count", priority="bulk")


@pytest.mark.parametrize("said", ["bulk", "1", "17", "1" + "0" * 30])
def test_a_request_says_its_class_in_the_query_the_form_the_body_or_a_header(server: Running, said: str) -> None:
    before = bulk_requests(server)
    answers = [
        server.embed(PNG, priority=said),
        server.embed_form([PNG], priority=said),
        server.embed_json(images=[uri(PNG)], priority=int(said) if said.isdigit() else said),
        server.http.post("/embed", content=PNG, headers={"Content-Type": "image/png", "X-Priority": said}),
    ]
    assert [(each.status_code, each.headers.get("X-Priority")) for each in answers] == [(200, "bulk")] * 4
    until(lambda: bulk_requests(server) == before + 4)


def test_a_request_that_says_nothing_or_zero_is_interactive(server: Running) -> None:
    before = server.metric("priority_tokens_total", priority="interactive")
    answers = [server.embed(PNG), server.embed(PNG, priority=0), server.embed(PNG, priority="interactive")]
    assert all(each.status_code == 200 and "X-Priority" not in each.headers for each in answers)
    tokens = sum(each.json()["usage"]["tokens"] for each in answers)
    until(lambda: server.metric("priority_tokens_total", priority="interactive") == before + tokens)


def test_one_place_that_says_bulk_is_enough(server: Running) -> None:
    answer = server.http.post("/embed?priority=interactive", content=PNG, headers=BULK | {"Content-Type": "image/png"})
    assert answer.headers["X-Priority"] == "bulk"
    twice = server.http.post("/embed?priority=bulk&priority=0", content=PNG, headers={"Content-Type": "image/png"})
    assert (twice.status_code, twice.json()["error"]["param"]) == (422, "priority")


def test_a_header_that_names_no_class_is_refused(server: Running) -> None:
    answer = server.http.post("/embed", content=PNG, headers={"Content-Type": "image/png", "X-Priority": "urgent"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, "priority")
    assert "interactive or bulk" in answer.json()["error"]["message"]


def test_a_refusal_of_a_bulk_request_says_so_though_its_length_is_wrong_already(server: Running) -> None:
    too_long = server.connect()
    with too_long:
        too_long.sendall(b"POST /embed?priority=bulk HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999999\r\n\r\n")
        answer = too_long.recv(4096).lower()
    assert answer.startswith(b"http/1.1 413")
    assert b"x-priority: bulk" in answer


@pytest.mark.parametrize("spoken", DIALECTS, ids=lambda dialect: dialect.name)
def test_every_dialect_takes_the_header_and_vllms_and_coheres_the_integer(server: Running, spoken: Spoken) -> None:
    assert server.http.post(spoken.path, json=spoken.body([uri(PNG)], []), headers=BULK).headers["X-Priority"] == "bulk"
    if "priority" in spoken.optional:
        given = {0: None, -3: None, 1: "bulk", "bulk": "bulk", "interactive": None}
        for named, told in given.items():
            assert spoken.ask(server, [uri(PNG)], [], priority=named).headers.get("X-Priority") == told


@pytest.fixture(scope="module")
def keyed(loaded: Loaded) -> Iterator[Running]:
    with serving(loaded, api_keys="for-search", bulk_keys="for-indexing") as server:
        yield server


@pytest.mark.parametrize("claimed", ["", "?priority=interactive", "?priority=0"])
def test_a_key_for_bulk_claims_nothing_else(keyed: Running, claimed: str) -> None:
    for key, told in (("for-search", None), ("for-indexing", "bulk")):
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "image/png"}
        answer = keyed.http.post(f"/embed{claimed}", content=PNG, headers=headers)
        assert (answer.status_code, answer.headers.get("X-Priority")) == (200, told)
    assert keyed.http.post("/embed", content=PNG, headers={"X-API-Key": "other"}).status_code == 401


def test_keys_for_bulk_alone_ask_for_a_key_too(loaded: Loaded) -> None:
    with serving(loaded, bulk_keys="for-indexing") as server:
        assert server.http.get("/info").status_code == 401
        assert server.http.get("/info", headers={"X-API-Key": "for-indexing"}).status_code == 200
        assert "securitySchemes" in server.http.get("/openapi.json").json()["components"]


def test_a_full_queue_of_bulk_lets_interactive_requests_in(loaded: Loaded, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "packlight.request")
    with serving(loaded, max_batch_tokens=1024, max_queue_tokens=2048, default_max_tokens=1024) as server:
        server.runner.hold()
        sent = [server.connect() for _ in range(4)]
        for connection in sent[:3]:
            connection.sendall(request("?max_tokens=512&priority=bulk"))
        until(lambda: server.metric("priority_queue_tokens", priority="bulk") > 1024)
        refused = server.embed(PNG, max_tokens=1024, priority="bulk")
        assert (refused.status_code, refused.headers["X-Priority"]) == (429, "bulk")
        assert "interactive_queue_share" in refused.json()["error"]["message"]

        def lines() -> list[tuple[str, str]]:
            fields = [vars(record).get("fields", {}) for record in caplog.records]
            return [(line["error"], line["reason"]) for line in fields if line.get("status") == 429]

        # The server logs a request after its answer.
        until(lines)
        assert lines() == [("overloaded", "queue_full")]
        sent[3].sendall(request("?max_tokens=256"))
        until(lambda: server.metric("priority_queue_tokens", priority="interactive") > 0)
        server.runner.free.set()
        for connection in sent:
            with connection:
                assert connection.recv(12) == b"HTTP/1.1 200"
        assert server.metric("priority_refused_total", priority="bulk", reason="queue_full") == 1
        assert server.metric("priority_refused_total", priority="interactive") == 0
        # Bulk that came before it waits: no image of it fits its share of this pack.
        assert server.runner.packs[1] == [252]
        until(server.is_empty)
