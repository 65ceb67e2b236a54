"""The fields that vLLM, infinity and NIM add to OpenAI's requests."""

import base64
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests import pictures
from tests.service.http.dialects.vllm_bodies import PHOTO, image_part, uri
from tests.service.running import Running, error_of

OTHER = pictures.save(pictures.picture(160, 40), "PNG")
# Field by field, what each names in its sources; the strings are those that its clients send.
NOTHING = {
    "user": "me",
    "request_id": "embd-1",
    "priority": 0,
    "cache_salt": "salt",
    "input_type": "query",
    "truncate_prompt_tokens": -1,
    "truncation_side": "right",
    "truncate": "END",
    "padding": "max_length",
    "add_special_tokens": True,
    "mm_processor_kwargs": {},
    "use_activation": True,
    "normalize": True,
    "endianness": "native",
    "embed_endianness": "native",
    "embed_dtype": "float32",
    "encoding_format": "float",
    "dimensions": 0,
}
CHAT = {
    "add_generation_prompt": False,
    "continue_final_message": False,
    "chat_template": "{{ messages }}",
    "chat_template_kwargs": {"a": 1},
    "media_io_kwargs": {"video": {"num_frames": 4}, "image": {}},
}


def ask(server: Running, **body: Any) -> dict[str, Any]:
    answer = server.http.post("/v1/embeddings", json=body)
    assert answer.status_code == 200, answer.text
    parsed: dict[str, Any] = answer.json()
    return parsed


def vectors(server: Running, **body: Any) -> list[list[float]]:
    return [item["embedding"] for item in ask(server, **body)["data"]]


def refused(server: Running, **body: Any) -> tuple[str | None, str]:
    """The param and the message of a 422."""
    answer = server.http.post("/v1/embeddings", json=body)
    assert error_of(answer)[0] == 422, answer.text
    error = answer.json()["error"]
    return error["param"], error["message"]


@pytest.mark.parametrize("field", NOTHING)
def test_what_changes_nothing_is_taken(texts: Running, field: str) -> None:
    given = [uri(OTHER), "a red bicycle"]
    assert vectors(texts, input=given, **{field: NOTHING[field]}) == vectors(texts, input=given)


def test_a_request_id_is_the_id_of_the_answer(server: Running) -> None:
    assert ask(server, input=uri(OTHER), request_id="embd-1")["id"] == "embd-1"


@pytest.mark.parametrize("field", CHAT)
def test_what_a_chat_brings_changes_no_image(server: Running, field: str) -> None:
    messages = [{"role": "user", "content": [image_part(OTHER)]}]
    assert vectors(server, messages=messages, **{field: CHAT[field]}) == vectors(server, input=uri(OTHER))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("truncate_prompt_tokens", 16),
        ("truncation_side", "left"),
        ("truncate", "START"),
        ("padding", "do_not_pad"),
        ("add_special_tokens", False),
        ("chat_template", "{{ messages }}"),
        ("chat_template_kwargs", {"a": 1}),
    ],
)
def test_what_would_change_a_text_is_refused_for_texts_alone(texts: Running, field: str, value: Any) -> None:
    param, message = refused(texts, input=[uri(OTHER), "a cat"], **{field: value})
    assert param == field
    assert "texts" in message
    assert vectors(texts, input=uri(OTHER), **{field: value}) == vectors(texts, input=uri(OTHER))


def test_nims_embedding_type_is_float_alone(texts: Running) -> None:
    nims = {"input": "a", "input_type": "query", "truncate": "END"}
    assert vectors(texts, **nims, embedding_type="float") == vectors(texts, input="a")
    message = "embedding_type: input should be 'float'"
    assert refused(texts, **nims, embedding_type="int8") == ("embedding_type", message)


def test_a_long_text_is_cut_or_refused_as_nim_says(texts: Running) -> None:
    long = "one word after another " * 40
    assert vectors(texts, input=long, truncate="END") == vectors(texts, input=long)
    assert vectors(texts, input=long, truncate_prompt_tokens=64) == vectors(texts, input=long)
    assert refused(texts, input=long, truncate="NONE")[0] == "input"


@pytest.mark.parametrize(
    ("options", "tokens"),
    [
        ({"max_pixels": 80 * 80}, 25),
        ({"max_num_patches": 16}, 16),
        ({"max_soft_tokens": 16}, 16),
    ],
)
def test_options_of_the_processor_are_budgets(server: Running, options: dict[str, int], tokens: int) -> None:
    answer = ask(server, input=uri(PHOTO), mm_processor_kwargs=options)
    ours = server.embed(PHOTO, max_tokens=tokens).json()
    assert answer["data"][0]["embedding"] == ours["data"][0]["embedding"]
    assert answer["usage"]["total_tokens"] == ours["usage"]["tokens"] <= tokens


@pytest.mark.parametrize(
    ("body", "param", "word"),
    [
        ({"mm_processor_kwargs": {"do_resize": False}}, "mm_processor_kwargs", "mm_processor_kwargs.do_resize"),
        ({"mm_processor_kwargs": {"size": {"longest_edge": 9}}}, "mm_processor_kwargs", "max_pixels"),
        ({"mm_processor_kwargs": {"max_pixels": 999}, "max_pixels": 999}, "max_pixels", "one bound"),
        ({"mm_processor_kwargs": {"max_num_patches": 9, "max_soft_tokens": 9}}, "max_num_patches", "one bound"),
        ({"mm_processor_kwargs": {"max_num_patches": 0}}, "max_tokens", "0"),
        ({"mm_processor_kwargs": {"min_pixels": 9}}, "min_pixels", "native"),
        ({"mm_processor_kwargs": {"max_pixels": 9.5}}, "mm_processor_kwargs", "integer"),
        ({"media_io_kwargs": {"image": {"mode": "L"}}}, "media_io_kwargs", "image"),
        ({"use_activation": True, "normalize": False}, "normalize", "contradict"),
        ({"endianness": "big", "embed_endianness": "little"}, "embed_endianness", "contradict"),
        ({"embed_dtype": "fp8_e4m3"}, "embed_dtype", "float16"),
        ({"modality": "audio"}, "modality", "audio"),
        ({"modality": ""}, "modality", "not ''"),
        ({"modality": ["image"] * 2}, "modality", "2 values for 1"),
        ({"truncate_prompt_tokens": -2}, "truncate_prompt_tokens", "-1"),
        ({"dimensions": 257}, "dimensions", "256"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(
    server: Running, body: dict[str, Any], param: str, word: str
) -> None:
    named, message = refused(server, input=uri(PHOTO), **body)
    assert named == param
    assert word in message


def test_vectors_that_are_not_scaled_are_those_of_embed(server: Running) -> None:
    ours = server.embed(PHOTO, normalize=False).json()["data"][0]["embedding"]
    assert vectors(server, input=uri(PHOTO), use_activation=False) == [ours]
    assert vectors(server, input=uri(PHOTO), normalize=False) == [ours]
    assert vectors(server, input=uri(PHOTO), use_activation=False, dimensions=8) == [ours[:8]]


@pytest.mark.parametrize("endianness", ["little", "big"])
@pytest.mark.parametrize(("dtype", "kind"), [("float32", "f4"), ("float16", "f2"), ("bfloat16", "u2")])
def test_base64_and_bytes_have_the_type_and_order_that_are_asked_for(
    server: Running, dtype: str, kind: str, endianness: str
) -> None:
    body = {"input": [uri(PHOTO), uri(OTHER)], "embed_dtype": dtype, "endianness": endianness}
    exact = np.array(vectors(server, **body), np.float32)
    packed = server.http.post("/v1/embeddings", json=body | {"encoding_format": "bytes"})
    assert packed.headers["Content-Type"] == "application/octet-stream"
    metadata = json.loads(packed.headers["metadata"])
    order = "<" if endianness == "little" else ">"
    for item, vector, text in zip(
        metadata["data"], exact, vectors(server, **body, encoding_format="base64"), strict=True
    ):
        octets = packed.content[item["start"] : item["end"]]
        assert octets == base64.b64decode(text)  # type: ignore[arg-type]
        numbers = np.frombuffer(octets, f"{order}{kind}")
        if dtype == "bfloat16":
            numbers = (numbers.astype(np.uint32) << 16).view(np.float32)
        assert list(numbers.shape) == item["shape"]
        np.testing.assert_allclose(numbers, vector, atol=4e-3 if dtype == "bfloat16" else 1e-3)
        assert (item["embed_dtype"], item["endianness"]) == (dtype, endianness)
    assert metadata["usage"] == ask(server, **body)["usage"]
    alone = server.http.post("/v1/embeddings", json=body | {"encoding_format": "bytes_only"})
    assert (alone.content, "metadata" in alone.headers) == (packed.content, False)


def test_more_inputs_than_the_header_has_room_for_are_refused(texts: Running) -> None:
    given = [f"text {number}" for number in range(65)]
    assert refused(texts, input=given, encoding_format="bytes")[0] == "encoding_format"
    answer = texts.http.post("/v1/embeddings", json={"input": given[:64], "encoding_format": "bytes"})
    # What aiohttp, the client of vLLM's load test, reads.
    assert len(answer.headers["metadata"]) < 8190


def test_cutting_vectors_that_may_not_bear_it_is_told(server: Running) -> None:
    answer = server.http.post("/v1/embeddings", json={"input": uri(PHOTO), "dimensions": 64})
    assert "may be cut" in answer.headers["Packlight-Warning"]
    assert "Packlight-Warning" not in server.http.post("/v1/embeddings", json={"input": uri(PHOTO)}).headers


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP"])
def test_an_image_in_bare_base64_is_not_read_as_a_text(texts: Running, kind: str) -> None:
    bare = base64.b64encode(pictures.save(pictures.picture(40, 160), kind)).decode()
    param, message = refused(texts, input=["a", bare])
    assert (param, "send it as a data URI" in message) == ("input", True)
    assert len(vectors(texts, input=[{"type": "text", "text": bare[:1000]}])) == 1


def test_modality_says_what_strings_are(texts: Running) -> None:
    bare = base64.b64encode(OTHER).decode()
    assert vectors(texts, input=bare, modality="image") == vectors(texts, input=uri(OTHER))
    said = {"type": "text", "text": "data: a cat"}
    assert vectors(texts, input=["data: a cat"], modality="text") == vectors(texts, input=[said])
    mixed = ["data: a cat", bare]
    assert vectors(texts, input=mixed, modality=["text", "image"]) == vectors(texts, input=[said, uri(OTHER)])
    assert refused(texts, input=[said], modality="image")[0] == "modality"
    assert refused(texts, messages=[{"content": "a cat"}], modality="image")[0] == "modality"
    assert refused(texts, input=[[1, 2]], modality="image")[0] == "modality"


@pytest.mark.parametrize("text", ["data: the meeting is at noon", "Data:,x", "https://example.com is down"])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/embeddings", lambda text: {"input": ["a", text]}),
        ("/v1/embeddings", lambda text: {"input": ["a", text], "task": "retrieval"}),
        ("/pooling", lambda text: {"input": ["a", text]}),
        ("/rerank", lambda text: {"query": "a", "documents": ["a", text]}),
    ],
)
def test_a_text_that_begins_like_an_image_is_refused_with_the_form_that_it_has_to_have(
    texts: Running, path: str, body: Callable[[Any], dict[str, Any]], text: str
) -> None:
    refused = texts.http.post(path, json=body(text))
    assert refused.status_code in (400, 422)
    message = refused.json().get("detail") or refused.json()["error"]["message"]
    form = json.loads(message.partition("is sent as ")[2])
    assert texts.http.post(path, json=body(form | {"text": text})).status_code == 200


def test_space_before_a_data_uri_makes_no_text_of_it(server: Running) -> None:
    expected = server.http.post("/v1/embeddings", json={"input": uri(PHOTO)})
    assert server.http.post("/v1/embeddings", json={"input": f" \n{uri(PHOTO)}"}).json() == expected.json()


def test_a_place_for_images_alone_is_told_no_form_for_texts(texts: Running) -> None:
    for path, body in (
        ("/v2/embed", {"images": ["https://example.com/a.png"]}),
        ("/vectorize", {"images": ["https://example.com/a.png"]}),
        ("/v1/embeddings", {"input": [{"type": "image_url", "image_url": "https://example.com/a.png"}]}),
    ):
        refused = texts.http.post(path, json=body)
        assert refused.status_code == 422
        assert "allow_urls" in refused.text
        assert "A text that" not in refused.text


def test_the_bodies_of_vllms_load_test_are_answered(texts: Running) -> None:
    name = texts.facts.name
    picture = image_part(PHOTO)
    chat = {"model": name, "truncate_prompt_tokens": -1}
    asked = [
        ("/v1/embeddings", {**chat, "input": "a cat"}),
        ("/v1/embeddings", {**chat, "input": ["a cat", "a dog"]}),
        ("/v1/embeddings", {**chat, "messages": [{"role": "user", "content": [{"type": "text", "text": "a cat"}]}]}),
        # openai-embeddings-clip, and openai-embeddings-vlm2vec with an image alone
        (
            "/v1/embeddings",
            {**chat, "messages": [{"role": "user", "content": [{"type": "text", "text": ""}, picture]}]},
        ),
        (
            "/v1/embeddings",
            {
                **chat,
                "messages": [
                    {"role": "user", "content": [picture, {"type": "text", "text": "Represent the given image."}]}
                ],
            },
        ),
        ("/pooling", {**chat, "input": "a cat"}),
        ("/pooling", {**chat, "messages": [{"role": "user", "content": [picture]}]}),
        ("/rerank", {**chat, "query": "a cat", "documents": ["a dog", "a cat"]}),
        # infinity-embeddings and infinity-embeddings-clip
        ("/embeddings", {"model": name, "input": "a cat"}),
        ("/embeddings", {"model": name, "input": uri(PHOTO), "modality": "image"}),
    ]
    for path, body in asked:
        answer = texts.http.post(path, json=body)
        assert answer.status_code == 200, (path, answer.text)
        assert answer.json()["usage"]["prompt_tokens"] > 0


def test_the_bodies_of_infinitys_client_are_answered(texts: Running) -> None:
    image = {"input": [uri(PHOTO)], "model": "default/not-specified", "dimensions": 0, "modality": "image"}
    text = {"input": ["data: a cat"], "model": "default/not-specified", "dimensions": 0, "modality": "text"}
    for body in (image, text, image | {"encoding_format": "base64", "user": None}):
        assert len(ask(texts, **body)["data"]) == 1
    rerank = {"query": "a", "documents": ["b"], "return_documents": False, "raw_scores": False, "top_n": None}
    assert texts.http.post("/rerank", json=rerank).status_code == 200


def test_a_part_has_a_budget_of_its_own(server: Running) -> None:
    for part in (
        image_part(PHOTO, max_tokens=16),
        image_part(PHOTO) | {"max_tokens": 16},
        {"type": "input_image", "image_url": uri(PHOTO), "max_tokens": 16},
        {"image_url": uri(PHOTO), "max_tokens": 16},
    ):
        assert ask(server, input=[part])["usage"]["total_tokens"] <= 16
    low = {"type": "input_image", "image_url": uri(PHOTO), "detail": "low"}
    assert ask(server, input=[low])["usage"] == ask(server, input=[image_part(PHOTO, detail="low")])["usage"]
    assert ask(server, input=[low])["usage"]["total_tokens"] <= 64


@pytest.mark.parametrize(
    ("bounds", "most"),
    [
        ({"detail": "low", "max_pixels": 10**6}, 64),
        ({"detail": "low", "max_tokens": 200}, 64),
        ({"detail": "low", "max_tokens": 16}, 16),
        ({"detail": "low", "max_pixels": 16 * 256}, 16),
        ({"detail": "high", "max_tokens": 16}, 16),
    ],
)
def test_of_detail_and_a_budget_the_smaller_counts(server: Running, bounds: dict[str, Any], most: int) -> None:
    assert most // 2 < ask(server, input=[image_part(PHOTO, **bounds)])["usage"]["total_tokens"] <= most


@pytest.mark.parametrize("name", ["detail", "max_pixels", "min_pixels", "max_tokens"])
def test_a_bound_in_the_part_and_in_its_image_url_is_refused(server: Running, name: str) -> None:
    inner, outer = ("high", "low") if name == "detail" else (300, 400)
    named, message = refused(server, input=[image_part(PHOTO, **{name: inner}) | {name: outer}])
    assert named == name
    assert "more than once" in message


def test_an_unknown_key_inside_an_input_is_named_with_the_place_of_the_input(texts: Running) -> None:
    part = {"type": "image_url", "image_url": {"url": uri(PHOTO), "colour": 1}}
    answer = texts.http.post("/v1/embeddings", json={"input": ["a cat", part]})
    assert answer.status_code == 422
    error = answer.json()["error"]
    assert (error["param"], error["index"]) == ("input", 1)
    assert error["message"].startswith("input[1].image_url.colour")
