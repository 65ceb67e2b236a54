"""Texts over HTTP: the vectors of Transformers, beside images and alone, by every route, whatever the text is."""

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from model.texts.read import read_tokenizer
from service.http.dialects.openai import EmbeddingsRequest
from service.limits import TextFacts
from service.loading import load_runner
from service.settings.settings import Settings
from tests import pictures
from tests.examples import many
from tests.service.running import Running, error_of, load_npy, serving
from tests.text_models import FAMILIES, save_whole, text_vector

if TYPE_CHECKING:
    from openai import OpenAI

PHOTO = pictures.small_photograph()
PNG = pictures.save(pictures.picture(48, 64), "PNG")
CAPTIONS = ["a red bicycle against a wall", "Two dogs.", "", "tokens and packs"]
LONG = "one word after another " * 40


@dataclass(frozen=True)
class Family:
    name: str
    folder: Path
    server: Running
    model: Any

    def embed(self, **content: Any) -> dict[str, Any]:
        answer = self.server.http.post("/embed", json=content)
        assert answer.status_code == 200, answer.text
        body: dict[str, Any] = answer.json()
        return body

    def vectors(self, **content: Any) -> list[list[float]]:
        return [item["embedding"] for item in self.embed(**content)["data"]]

    @property
    def openai(self) -> "OpenAI":
        from openai import OpenAI

        return OpenAI(base_url=f"http://127.0.0.1:{self.server.port}/v1", api_key="none", max_retries=0)


def facts_of(family: Family) -> TextFacts:
    assert family.server.facts.text is not None
    return family.server.facts.text


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def uri(data: bytes) -> str:
    return f"data:image/jpeg;base64,{b64(data)}"


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Family]:
    folder = tmp_path_factory.mktemp(request.param)
    model = save_whole(folder, request.param)
    loaded = load_runner(Settings(model=str(folder), devices="cpu", dtype="float32"))
    with serving(loaded, max_text_chars=1000, max_texts_per_request=50) as server:
        yield Family(request.param, folder, server, model)


def test_a_text_has_the_vector_of_transformers(family: Family) -> None:
    lower = [text.lower() for text in CAPTIONS]
    expected = np.stack([text_vector(family.folder, family.model, text) for text in lower])
    assert np.abs(np.array(family.vectors(texts=CAPTIONS)) - expected).max() < 1e-5


def test_a_text_has_the_same_bits_alone_and_beside_others_and_images(family: Family) -> None:
    alone = [family.vectors(texts=[text])[0] for text in CAPTIONS]
    assert family.vectors(texts=CAPTIONS) == alone
    assert family.vectors(texts=CAPTIONS, images=[b64(PHOTO)] * 3)[3:] == alone


def test_items_of_images_come_first_and_each_says_its_kind(family: Family) -> None:
    answer = family.embed(texts=["a cat", LONG], images=[b64(PHOTO), b64(PNG)])
    assert [(item["index"], item["kind"]) for item in answer["data"]] == [
        (0, "image"), (1, "image"), (2, "text"), (3, "text"),
    ]  # fmt: skip
    assert set(answer["data"][2]) == {"index", "kind", "embedding", "tokens", "truncated"}
    assert [item["truncated"] for item in answer["data"][2:]] == [False, True]
    tokens = sum(item["tokens"] for item in answer["data"])
    assert answer["usage"] == {"images": 2, "texts": 2, "tokens": tokens}
    assert family.embed(images=[b64(PHOTO)])["usage"].keys() == {"images", "tokens"}


def test_texts_are_charged_what_the_tower_computes(family: Family) -> None:
    short, long = (item["tokens"] for item in family.embed(texts=["a", LONG])["data"])
    assert (short == long == 64) if family.name == "siglip2" else (3 <= short < 10 and long == 77)


def test_a_text_that_is_too_long_is_refused_if_asked(family: Family) -> None:
    answer = family.server.http.post("/embed", json={"texts": ["a cat", LONG], "truncate": "error"})
    assert error_of(answer) == (422, "invalid", "texts", 1)
    partial = family.embed(texts=["a cat", LONG], truncate="error", partial=True)["data"]
    assert ["error" in item for item in partial] == [False, True]


def test_arrays_hold_texts_too(family: Family) -> None:
    content = {"texts": CAPTIONS, "images": [b64(PHOTO)]}
    answer = family.server.http.post("/embed", json=content, headers={"Accept": "application/x-npy"})
    assert load_npy(answer.content).tolist() == pytest.approx(np.array(family.vectors(**content)))
    assert len(answer.headers["X-Image-Tokens"].split(",")) == 5
    assert answer.headers["X-Text-Fingerprint"] == facts_of(family).fingerprint


def test_answers_with_texts_name_the_fingerprint_of_texts(family: Family) -> None:
    assert family.embed(texts=["a"])["text_fingerprint"] == facts_of(family).fingerprint
    assert "text_fingerprint" not in family.embed(images=[b64(PNG)])


def test_metrics_count_texts(family: Family) -> None:
    names = [
        ("texts_total", {"outcome": "embedded"}),
        ("tokens_total", {"kind": "text"}),
        ("truncated_texts_total", {}),
        ("stage_seconds_count", {"stage": "tokenize"}),
    ]
    before = [family.server.metric(name, **labels) for name, labels in names]
    tokens = family.embed(texts=["a cat", LONG])["usage"]["tokens"]
    after = [family.server.metric(name, **labels) for name, labels in names]
    assert np.subtract(after, before).tolist() == [2, tokens, 1, 1]


@pytest.mark.parametrize(
    ("content", "param", "status"),
    [
        ({"texts": "a cat"}, "texts", 422),
        ({"texts": [1]}, "texts", 422),
        ({"texts": ["a"] * 51}, "texts", 413),
        ({"texts": ["a" * 1001]}, "texts", 422),
        ({"texts": ["a"], "output": "tokens"}, "output", 422),
        ({"texts": ["a"], "truncate": "start"}, "truncate", 422),
        ({"texts": [], "images": []}, "images", 422),
    ],
)
def test_wrong_texts_are_refused_by_name(family: Family, content: dict[str, Any], param: str, status: int) -> None:
    answer = family.server.http.post("/embed", json=content)
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param)


def test_a_form_with_texts_hears_where_they_go(family: Family) -> None:
    answer = family.server.http.post("/embed", files={"image": PNG}, data={"texts": "a cat"})
    assert error_of(answer)[:3] == (422, "invalid", "texts")
    assert '{"texts": ["…"]}' in answer.json()["error"]["message"]


@settings(many(60), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(codec=None), max_size=30) | st.sampled_from(["\0", "<eos>", "<pad>", "<|endoftext|>"]))
def test_any_text_is_embedded_or_refused(family: Family, text: str) -> None:
    encoded = '{"texts": ["' + "".join(f"\\u{unit:04x}" for unit in units(text)) + '"]}'
    answer = family.server.http.post("/embed", content=encoded, headers={"Content-Type": "application/json"})
    surrogates = any(0xD800 <= ord(character) <= 0xDFFF for character in text)
    assert answer.status_code in ((400, 422, 200) if surrogates else (200,)), answer.text


def units(text: str) -> list[int]:
    """UTF-16, lone surrogates included."""
    data = text.encode("utf-16-be", "surrogatepass")
    return [int.from_bytes(data[place : place + 2]) for place in range(0, len(data), 2)]


def test_a_text_of_a_megabyte_is_refused_and_one_of_many_commas_is_not(family: Family) -> None:
    answer = family.server.http.post("/embed", json={"texts": ["a " * 500_000]})
    assert error_of(answer) == (422, "invalid", "texts", 0)
    assert family.embed(texts=[",[{" * 300] * 50)["usage"]["texts"] == 50


# OpenAI's shape


def test_openais_client_gets_texts_and_images_in_their_order(family: Family) -> None:
    inputs = ["a cat", uri(PHOTO), "Two dogs.", uri(PNG)]
    answer = family.openai.embeddings.create(model=str(family.folder), input=inputs)
    expected = [
        family.vectors(texts=["a cat"])[0], family.vectors(images=[b64(PHOTO)])[0],
        family.vectors(texts=["Two dogs."])[0], family.vectors(images=[b64(PNG)])[0],
    ]  # fmt: skip
    assert np.array_equal([item.embedding for item in answer.data], np.array(expected, np.float32))
    one = family.openai.embeddings.create(model=str(family.folder), input="a cat")
    assert np.array_equal(one.data[0].embedding, np.array(expected[0], np.float32))


def test_ids_of_a_text_are_the_text(family: Family) -> None:
    facts = facts_of(family)
    tokenizer = read_tokenizer(family.folder, family=facts.family, context=facts.context, vocabulary=facts.vocabulary)
    found = tokenizer.encode("a cat on a chair")
    ids = found.ids[: found.tokens].tolist()
    bare = [id for id in ids if id not in (ids[-1], *([ids[0]] if family.name == "clip" else []))]
    expected = np.array(family.vectors(texts=["a cat on a chair"])[0], np.float32)
    for given_ids in (ids, bare):
        answer = family.openai.embeddings.create(model=str(family.folder), input=given_ids)
        assert np.array_equal(answer.data[0].embedding, expected)
    both = family.openai.embeddings.create(model=str(family.folder), input=[bare, bare])
    assert len(both.data) == 2


def test_a_text_that_looks_like_a_uri_is_sent_as_a_part(family: Family) -> None:
    text = "data: what it is"
    answer = family.server.http.post("/v1/embeddings", json={"input": [{"type": "text", "text": text}]})
    assert answer.json()["data"][0]["embedding"] == family.vectors(texts=[text])[0]


def test_messages_hold_texts_or_images(family: Family) -> None:
    parts = [{"type": "text", "text": "a cat"}]
    for content in ("a cat", parts):
        answer = family.server.http.post("/v1/embeddings", json={"messages": [{"role": "user", "content": content}]})
        assert answer.json()["data"][0]["embedding"] == family.vectors(texts=["a cat"])[0]
    mixed = [*parts, {"type": "image_url", "image_url": {"url": uri(PHOTO)}}]
    answer = family.server.http.post("/v1/embeddings", json={"messages": [{"content": mixed}]})
    assert error_of(answer)[:3] == (422, "invalid", "messages")


@pytest.mark.parametrize(
    ("inputs", "index", "code"),
    [
        ([uri(PHOTO), "a" * 1001], 1, "invalid"),
        (["a", "b", uri(PHOTO[:5000])], 2, "invalid"),
        (["a", "data:image/png;base64,?"], 1, "bad_request"),
        (["a", [0, 999_999]], 1, "invalid"),
        (["a", {"type": "audio"}], 1, "invalid"),
    ],
)
def test_a_wrong_input_is_named_by_its_place(family: Family, inputs: list[Any], index: int, code: str) -> None:
    answer = family.server.http.post("/v1/embeddings", json={"input": inputs})
    assert error_of(answer)[1:] == (code, "input", index)


@pytest.mark.parametrize("given_input", [[], [-1], [1.5], [[]], [True], {"type": "text"}, [None]])
def test_what_is_no_input_is_refused(family: Family, given_input: Any) -> None:
    answer = family.server.http.post("/v1/embeddings", json={"input": given_input})
    assert answer.status_code in (200, 422) if given_input == [[]] else answer.status_code == 422, answer.text


def test_a_wrong_input_hears_what_an_input_is(family: Family) -> None:
    answer = family.server.http.post("/v1/embeddings", json={"input": {"words": "a cat"}})
    assert '{"type": "text", "text": "…"}' in answer.json()["error"]["message"]


def test_an_address_is_no_image_and_the_refusal_says_how_to_send_it_as_a_text(family: Family) -> None:
    text = "https://example.com/"
    for content in (
        {"input": ["a", text]},
        {"messages": [{"content": [{"type": "image_url", "image_url": {"url": text}}]}]},
    ):
        answer = family.server.http.post("/v1/embeddings", json=content)
        assert error_of(answer)[:2] == (422, "invalid")
        assert answer.json()["error"]["param"] in content
        # What stands in an image_url is no text, so there the hint would mislead.
        assert ('{"type": "text", "text": "…"}' in answer.json()["error"]["message"]) == ("input" in content)
    assert error_of(family.server.http.post("/v1/embeddings", json={"input": ["a", text]}))[3] == 1
    answer = family.server.http.post("/v1/embeddings", json={"input": [{"type": "text", "text": text}]})
    assert answer.json()["data"][0]["embedding"] == family.vectors(texts=[text])[0]


def test_too_many_inputs_are_named_as_inputs(family: Family) -> None:
    for inputs in (["a"] * 51, [uri(PNG)] * 65):
        answer = family.server.http.post("/v1/embeddings", json={"input": inputs})
        assert error_of(answer) == (413, "too_large", "input", None)


def test_a_request_may_have_the_ids_of_as_many_texts_as_it_may_have_texts(family: Family) -> None:
    answer = family.server.http.post("/v1/embeddings", json={"input": [[5] * 55] * 50})
    assert len(answer.json()["data"]) == 50


@pytest.mark.parametrize("field", [{"input": [[1.5]] * 1000}, {"input": [1.5] * 1000}, {"messages": [{}] * 1000}])
def test_of_thousands_of_wrong_inputs_few_are_described(field: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        EmbeddingsRequest.model_validate(field, strict=True)
    assert caught.value.error_count() < 10


# Models without text


def test_a_model_without_text_says_what_to_serve_instead(server: Running) -> None:
    for path, content in (
        ("/embed", {"texts": ["a cat"]}),
        ("/v1/embeddings", {"input": "a cat"}),
        ("/v1/embeddings", {"input": [1, 2, 3]}),
        ("/v1/embeddings", {"messages": [{"content": "a cat"}]}),
        ("/classify", {"images": [b64(PNG)], "labels": ["a cat"]}),
    ):
        answer = server.http.post(path, json=content)
        assert answer.status_code == 422
        assert "packlight-tiny takes no texts" in answer.json()["error"]["message"]
        assert "google/siglip2" in answer.json()["error"]["message"]
    assert server.http.get("/info").json()["model"]["text"] is None


def test_info_says_what_texts_a_model_takes(family: Family) -> None:
    text = family.server.http.get("/info").json()["model"]["text"]
    assert text["context"] == (64 if family.name == "siglip2" else 77)
    assert set(text) == {"context", "preprocessing", "logit_scale", "logit_bias", "probability", "fingerprint"}
    assert str(family.folder) not in str(text)


def test_a_folder_without_a_tokenizer_serves_images_alone(family: Family, tmp_path: Path) -> None:
    for file in family.folder.iterdir():
        if file.name in ("config.json", "model.safetensors"):
            (tmp_path / file.name).symlink_to(file)
    runner, facts = load_runner(Settings(model=str(tmp_path), devices="cpu", dtype="float32"))
    assert (runner.texts, facts.text) == (None, None)


def test_the_text_tower_can_be_left_out(family: Family) -> None:
    whole = load_runner(Settings(model=str(family.folder), devices="cpu", dtype="float32"))[1]
    alone = load_runner(Settings(model=str(family.folder), devices="cpu", dtype="float32", text_tower="off"))[1]
    assert alone.text is None
    assert alone.parameters < whole.parameters
    assert alone.fingerprint == whole.fingerprint
