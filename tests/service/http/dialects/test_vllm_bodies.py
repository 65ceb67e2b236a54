"""What holds for every body that vLLM's clients send: no key of it is ignored, wherever it stands."""

import pytest

from tests.service.http.dialects.vllm_bodies import BODIES, PHOTO, Asked, places, put
from tests.service.running import Running, error_of

every_body = pytest.mark.parametrize("asked", BODIES, ids=lambda asked: asked.name)


@every_body
def test_a_picture_has_the_bits_of_embed_and_counts_once(server: Running, asked: Asked) -> None:
    ours = server.embed(PHOTO).json()
    label = {"dialect": asked.dialect.name, "status": "200"}
    counted, charged = server.counted("requests_total", **label), server.counted("charged_tokens_total")
    answer = server.http.post(asked.dialect.paths[0], json=asked.body)
    assert answer.status_code == 200, answer.text
    assert all(vector == ours["data"][0]["embedding"] for vector in asked.items(answer.json()))
    assert asked.tokens(answer.json()) == asked.images * ours["usage"]["tokens"]
    assert server.counted("requests_total", **label) == counted + 1
    assert server.counted("charged_tokens_total") == charged + asked.tokens(answer.json())
    assert answer.headers["X-Fingerprint"] == ours["fingerprint"]


@every_body
def test_every_path_of_a_dialect_answers_the_same(server: Running, asked: Asked) -> None:
    answers = [server.http.post(path, json=asked.body) for path in asked.dialect.paths]
    assert {answer.content for answer in answers} == {answers[0].content}


@every_body
def test_an_unknown_key_is_named_wherever_it_stands(server: Running, asked: Asked) -> None:
    for path in places(asked.body):
        answer = server.http.post(asked.dialect.paths[0], json=put(asked.body, path, "surprise", 1))
        assert answer.status_code == 422, (path, answer.text)
        assert "surprise" in answer.json()["error"]["message"]
        if path:
            assert answer.json()["error"]["param"] == path[0]


@every_body
def test_null_is_as_if_left_out_wherever_it_stands(server: Running, asked: Asked) -> None:
    plain = server.http.post(asked.dialect.paths[0], json=asked.body)
    for path in places(asked.body):
        changed = put(asked.body, path, "surprise", None)
        assert server.http.post(asked.dialect.paths[0], json=changed).content == plain.content
    nulls = {name: None for name in asked.dialect.model.model_fields if name not in asked.body}
    assert server.http.post(asked.dialect.paths[0], json=asked.body | nulls).content == plain.content


@every_body
def test_another_model_is_not_found(server: Running, asked: Asked) -> None:
    answer = server.http.post(asked.dialect.paths[0], json=asked.body | {"model": "another"})
    assert error_of(answer)[:3] == (404, "not_found", "model")
    alias = server.http.post(asked.dialect.paths[0], json=asked.body | {"model": "default/not-specified"})
    assert alias.status_code == 200
