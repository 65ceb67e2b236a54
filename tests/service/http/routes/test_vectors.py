"""`embedding_type` and `dimensions` of `/embed`, in every encoding and format."""

import base64
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import pytest
import safetensors.numpy
import torch
from numpy.typing import NDArray
from PIL import Image

from model.checkpoint.load import load_checkpoint
from model.pack import PackedBatch
from model.running.output import RunnerOutput
from model.running.runner import Runner
from service.int8_scale import Int8Scale
from service.limits import ModelFacts
from service.requests.vectors import VectorFormat
from tests import pictures
from tests.service.conftest import small_png
from tests.service.running import NoTexts, Running, error_of, load_npy, serving

Loaded = tuple[Runner, ModelFacts]

DTYPES = {"float": "<f4", "float16": "<f2", "int8": "i1", "uint8": "u1", "binary": "i1", "ubinary": "u1"}
WIDTHS = (None, 256, 100, 3)
JSON_ARRAYS = ("JSON numbers", "base64")
NPY, SAFETENSORS = "application/x-npy", "application/x-safetensors"


def values(answer: httpx.Response, how: str, dtype: str) -> NDArray[Any]:
    """The first embedding of an answer."""
    assert answer.status_code == 200, answer.text
    if how in (NPY, SAFETENSORS):
        content = answer.content
        array: NDArray[Any] = load_npy(content) if how == NPY else safetensors.numpy.load(content)["embeddings"]
        assert array.dtype == dtype
        (vector,) = array
        return np.asarray(vector)
    (item,) = answer.json()["data"]
    embedding = item.get("embedding") or item["segments"][0]["embedding"]
    if how == "base64":
        return np.frombuffer(base64.b64decode(embedding), dtype)
    return np.array(embedding, dtype)


def ask(server: Running, image: bytes, how: str, **parameters: object) -> httpx.Response:
    if how == "base64":
        parameters["encoding"] = "base64"
    headers = {"Content-Type": "image/*"} | ({"Accept": how} if how not in JSON_ARRAYS else {})
    params = {name: str(value) for name, value in parameters.items() if value is not None}
    return server.http.post("/embed", content=image, params=params, headers=headers)


@pytest.fixture(scope="module")
def whole(module_server: Running) -> NDArray[np.float32]:
    """The vector of `small_png` as JSON has it, float32 `[256]`."""
    return values(ask(module_server, small_png(), "JSON numbers"), "JSON numbers", "f4")


@pytest.mark.slow
@pytest.mark.parametrize("how", [*JSON_ARRAYS, NPY, SAFETENSORS])
@pytest.mark.parametrize("dimensions", WIDTHS)
@pytest.mark.parametrize("embedding_type", DTYPES)
def test_every_type_in_every_encoding_and_format_is_the_same(
    module_server: Running,
    png: bytes,
    whole: NDArray[np.float32],
    embedding_type: Any,
    dimensions: int | None,
    how: str,
) -> None:
    expected = VectorFormat(embedding_type, dimensions).array(whole, Int8Scale())
    answer = ask(module_server, png, how, embedding_type=embedding_type, dimensions=dimensions)
    np.testing.assert_array_equal(values(answer, how, DTYPES[embedding_type]), expected)
    assert ("packlight-warning" in answer.headers) == (dimensions in (100, 3))


@pytest.mark.parametrize("how", JSON_ARRAYS)
@pytest.mark.parametrize("embedding_type", DTYPES)
def test_a_segment_has_the_type_too(
    server: Running, png: bytes, whole: NDArray[np.float32], embedding_type: Any, how: str
) -> None:
    answer = ask(server, png, how, embedding_type=embedding_type, dimensions=64, output="segments")
    expected = VectorFormat(embedding_type, 64).array(whole, Int8Scale())
    np.testing.assert_array_equal(values(answer, how, DTYPES[embedding_type]), expected)


def test_query_form_and_json_take_the_same(server: Running, png: bytes) -> None:
    asked: dict[str, Any] = {"embedding_type": "int8", "dimensions": 32}
    answers = [
        server.embed(png, **asked),
        server.embed_form([png], **asked),
        server.embed_json(images=[base64.b64encode(png).decode()], **asked),
    ]
    assert len({json.dumps(answer.json()["data"]) for answer in answers}) == 1
    assert [(answer.json()["dim"], answer.json()["embedding_type"]) for answer in answers] == [(32, "int8")] * 3


def test_null_is_left_out(server: Running, png: bytes) -> None:
    image = base64.b64encode(png).decode()
    plain = server.embed_json(images=[image])
    assert server.embed_json(images=[image], embedding_type=None, dimensions=None).content == plain.content


@pytest.mark.parametrize(
    ("parameters", "param"),
    [
        ({"embedding_type": "int4"}, "embedding_type"),
        ({"embedding_type": ""}, "embedding_type"),
        ({"embedding_type": "bfloat16"}, "embedding_type"),
        ({"dimensions": "0"}, "dimensions"),
        ({"dimensions": "-3"}, "dimensions"),
        ({"dimensions": "257"}, "dimensions"),
        ({"dimensions": "1.5"}, "dimensions"),
        ({"dimensions": "99999999999999999999"}, "dimensions"),
        ({"embedding_type": "int8", "output": "tokens"}, "embedding_type"),
        ({"embedding_type": "binary", "output": "both"}, "embedding_type"),
        ({"dimensions": "8", "output": "tokens"}, "dimensions"),
        ({"embedding_type": "int8", "normalize": "false"}, "normalize"),
        ({"embedding_type": "uint8", "normalize": "false"}, "normalize"),
    ],
)
def test_what_cannot_be_is_refused_before_any_decoding(
    server: Running, png: bytes, parameters: dict[str, str], param: str
) -> None:
    decodes = server.decoder.decodes
    assert error_of(server.embed(png, **parameters)) == (422, "invalid", param, None)
    assert server.decoder.decodes == decodes


@pytest.mark.parametrize("value", ["8", 8.5, True, [8], {}])
def test_dimensions_of_json_are_a_whole_number(server: Running, png: bytes, value: object) -> None:
    answer = server.embed_json(images=[base64.b64encode(png).decode()], dimensions=value)
    assert error_of(answer) == (422, "invalid", "dimensions", None)


def test_vectors_may_be_cut_without_being_normalized(server: Running, png: bytes) -> None:
    whole = values(ask(server, png, NPY, normalize="false"), NPY, "<f4")
    cut = values(ask(server, png, NPY, normalize="false", dimensions=10), NPY, "<f4")
    np.testing.assert_array_equal(cut, whole[:10])
    bits = values(ask(server, png, NPY, normalize="false", embedding_type="ubinary"), NPY, "u1")
    np.testing.assert_array_equal(bits, np.packbits(whole > 0))


def test_info_says_how_to_decode(server: Running, png: bytes) -> None:
    about = server.http.get("/info").json()["vectors"]
    assert about["embedding_types"] == list(DTYPES)
    assert about["dimensions"] == {"most": 256, "model_allows": None}
    vector = values(ask(server, png, NPY), NPY, "<f4")
    for embedding_type, shift in (("int8", 0), ("uint8", 128)):
        numbers = values(ask(server, png, NPY, embedding_type=embedding_type), NPY, DTYPES[embedding_type])
        decoded = (numbers.astype(float) - shift) / about["int8"]["factor"]
        assert np.abs(decoded - vector).max() <= 0.5001 / about["int8"]["factor"]


@pytest.mark.parametrize(
    ("allowed", "dimensions", "status", "info"),
    [((), 100, 200, "any"), ((64, 128), 64, 200, [64, 128]), ((64, 128), 256, 200, [64, 128])],
)
def test_a_model_that_says_its_vectors_may_be_cut_is_not_warned_of(
    loaded: Loaded, png: bytes, allowed: tuple[int, ...], dimensions: int, status: int, info: Any
) -> None:
    with serving((loaded[0], replace(loaded[1], matryoshka_dimensions=allowed))) as server:
        answer = server.embed(png, dimensions=dimensions)
        assert (answer.status_code, answer.json()["dim"]) == (status, dimensions)
        assert "packlight-warning" not in answer.headers
        assert server.http.get("/info").json()["vectors"]["dimensions"]["model_allows"] == info
        if allowed:
            assert error_of(server.embed(png, dimensions=100)) == (422, "invalid", "dimensions", None)


def test_classify_has_no_vectors_to_change(server: Running, png: bytes) -> None:
    paths = server.http.get("/openapi.json").json()["paths"]
    assert "dimensions" in json.dumps(paths["/embed"])
    assert "dimensions" not in json.dumps(paths["/classify"])


class NoVectors(NoTexts):
    """A model whose vector of a white picture holds one value, and of any other the numbers 0, 0, …, 1."""

    def __init__(self, value: float) -> None:
        self.value = value

    def run(self, batch: PackedBatch, *, tokens: bool = False) -> RunnerOutput:
        pooled = np.zeros((len(batch.cu_seqlens) - 1, 256), np.float32)
        pooled[:, -1] = 1
        pooled[batch.rows[batch.cu_seqlens[:-1], 0] == 255] = self.value
        return RunnerOutput(pooled, None, computed_tokens=len(batch.rows))


def shade(value: int) -> bytes:
    return pictures.save(Image.new("RGB", (32, 32), (value, value, value)), "PNG")


@pytest.fixture(scope="module", params=[0.0, float("nan"), float("-inf")], ids=["zeros", "NaN", "infinity"])
def broken(request: pytest.FixtureRequest, loaded: Loaded) -> Iterator[Running]:
    with serving((NoVectors(request.param), loaded[1])) as server:  # type: ignore[arg-type]
        yield server


@pytest.mark.parametrize("embedding_type", DTYPES)
def test_what_is_no_vector_never_leaves(broken: Running, embedding_type: str) -> None:
    images = [shade(0), shade(255), shade(3)]
    before = [broken.metric("images_total", outcome=outcome) for outcome in ("engine_fault", "embedded")]
    answer = broken.embed_form(images, embedding_type=embedding_type)
    assert error_of(answer) == (500, "engine_fault", None, 1)
    assert "is no vector" in answer.json()["error"]["message"]
    partly = broken.embed_form(images, embedding_type=embedding_type, partial=True)
    assert [item.get("error", {}).get("code") for item in partly.json()["data"]] == [None, "engine_fault", None]
    after = [broken.metric("images_total", outcome=outcome) for outcome in ("engine_fault", "embedded")]
    assert [now - then for now, then in zip(after, before, strict=True)] == [2, 2]


@pytest.mark.parametrize(("weight", "words"), [(0.0, "zeros"), (float("nan"), "finite")])
def test_weights_that_make_no_vectors_are_an_engine_fault(
    loaded: Loaded, png: bytes, weight: float, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    whole = load_checkpoint("packlight-tiny")
    tensors = {name: torch.full_like(tensor, weight) for name, tensor in whole.tensors.items()}
    with serving((Runner(replace(whole, tensors=tensors), device="cpu", dtype="float32"), loaded[1])) as server:
        for asked in ({}, {"output": "tokens", "encoding": "base64"}, {"embedding_type": "ubinary"}):
            answer = server.embed(png, **asked)
            assert error_of(answer) == (500, "engine_fault", None, 0)
            assert words in answer.json()["error"]["message"]
        assert server.metric("images_total", outcome="engine_fault") == 3
    assert "is no vector" in caplog.text


def test_numbers_that_are_all_0_after_the_cut_are_refused(broken: Running) -> None:
    answer = broken.embed_form([shade(0), shade(1)], dimensions=8, partial=True)
    assert [item["error"]["param"] for item in answer.json()["data"]] == ["dimensions"] * 2
    assert error_of(broken.embed(shade(0), dimensions=255)) == (422, "invalid", "dimensions", 0)
    assert broken.embed(shade(0), dimensions=256).status_code == 200


def test_a_vector_too_long_for_float16_is_refused(loaded: Loaded) -> None:
    with serving((NoVectors(1e5), loaded[1])) as server:  # type: ignore[arg-type]
        asked = {"embedding_type": "float16", "normalize": False}
        assert error_of(server.embed(shade(255), **asked)) == (422, "invalid", None, 0)
        assert server.embed(shade(255), embedding_type="float16").status_code == 200
        assert server.embed(shade(0), **asked).status_code == 200
