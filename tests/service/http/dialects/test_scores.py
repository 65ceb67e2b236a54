"""Scores and rankings are cosines of the vectors that `/embed` gives."""

from typing import Any

import numpy as np
import pytest

from tests import pictures
from tests.service.http.dialects.vllm_bodies import PHOTO, image_part, uri
from tests.service.running import Running, error_of

OTHER = pictures.save(pictures.picture(160, 40), "PNG")
CAPTIONS = ["a red bicycle", "two dogs", "a rocket"]


def ask(server: Running, path: str, **body: Any) -> dict[str, Any]:
    answer = server.http.post(path, json=body)
    assert answer.status_code == 200, answer.text
    parsed: dict[str, Any] = answer.json()
    return parsed


def cosines(server: Running, one: Any, others: list[Any]) -> list[float]:
    data = ask(server, "/v1/embeddings", input=[one, *others])["data"]
    first, *rest = (np.array(item["embedding"], np.float64) for item in data)
    return [float(first @ each) for each in rest]


@pytest.mark.parametrize(
    ("first", "second"),
    [("text_1", "text_2"), ("data_1", "data_2"), ("queries", "documents"), ("queries", "items")],
)
def test_a_score_is_the_cosine_of_one_with_each(texts: Running, first: str, second: str) -> None:
    answer = ask(texts, "/score", **{first: uri(PHOTO), second: CAPTIONS})
    assert [item["index"] for item in answer["data"]] == [0, 1, 2]
    scores = [item["score"] for item in answer["data"]]
    np.testing.assert_allclose(scores, cosines(texts, uri(PHOTO), CAPTIONS), atol=1e-6)
    assert (
        answer["usage"]["total_tokens"]
        == ask(texts, "/v1/embeddings", input=[uri(PHOTO), *CAPTIONS])["usage"]["total_tokens"]
    )


def test_as_many_are_scored_pair_by_pair(texts: Running) -> None:
    answer = ask(texts, "/v1/score", data_1=CAPTIONS, data_2=[uri(PHOTO), CAPTIONS[1], {"text": CAPTIONS[0]}])
    first, same, third = (item["score"] for item in answer["data"])
    assert same == pytest.approx(1)
    assert first == pytest.approx(cosines(texts, CAPTIONS[0], [uri(PHOTO)])[0], abs=1e-6)
    assert third == pytest.approx(cosines(texts, CAPTIONS[2], [CAPTIONS[0]])[0], abs=1e-6)


@pytest.mark.parametrize(
    "picture",
    [
        {"image": uri(PHOTO)},
        {"image": uri(PHOTO).partition(",")[2]},
        {"content": [image_part(PHOTO)]},
        image_part(PHOTO),
        {"image_url": uri(PHOTO)},
        uri(PHOTO),
    ],
)
def test_a_picture_may_be_a_query_in_every_shape(server: Running, picture: Any) -> None:
    answer = ask(server, "/rerank", query=picture, documents=[uri(OTHER), uri(PHOTO)])
    assert [item["index"] for item in answer["results"]] == [1, 0]
    assert answer["results"][0]["relevance_score"] == pytest.approx(1)


def test_a_ranking_has_the_most_alike_first_and_no_more_than_asked_for(texts: Running) -> None:
    documents = [*CAPTIONS, uri(PHOTO), {"image": uri(OTHER)}]
    expected = cosines(texts, "a rocket", documents[:4] + [uri(OTHER)])
    order = sorted(range(5), key=lambda index: -expected[index])
    answer = ask(texts, "/v1/rerank", query="a rocket", documents=documents)
    assert [item["index"] for item in answer["results"]] == order
    assert ask(texts, "/v2/rerank", query="a rocket", documents=documents, top_n=0)["results"] == answer["results"]
    best = ask(texts, "/v2/rerank", query="a rocket", documents=documents, top_n=2)
    assert best["results"] == answer["results"][:2]
    assert best["meta"]["tokens"]["input_tokens"] == best["usage"]["total_tokens"] == answer["usage"]["total_tokens"]


def test_texts_come_back_with_their_score_and_pictures_do_not(texts: Running) -> None:
    documents = ["a rocket", {"text": "a cat"}, uri(OTHER)]
    results = ask(texts, "/rerank", query="a rocket", documents=documents)["results"]
    assert {item["index"]: item.get("document") for item in results} == {
        0: {"text": "a rocket"},
        1: {"text": "a cat"},
        2: None,
    }
    bare = ask(texts, "/rerank", query="a rocket", documents=documents, return_documents=False)["results"]
    assert not any("document" in item for item in bare)


def test_a_part_of_a_score_has_a_budget_of_its_own(server: Running) -> None:
    whole = ask(server, "/score", data_1=image_part(PHOTO), data_2=image_part(PHOTO))["usage"]["total_tokens"]
    less = ask(server, "/score", data_1={"image": uri(PHOTO), "max_tokens": 16}, data_2=image_part(PHOTO))
    assert less["usage"]["total_tokens"] <= whole // 2 + 16


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/score", {"text_1": "a"}, "text_1"),
        ("/score", {"text_1": "a", "data_2": "b"}, "data_2"),
        ("/score", {"text_1": "a", "text_2": "b", "items": "c"}, "items"),
        ("/score", {"text_1": ["a", "b"], "text_2": ["a", "b", "c"]}, "text_1"),
        ("/score", {"text_1": ["a", "b"], "text_2": "c"}, "text_1"),
        ("/score", {"text_1": "a", "text_2": []}, "text_2"),
        ("/score", {"text_1": "a", "text_2": {}}, "text_2"),
        ("/score", {"text_1": "a", "text_2": {"text": "b", "image": "c"}}, "text_2"),
        ("/score", {"text_1": "a", "text_2": {"content": [{"text": "b"}, {"text": "c"}]}}, "text_2"),
        ("/rerank", {"documents": ["a"]}, "query"),
        ("/rerank", {"query": "a"}, "documents"),
        ("/rerank", {"query": "a", "documents": ["b"], "top_n": -1}, "top_n"),
        ("/rerank", {"query": "a", "documents": ["b"], "raw_scores": True}, "raw_scores"),
        ("/rerank", {"query": "a", "documents": ["b"], "instruction": "look"}, "instruction"),
        ("/rerank", {"query": "a", "documents": ["b"], "max_tokens_per_doc": 5}, "max_tokens_per_doc"),
        ("/rerank", {"query": "a", "documents": ["b", {"image": "no base64"}]}, "documents"),
        ("/rerank", {"query": ["a"], "documents": ["b"]}, "query"),
    ],
)
def test_a_wrong_field_is_named(texts: Running, path: str, body: dict[str, Any], param: str) -> None:
    status, _, named, _ = error_of(texts.http.post(path, json=body))
    assert named == param
    assert status in (400, 422)


def test_old_vllms_contents_are_documents_if_parts_are_asked_for_separately(server: Running) -> None:
    body = {"text_1": uri(PHOTO), "text_2": {"content": [image_part(OTHER), image_part(PHOTO)]}}
    answer = server.http.post("/score", json=body, headers={"Packlight-Parts": "separate"})
    assert [item["score"] == pytest.approx(1) for item in answer.json()["data"]] == [False, True]


def test_too_many_documents_are_not_the_fault_of_the_query(server: Running) -> None:
    most = server.settings.max_images_per_request
    answer = server.http.post("/rerank", json={"query": uri(OTHER), "documents": [uri(OTHER)] * most})
    assert error_of(answer) == (413, "too_large", "documents", None)


NOTHING: dict[str, Any] = {"content": []}
TWO_PARTS = {"content": [image_part(OTHER), image_part(PHOTO)]}


@pytest.mark.parametrize("documents", [[uri(OTHER), NOTHING, uri(PHOTO)], [uri(OTHER), TWO_PARTS, uri(PHOTO)]])
@pytest.mark.parametrize("parts", ["one", "separate"])
def test_each_document_of_a_list_is_one_so_that_no_place_shifts(
    server: Running, documents: list[Any], parts: str
) -> None:
    headers = {"Packlight-Parts": parts}
    ranking = server.http.post("/rerank", json={"query": uri(PHOTO), "documents": documents}, headers=headers)
    assert error_of(ranking)[2:] == ("documents", 1)
    scores = server.http.post("/score", json={"text_1": uri(PHOTO), "text_2": documents}, headers=headers)
    assert error_of(scores)[2:] == ("text_2", 1)


@pytest.mark.parametrize("document", [5, ["a"]])
def test_the_place_of_a_document_of_no_known_kind_is_named(server: Running, document: Any) -> None:
    answer = server.http.post("/rerank", json={"query": uri(PHOTO), "documents": [uri(PHOTO), document]})
    assert error_of(answer)[2:] == ("documents", 1)
    assert "documents[1]: input should be a valid string, or input should be a valid object" in answer.text


def test_the_document_at_fault_is_named_by_its_place(server: Running) -> None:
    body = {"query": uri(PHOTO), "documents": [uri(PHOTO), {"content": [image_part(b"no image")]}]}
    assert error_of(server.http.post("/rerank", json=body))[2:] == ("documents", 1)
    text = {"query": uri(PHOTO), "documents": [uri(PHOTO), "a text"]}
    assert error_of(server.http.post("/rerank", json=text))[2:] == ("documents", 1)


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank"])
def test_a_refused_ranking_says_why_where_each_client_looks(server: Running, path: str) -> None:
    refused = server.http.post(path, json={"query": uri(PHOTO), "documents": [uri(PHOTO), "data:a;base64,????"]})
    said = refused.json()["error"]["message"]
    assert refused.json()["message"] == refused.json()["detail"] == f"documents[1]: {said}"
