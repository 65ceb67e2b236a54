"""What holds in every dialect: vectors, counts and metrics are those of `/embed`, and what is not understood is
refused in the dialect's own shape."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from model.running.runner import Runner
from service.limits import ModelFacts
from tests import pictures
from tests.service.http.dialects.spoken import DIALECTS, Spoken, uri
from tests.service.running import Running, serving, until

PHOTO = pictures.small_photograph()
WIDE = pictures.save(pictures.picture(40, 160), "PNG")
Loaded = tuple[Runner, ModelFacts]


@pytest.fixture(params=DIALECTS, ids=lambda dialect: dialect.name)
def spoken(request: pytest.FixtureRequest) -> Spoken:
    dialect: Spoken = request.param
    return dialect


def test_an_answer_has_the_bits_and_the_tokens_of_embed(texts_server: Running, spoken: Spoken) -> None:
    images, texts = [uri(PHOTO), uri(WIDE)], ["a red bicycle", "two dogs"]
    ours = texts_server.http.post("/embed", json={"images": images, "texts": texts}).json()
    answer = spoken.ask(texts_server, images, texts)
    assert answer.status_code == 200, answer.text
    theirs = answer.json()
    assert spoken.vectors(theirs) == [item["embedding"] for item in ours["data"]]
    assert spoken.tokens(theirs) in (None, ours["usage"]["tokens"])
    assert answer.headers["X-Fingerprint"] == ours["fingerprint"]
    assert answer.headers["X-Text-Fingerprint"] == ours["text_fingerprint"]


def test_a_request_counts_once_under_its_dialect(texts_server: Running, spoken: Spoken) -> None:
    def counts() -> list[float]:
        return [
            texts_server.counted("requests_total", route=spoken.path, dialect=spoken.name, status="200"),
            texts_server.counted("requests_total"),
            texts_server.counted("images_total", outcome="embedded"),
            texts_server.counted("texts_total", outcome="embedded"),
            texts_server.counted("charged_tokens_total"),
        ]

    tokens = texts_server.http.post("/embed", json={"images": [uri(PHOTO)], "texts": ["a"]}).json()["usage"]["tokens"]
    before = counts()
    assert spoken.ask(texts_server, [uri(PHOTO)], ["a"]).status_code == 200
    assert [after - earlier for after, earlier in zip(counts(), before, strict=True)] == [1, 1, 1, 1, tokens]


def test_null_is_as_if_left_out(texts_server: Running, spoken: Spoken) -> None:
    plain = spoken.ask(texts_server, [uri(PHOTO)], ["a"])
    nulls = spoken.ask(texts_server, [uri(PHOTO)], ["a"], **dict.fromkeys(spoken.optional))
    assert spoken.vectors(nulls.json()) == spoken.vectors(plain.json())


def test_every_optional_field_is_taken(texts_server: Running, spoken: Spoken) -> None:
    for name, value in spoken.optional.items():
        answer = spoken.ask(texts_server, [uri(PHOTO)], **{name: value})
        assert answer.status_code == 200, (name, answer.text)


def test_an_unknown_key_is_refused_by_its_name(texts_server: Running, spoken: Spoken) -> None:
    status, message = spoken.refusal(spoken.ask(texts_server, [uri(PHOTO)], colour=True))
    assert status == 422
    assert "'colour'" in message
    if spoken.nested is None:
        return
    for depth in range(2, len(spoken.nested) + 1, 2):
        body: Any = spoken.body([uri(PHOTO)], [])
        place = body
        for step in spoken.nested[:depth]:
            place = place[step]
        place["colour"] = True
        status, message = spoken.refusal(texts_server.http.post(spoken.path, json=body))
        assert (status, "colour" in message) == (422, True), message
        assert message.startswith(spoken.named("image", 0).partition("[")[0]), message


def test_a_field_in_the_query_is_refused_rather_than_ignored(texts_server: Running, spoken: Spoken) -> None:
    body = spoken.body([uri(PHOTO)], [])
    for name in ("max_tokens", "strategy", "expect_fingerprint", *spoken.optional):
        if name == "priority":
            continue
        status, message = spoken.refusal(texts_server.http.post(f"{spoken.path}?api-version=1&{name}=4", json=body))
        assert status == 422, name
        assert message.endswith(f"{name} is in the query, and this path reads it in the body alone")


def test_what_gateways_put_into_a_query_changes_nothing(texts_server: Running, spoken: Spoken) -> None:
    body = spoken.body([uri(PHOTO)], [])
    answer = texts_server.http.post(f"{spoken.path}?api-version=2024-10-21&beta=true&priority=bulk", json=body)
    assert spoken.vectors(answer.json()) == spoken.vectors(spoken.ask(texts_server, [uri(PHOTO)]).json())
    assert answer.headers["X-Priority"] == "bulk"


def test_a_value_of_a_wrong_kind_is_refused_by_its_place(texts_server: Running, spoken: Spoken) -> None:
    body: Any = spoken.body([uri(PHOTO), uri(PHOTO)], [])
    listed = next(value for value in body.values() if isinstance(value, list))
    listed[1] = 1.5
    status, message = spoken.refusal(texts_server.http.post(spoken.path, json=body))
    assert status == 422
    assert message.startswith(spoken.named("image", 1)), message


@pytest.mark.parametrize(
    ("image", "status"),
    [("data:image/png;base64,????", 400), (uri(PHOTO[:5000]), 422), (uri(b"a text"), 415), ("http://a.b/c.png", 422)],
)
def test_a_bad_image_is_refused_by_its_place(texts_server: Running, spoken: Spoken, image: str, status: int) -> None:
    refused, message = spoken.refusal(spoken.ask(texts_server, [uri(PHOTO), image]))
    assert refused == status
    assert message.startswith(spoken.named("image", 1)), message


def test_a_text_is_refused_by_its_place_if_the_model_takes_none(server: Running, spoken: Spoken) -> None:
    status, message = spoken.refusal(spoken.ask(server, [uri(PHOTO)], ["a"]))
    assert status == 422
    assert message.startswith(spoken.named("text", 1)), message
    assert "packlight-tiny takes no texts" in message


def test_too_many_of_a_kind_are_refused(texts_server: Running, spoken: Spoken) -> None:
    for images, texts in (([uri(WIDE)] * 5, []), ([], ["a"] * 5)):
        status, message = spoken.refusal(spoken.ask(texts_server, images, texts))
        assert status == 413
        assert "per_request" in message


def test_a_body_that_is_no_json_and_one_that_is_empty(texts_server: Running, spoken: Spoken) -> None:
    for body, status in ((b"{", 400), (b"{}", 422)):
        answer = texts_server.http.post(spoken.path, content=body)
        assert answer.status_code == status
        assert spoken.shares_path or spoken.refusal(answer)[0] == status
    assert texts_server.http.post(spoken.path, json=spoken.body([], [])).status_code == 422


def test_refusals_at_the_door_have_the_dialects_shape(loaded: Loaded) -> None:
    limits: dict[str, Any] = {"max_image_tokens": 12, "max_queue_tokens": 12}
    with serving(loaded, api_keys=("secret",), **limits) as server, ThreadPoolExecutor() as pool:
        for spoken in DIALECTS:
            answer = spoken.ask(server, [uri(PHOTO)])
            assert answer.status_code == 401
            assert spoken.shares_path or spoken.refusal(answer)[0] == 401
        server.http.headers["Authorization"] = "Bearer secret"
        server.runner.hold()
        first = pool.submit(server.embed, PHOTO)
        until(lambda: server.metric("queue_tokens"))
        for spoken in DIALECTS:
            answer = spoken.ask(server, [uri(PHOTO)])
            assert (answer.status_code, "max_queue_tokens" in answer.text) == (429, True)
            assert spoken.shares_path or spoken.refusal(answer)[0] == 429
            assert int(answer.headers["Retry-After"]) >= 1
        server.runner.free.set()
        assert first.result().status_code == 200
