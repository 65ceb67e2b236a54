"""Cohere's own fields. The real client is run against a server elsewhere."""

import base64
from typing import Any

import httpx
import numpy as np
import pytest

from tests import pictures
from tests.service.http.dialects.spoken import uri
from tests.service.running import Running

PHOTO = pictures.photograph_file("rocket.jpg")
PNG = pictures.save(pictures.picture(48, 64), "PNG")
TYPES = ("float", "float16", "int8", "uint8", "binary", "ubinary", "base64")
LONG = "one word after another " * 40


def ask(server: Running, path: str = "/v2/embed", **content: Any) -> httpx.Response:
    return server.http.post(path, json=content)


def answer(server: Running, path: str = "/v2/embed", **content: Any) -> dict[str, Any]:
    answered = ask(server, path, **content)
    assert answered.status_code == 200, answered.text
    body: dict[str, Any] = answered.json()
    return body


def refusal(server: Running, **content: Any) -> str:
    answered = ask(server, **content)
    assert answered.status_code == 422
    return str(answered.json()["message"])


def test_an_answer_has_every_type_that_was_asked_for(texts_server: Running) -> None:
    embeddings = answer(texts_server, images=[uri(PHOTO), uri(PNG)], embedding_types=[*TYPES, "float"])["embeddings"]
    assert tuple(embeddings) == TYPES
    assert {len(rows) for rows in embeddings.values()} == {2}
    vector = np.array(embeddings["float"][1], np.float32)
    assert np.frombuffer(base64.b64decode(embeddings["base64"][1]), "<f4").tolist() == vector.tolist()
    assert np.float16(embeddings["float16"][1]).tolist() == vector.astype(np.float16).tolist()
    assert embeddings["ubinary"][1] == np.packbits(vector > 0).tolist()
    assert [value - 128 for value in embeddings["uint8"][1]] == embeddings["int8"][1]
    assert [value + 128 for value in embeddings["binary"][1]] == embeddings["ubinary"][1]


def test_images_are_described_as_they_were_sent(texts_server: Running) -> None:
    described = answer(texts_server, images=[uri(PHOTO), uri(PNG)])
    assert described["images"] == [
        {"width": 640, "height": 427, "format": "jpeg", "bit_depth": 24},
        {"width": 64, "height": 48, "format": "png", "bit_depth": 24},
    ]
    assert described["texts"] == []
    assert described["meta"]["billed_units"].keys() == {"images", "image_tokens"}


def test_texts_come_back_with_a_warning_for_each_that_was_cut(texts_server: Running) -> None:
    described = answer(texts_server, texts=["a cat", LONG], input_type="search_query")
    assert (described["texts"], described["images"]) == (["a cat", LONG], [])
    assert described["meta"]["billed_units"] == {"input_tokens": 128}
    assert described["meta"]["warnings"] == ["the text 1 was too long, and its end was cut off"]


def test_the_id_of_an_answer_is_that_of_the_request(texts_server: Running) -> None:
    headers = {"X-Request-ID": "mine"}
    answered = texts_server.http.post("/v2/embed", json={"texts": ["a"]}, headers=headers)
    assert answered.json()["id"] == answered.headers["X-Request-ID"] == "mine"


def test_a_width_cuts_embeddings_and_says_what_that_means(texts_server: Running) -> None:
    full = np.array(answer(texts_server, images=[uri(PHOTO)])["embeddings"]["float"][0], np.float32)
    cut = answer(texts_server, images=[uri(PHOTO)], output_dimension=16)
    expected = full[:16] / np.linalg.norm(full[:16])
    np.testing.assert_allclose(np.array(cut["embeddings"]["float"][0]), expected, atol=1e-6)
    assert cut["meta"]["warnings"][0].startswith("output_dimension=16: ")
    assert refusal(texts_server, texts=["a"], output_dimension=97) == "output_dimension is 97; embeddings have 96"


def test_the_older_client_gets_bare_vectors_unless_it_names_types(texts_server: Running) -> None:
    typed = answer(texts_server, texts=["a cat"])
    bare = answer(texts_server, "/v1/embed", texts=["a cat"])
    assert (bare["response_type"], bare["meta"]["api_version"]) == ("embeddings_floats", {"version": "1"})
    assert bare["embeddings"] == typed["embeddings"]["float"]
    named = answer(texts_server, "/v1/embed", texts=["a cat"], embedding_types=["float"])
    assert (named["response_type"], named["embeddings"]) == ("embeddings_by_type", typed["embeddings"])


def test_max_tokens_bounds_images(texts_server: Running) -> None:
    answered = answer(texts_server, images=[uri(PHOTO)], max_tokens=16)
    assert answered["meta"]["billed_units"]["image_tokens"] <= 16


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({}, "it has none of them"),
        ({"texts": ["a"], "images": [uri(PNG)]}, "it has texts and images"),
        ({"texts": []}, "texts is empty"),
        ({"texts": ["a"], "embedding_types": []}, "embedding_types is empty"),
        ({"texts": ["a"], "embedding_types": ["int4"]}, "embedding_types[0]: input should be"),
        ({"texts": ["a", 5]}, "texts[1]: input should be a valid string"),
        ({"texts": ["a"], "truncate": "START"}, "truncate=START is not offered"),
        ({"texts": ["a", LONG], "truncate": "NONE"}, "texts[1]: the text has"),
        ({"texts": ["a"], "max_tokens": 10}, "not cut to fewer"),
        ({"inputs": [{"content": []}]}, "inputs[0]: content has no parts"),
        ({"inputs": [{"content": [{"type": "text", "text": "a"}] * 2}]}, "inputs[0]: content has 2 parts"),
        ({"inputs": [{"content": [{"type": "audio"}]}]}, "inputs[0]: an input of type 'audio'"),
    ],
)
def test_what_is_wrong_is_named(texts_server: Running, content: dict[str, Any], words: str) -> None:
    assert words in refusal(texts_server, **content)


def test_another_model_is_not_found(texts_server: Running) -> None:
    answered = ask(texts_server, model="embed-v4.0", texts=["a"])
    assert answered.status_code == 404
    assert "model_aliases" in answered.json()["message"]
