"""`expect_fingerprint`: a request for an index that the server's vectors do not belong in gets a 409."""

from typing import Any

import pytest

from model.fingerprint import identity_of
from model.running.runner import Runner
from service.limits import ModelFacts
from tests import pictures
from tests.service.http.dialects.spoken import DIALECTS, Spoken, uri
from tests.service.running import Running, error_of

PNG = pictures.save(pictures.picture(48, 64), "PNG")
HEADER = "X-Expect-Fingerprint"
OTHER = "fedcba9876543210-float32"
Loaded = tuple[Runner, ModelFacts]
IMAGE = {"Content-Type": "image/png"}


@pytest.fixture(scope="module")
def ours(loaded: Loaded) -> str:
    return loaded[1].fingerprint


def old_form(loaded: Loaded, fingerprint: str) -> str:
    return next(old for old, new in loaded[1].old_fingerprints.items() if new == fingerprint)


def test_the_servers_own_is_taken_in_every_form_and_place(server: Running, loaded: Loaded, ours: str) -> None:
    for expected in (ours, identity_of(ours), old_form(loaded, ours), f"{ours}, {identity_of(ours)}"):
        answers = [
            server.embed(PNG, expect_fingerprint=expected),
            server.embed_form([PNG], expect_fingerprint=expected),
            server.embed_json(images=[uri(PNG)], expect_fingerprint=expected),
            server.http.post("/embed", content=PNG, headers=IMAGE | {HEADER: expected}),
        ]
        assert [answer.status_code for answer in answers] == [200] * 4


def test_another_is_a_409_that_names_both_and_costs_no_decode(server: Running, ours: str) -> None:
    before, refused = server.decoder.decodes, server.metric("rejected_total", reason="fingerprint_mismatch")
    answers = [
        server.embed(PNG, expect_fingerprint=OTHER),
        server.embed_form([PNG], expect_fingerprint=OTHER),
        server.embed_json(images=[uri(PNG)], expect_fingerprint=OTHER),
        server.http.post("/embed", content=PNG, headers=IMAGE | {HEADER: OTHER}),
        server.embed(PNG, expect_fingerprint=f"{ours},{OTHER}"),
        server.http.post("/embed?expect_fingerprint=" + ours, content=PNG, headers=IMAGE | {HEADER: OTHER}),
    ]
    for answer in answers:
        assert error_of(answer) == (409, "fingerprint_mismatch", "expect_fingerprint", None)
        message = answer.json()["error"]["message"]
        assert f"is {OTHER} and the vectors of this server have {ours}: the weights, the model" in message
        assert answer.headers["X-Fingerprint"] == ours
    assert server.decoder.decodes == before
    assert server.metric("rejected_total", reason="fingerprint_mismatch") == refused + len(answers)


def test_another_dtype_or_decode_mode_is_named_as_such(server: Running, loaded: Loaded, ours: str) -> None:
    bfloat16 = f"{identity_of(ours)}-bfloat16"
    for expected in (bfloat16, old_form(loaded, bfloat16)):
        answer = server.embed(PNG, expect_fingerprint=expected)
        message = answer.json()["error"]["message"]
        assert answer.status_code == 409
        assert expected in message
        assert "only the dtype or decode mode differs (bfloat16, float32): the vectors of one picture have" in message
        assert message.endswith(f"expect {identity_of(ours)} to take any dtype and decode mode")
    assert server.embed(PNG, expect_fingerprint=ours, decode="fast").status_code == 409
    assert server.embed(PNG, expect_fingerprint=f"{ours}-fast", decode="fast").status_code == 200
    assert server.embed(PNG, expect_fingerprint=identity_of(ours), decode="fast").status_code == 200


@pytest.mark.parametrize("named", ["", " ", ",", " , "])
def test_an_expectation_of_nothing_is_refused(server: Running, named: str) -> None:
    assert error_of(server.embed(PNG, expect_fingerprint=named)) == (422, "invalid", "expect_fingerprint", None)


def test_a_long_expectation_is_not_repeated_whole(server: Running) -> None:
    answer = server.embed_json(images=[uri(PNG)], expect_fingerprint="x" * 5000)
    assert answer.status_code == 409
    assert len(answer.content) < 1000


@pytest.mark.parametrize("spoken", DIALECTS, ids=lambda dialect: dialect.name)
def test_every_dialect_takes_the_header(texts_server: Running, spoken: Spoken) -> None:
    facts = texts_server.facts
    assert facts.text
    body = spoken.body([uri(PNG)], ["a"])
    for expected, status in ((f"{facts.fingerprint},{facts.text.fingerprint}", 200), (OTHER, 409)):
        answer = texts_server.http.post(spoken.path, json=body, headers={HEADER: expected})
        assert answer.status_code == status, answer.text
    assert OTHER in spoken.refusal(answer)[1]
    assert facts.fingerprint in spoken.refusal(answer)[1]


@pytest.mark.parametrize("path", ["/v1/embeddings", "/embed", "/classify"])
def test_texts_have_a_fingerprint_of_their_own(texts_server: Running, path: str) -> None:
    facts = texts_server.facts
    assert facts.text
    bodies: dict[str, dict[str, Any]] = {
        "/v1/embeddings": {"input": ["a"]}, "/embed": {"texts": ["a"]},
        "/classify": {"images": [uri(PNG)], "labels": ["a", "b"]},
    }  # fmt: skip
    for expected, status in ((facts.text.fingerprint, 200), (facts.fingerprint, 200), (OTHER, 409)):
        answer = texts_server.http.post(path, json=bodies[path] | {"expect_fingerprint": expected})
        assert answer.status_code == status, answer.text
        assert answer.headers["X-Fingerprint"] == facts.fingerprint
