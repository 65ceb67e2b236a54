"""Jina's own fields, and how its bodies are told from OpenAI's, which has the same path."""

import base64
from typing import Any

import httpx
import numpy as np
import pytest

from service.http.dialects.dialect import Body
from service.http.dialects.jina import is_meant
from tests import pictures
from tests.service.http.dialects.spoken import b64, uri
from tests.service.running import Running

PHOTO = pictures.photograph_file("rocket.jpg")
LONG = "one word after another " * 40
TYPES = {"int8": "i1", "uint8": "u1", "binary": "i1", "ubinary": "u1"}
CAT = {"text": "a cat"}


def ask(server: Running, *inputs: Any, **content: Any) -> httpx.Response:
    return server.http.post("/v1/embeddings", json={"input": list(inputs)} | content)


def vectors(server: Running, *inputs: Any, **content: Any) -> list[Any]:
    answer = ask(server, *inputs, **content)
    assert answer.status_code == 200, answer.text
    return [item["embedding"] for item in answer.json()["data"]]


@pytest.mark.parametrize(
    "content",
    [
        {"input": [CAT]},
        {"input": CAT},
        {"input": ["a cat", {"image": "…"}]},
        {"input": ["a cat"], "task": "retrieval.query"},
        {"input": ["a cat"], "normalized": True},
        {"input": ["a cat"], "embedding_type": "float"},
        {"input": ["a cat"], "encoding_type": "float"},
        {"input": [{"video": "…"}]},
        {"input": ["a cat"], "late_chunking": False},
        {"input": ["a cat"], "truncate": True},
    ],
)
def test_its_own_bodies_are_recognised(content: dict[str, Any]) -> None:
    assert is_meant(Body(content))


@pytest.mark.parametrize(
    "content",
    [
        {"input": ["a cat"], "dimensions": 8},
        {"input": [1, 2]},
        {"input": [{"type": "text", "text": "a cat"}]},
        {"input": ["a cat"], "truncate": "END", "input_type": "query"},
        {"input": ["a cat"], "truncate": "END", "embedding_type": "float"},
        {"input": ["a cat"], "input_type": "query", "embedding_type": "int8"},
        {"messages": []},
        {"input": [{"words": "a cat"}]},
        {},
    ],
)
def test_those_of_others_are_left_to_them(content: dict[str, Any]) -> None:
    assert not is_meant(Body(content))


def test_an_image_has_several_forms(texts_server: Running) -> None:
    forms = [{"image": uri(PHOTO)}, {"image": b64(PHOTO)}, {"url": uri(PHOTO)}, {"bytes": b64(PHOTO)}]
    first, *others = vectors(texts_server, *forms)
    assert others == [first] * 3
    assert vectors(texts_server, uri(PHOTO), task="classification") == [first]
    (alone,) = texts_server.http.post("/v1/embeddings", json={"input": forms[0]}).json()["data"]
    assert alone["embedding"] == first


def test_embeddings_have_the_type_that_was_asked_for(texts_server: Running) -> None:
    (floats,) = vectors(texts_server, CAT)
    (coded,) = vectors(texts_server, CAT, embedding_type="base64")
    assert np.frombuffer(base64.b64decode(coded), "<f4").tolist() == np.array(floats, np.float32).tolist()
    assert vectors(texts_server, CAT, encoding_format="base64") == [coded]
    assert vectors(texts_server, CAT, encoding_format="base64", embedding_type="float") == [floats]
    assert vectors(texts_server, CAT, embedding_type=["base64"]) == [coded]
    assert vectors(texts_server, CAT, encoding_type="base64") == [coded]
    for name, dtype in TYPES.items():
        (numbers,) = vectors(texts_server, CAT, embedding_type=name)
        assert np.array(numbers, dtype).tolist() == numbers


def test_vectors_keep_their_length_if_asked(texts_server: Running) -> None:
    (unit,), (own,) = vectors(texts_server, CAT), vectors(texts_server, CAT, normalized=False)
    assert abs(np.linalg.norm(own) - 1) > 1e-3
    np.testing.assert_allclose(np.array(own) / np.linalg.norm(own), unit, atol=1e-6)


def test_a_long_text_is_refused_unless_it_may_be_cut(texts_server: Running) -> None:
    assert ask(texts_server, CAT, {"text": LONG}, truncate=True).status_code == 200
    refused = ask(texts_server, CAT, {"text": LONG})
    assert refused.status_code == 422
    assert refused.json()["detail"].startswith("input[1]: the text has")


@pytest.mark.parametrize(
    ("inputs", "content", "words"),
    [
        ([CAT], {"late_chunking": True}, "late_chunking is not offered"),
        ([CAT], {"return_multivector": True}, "return_multivector is not offered"),
        ([CAT], {"embedding_type": ["float", "int8"]}, "at most 1 item"),
        ([CAT], {"embedding_type": "int4"}, "embedding_type"),
        ([CAT], {"embedding_type": "int8", "normalized": False}, "normalized"),
        ([CAT], {"dimensions": 97}, "dimensions is 97"),
        ([], {"task": "classification"}, "input is empty"),
        ([CAT, {"text": "a", "image": "b"}], {}, "input[1]: an input has one field"),
        ([CAT, {}], {}, "input[1]: an input has one field"),
        ([CAT], {"embedding_type": "int8", "encoding_type": "float"}, "encoding_type are one type"),
        ([CAT, {"pdf": "a"}], {}, "input[1].pdf: documents are not taken"),
        ([{"video": "a"}], {}, "input[0].video: videos are not taken"),
        ([{"audio": "a"}], {}, "input[0].audio: the model hears nothing"),
    ],
)
def test_what_is_wrong_is_named(texts_server: Running, inputs: list[Any], content: dict[str, Any], words: str) -> None:
    refused = ask(texts_server, *inputs, **content)
    assert refused.status_code == 422
    assert words in refused.json()["detail"]


def test_a_body_that_may_be_openais_is_refused_in_both_shapes(texts_server: Running) -> None:
    refused = ask(texts_server, "a cat", "data:a;base64,????").json()
    assert refused["detail"] == f"input[1]: {refused['error']['message']}"
