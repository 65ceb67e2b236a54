"""Voyage's own fields. The real client is run against a server elsewhere."""

import base64
from typing import Any

import httpx
import numpy as np
import pytest

from tests import pictures
from tests.service.http.dialects.spoken import b64, uri
from tests.service.running import Running

PHOTO = pictures.photograph_file("rocket.jpg")
LONG = "one word after another " * 40
DTYPES = {"float": "<f4", "int8": "i1", "uint8": "u1", "binary": "i1", "ubinary": "u1"}


def ask(server: Running, *parts: dict[str, Any], **content: Any) -> httpx.Response:
    inputs = [{"content": [part]} for part in parts]
    return server.http.post("/v1/multimodalembeddings", json={"inputs": inputs} | content)


def text(given: str) -> dict[str, str]:
    return {"type": "text", "text": given}


def image(given: str = uri(PHOTO)) -> dict[str, str]:
    return {"type": "image_base64", "image_base64": given}


@pytest.mark.parametrize("dtype", DTYPES)
def test_base64_has_the_bytes_of_the_type(texts_server: Running, dtype: str) -> None:
    numbers = ask(texts_server, image(), text("a"), output_dtype=dtype).json()["data"]
    for name in ("encoding_format", "output_encoding"):
        packed = ask(texts_server, image(), text("a"), output_dtype=dtype, **{name: "base64"}).json()["data"]
        for number, coded in zip(numbers, packed, strict=True):
            decoded = np.frombuffer(base64.b64decode(coded["embedding"]), DTYPES[dtype])
            assert decoded.tolist() == np.array(number["embedding"], DTYPES[dtype]).tolist()


def test_usage_has_the_counts_that_its_client_reads(texts_server: Running) -> None:
    usage = ask(texts_server, image(), text("a")).json()["usage"]
    tokens = usage["total_tokens"] - usage["text_tokens"]
    assert usage["text_tokens"] == 64
    assert (usage["image_pixels"], usage["video_pixels"]) == (427 * 640, 0)
    assert 0 < tokens <= 256


def test_an_image_may_be_bare_base64_or_a_data_uri_in_the_place_of_an_address(texts_server: Running) -> None:
    expected = ask(texts_server, image()).json()["data"]
    assert ask(texts_server, image(b64(PHOTO))).json()["data"] == expected
    assert ask(texts_server, {"type": "image_url", "image_url": uri(PHOTO)}).json()["data"] == expected


def test_a_width_cuts_embeddings_and_a_header_says_what_that_means(texts_server: Running) -> None:
    answer = ask(texts_server, text("a"), output_dimension=16)
    assert len(answer.json()["data"][0]["embedding"]) == 16
    assert answer.headers["Packlight-Warning"].startswith("output_dimension=16: ")
    assert "Packlight-Warning" not in ask(texts_server, text("a")).headers


def test_a_long_text_is_cut_unless_truncation_is_false(texts_server: Running) -> None:
    assert ask(texts_server, text(LONG)).status_code == 200
    refused = ask(texts_server, text("a"), text(LONG), truncation=False)
    assert refused.status_code == 422
    assert refused.json()["detail"].startswith("inputs[1]: the text has")


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ([], "inputs is empty"),
        ([{"type": "video_url", "video_url": "http://a/b.mp4"}], "inputs[0]: videos are not embedded"),
        ([{"type": "text", "image_base64": "aaaa"}], "inputs[0]: a part of type 'text'"),
        ([{"type": "image_base64"}], "inputs[0]: a part of type 'image_base64'"),
        ([{"type": "type", "text": "a"}], "inputs[0]: a part of type 'type'"),
    ],
)
def test_what_is_wrong_is_named(texts_server: Running, parts: list[dict[str, Any]], words: str) -> None:
    refused = ask(texts_server, *parts)
    assert refused.status_code == 422
    assert words in refused.json()["detail"]


def test_several_parts_are_not_fused(texts_server: Running) -> None:
    content = {"inputs": [{"content": [text("a")]}, {"content": [text("a"), image()]}]}
    refused = texts_server.http.post("/v1/multimodalembeddings", json=content)
    assert refused.status_code == 422
    assert refused.json()["detail"].startswith("inputs[1]: content has 2 parts")


def ask_texts(server: Running, given: Any, **content: Any) -> httpx.Response:
    return server.http.post("/v1/embeddings", json={"input": given, "truncation": True} | content)


@pytest.mark.parametrize("dtype", DTYPES)
def test_texts_have_the_vectors_of_the_multimodal_path(texts_server: Running, dtype: str) -> None:
    fields = {"output_dtype": dtype, "output_dimension": 16, "encoding_format": "base64"}
    theirs = ask(texts_server, text("a"), text("two dogs"), **fields).json()
    ours = ask_texts(texts_server, ["a", "two dogs"], **fields).json()
    assert ours["data"] == theirs["data"]
    assert ours["usage"]["total_tokens"] == theirs["usage"]["total_tokens"]


@pytest.mark.parametrize("path", ["/v1/embeddings", "/embeddings"])
@pytest.mark.parametrize("field", [{"output_dtype": "float"}, {"output_dimension": 96}, {"truncation": False}])
def test_a_field_of_its_own_tells_that_a_body_of_texts_is_meant(
    texts_server: Running, path: str, field: dict[str, Any]
) -> None:
    refused = texts_server.http.post(path, json={"input": "a", "colour": 1} | field)
    assert refused.json().keys() == {"detail"}
    assert texts_server.http.post(path, json={"input": "a"} | field).status_code == 200


def test_texts_that_are_wrong_are_named(texts_server: Running) -> None:
    assert ask_texts(texts_server, ["a", LONG]).status_code == 200
    refused = ask_texts(texts_server, ["a", LONG], truncation=False)
    assert (refused.status_code, refused.json()["detail"].startswith("input[1]: the text has")) == (422, True)
    assert ask_texts(texts_server, []).json() == {"detail": "input is empty"}
    assert "/v1/multimodalembeddings" in ask_texts(texts_server, "data: a").json()["detail"]


def rerank(server: Running, **content: Any) -> httpx.Response:
    return server.http.post("/v1/rerank", json={"query": "a", "documents": ["b", "a", "two dogs"]} | content)


def test_a_ranking_with_its_names_has_its_shape(texts_server: Running) -> None:
    theirs = rerank(texts_server, top_n=2).json()
    ours = rerank(texts_server, top_k=2, truncation=True, model="packlight-tiny").json()
    assert ours["data"] == [{name: item[name] for name in ("index", "relevance_score")} for item in theirs["results"]]
    assert ours["data"] == theirs["data"]
    assert ours["object"] == "list"
    assert ours["usage"]["total_tokens"] == theirs["usage"]["total_tokens"]
    whole = rerank(texts_server, truncation=True, return_documents=True).json()["data"]
    assert sorted(item["document"] for item in whole) == ["a", "b", "two dogs"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"top_k": 1, "colour": 1}, "'colour'"),
        ({"top_k": 1, "top_n": 1}, "top_k and top_n"),
        ({"truncation": True, "truncate": "END"}, "truncation and truncate"),
        ({"truncation": False, "documents": ["a", LONG]}, "documents[1]: the text has"),
        ({"truncation": True, "documents": []}, "documents is empty"),
    ],
)
def test_a_ranking_that_is_wrong_is_refused_in_its_shape(
    texts_server: Running, content: dict[str, Any], words: str
) -> None:
    refused = rerank(texts_server, **content)
    assert refused.status_code == 422
    assert words in refused.json()["detail"]
    assert refused.json().keys() == {"detail"}
