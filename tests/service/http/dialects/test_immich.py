"""What Immich's server sends to its machine learning service, and what it reads: forms, and a vector that is a text."""

import json
from typing import Any

import httpx
import pytest

from model.running.runner import Runner
from service.limits import ModelFacts
from tests import pictures
from tests.service.http.dialects.spoken import b64
from tests.service.running import Running, serving

PHOTO = pictures.photograph_file("rocket.jpg")
# As its `FormData` sends a Blob.
BLOB = ("blob", PHOTO, "application/octet-stream")
VISUAL = {"clip": {"visual": {"modelName": "ViT-B-32__openai"}}}
TEXTUAL = {"clip": {"textual": {"modelName": "ViT-B-32__openai", "options": {"language": "de"}}}}
Loaded = tuple[Runner, ModelFacts]


def predict(server: Running, entries: Any, *parts: tuple[str, Any], **fields: str) -> httpx.Response:
    given = entries if isinstance(entries, str) else json.dumps(entries)
    files = [("entries", (None, given)), *((name, (None, value)) for name, value in fields.items()), *parts]
    return server.http.post("/predict", files=files)


def refusal(answer: httpx.Response) -> tuple[int, str]:
    body = answer.json()
    assert body.keys() == {"detail"}
    return answer.status_code, body["detail"]


def test_an_image_has_the_bits_of_embed_as_a_text_and_its_sides(texts_server: Running) -> None:
    ours = texts_server.embed(PHOTO).json()["data"][0]["embedding"]
    answer = predict(texts_server, VISUAL, ("image", BLOB))
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert json.loads(body.pop("clip")) == ours
    assert body == {"imageHeight": 427, "imageWidth": 640}


@pytest.mark.parametrize("text", ["a red bicycle", "ein rotes Fahrrad " * 90, "自行车" * 600])
def test_a_text_has_the_bits_of_embed_however_long_it_is(texts_server: Running, text: str) -> None:
    ours = texts_server.embed_json(texts=[text]).json()["data"][0]["embedding"]
    body = predict(texts_server, TEXTUAL, text=text).json()
    assert json.loads(body.pop("clip")) == ours
    assert not body


def test_a_request_counts_once_under_its_dialect(texts_server: Running) -> None:
    labels = {"route": "/predict", "dialect": "immich", "status": "200"}
    before = texts_server.counted("requests_total", **labels)
    assert predict(texts_server, VISUAL, ("image", BLOB)).status_code == 200
    assert texts_server.counted("requests_total", **labels) == before + 1


def test_null_is_as_if_left_out(texts_server: Running) -> None:
    model = {"modelName": "any", "options": None}
    plain = predict(texts_server, VISUAL, ("image", BLOB)).json()
    assert predict(texts_server, {"clip": {"visual": model, "textual": None}}, ("image", BLOB)).json() == plain
    language = {"clip": {"textual": {"modelName": "any", "options": {"language": None}}}}
    assert predict(texts_server, language, text="a").json() == predict(texts_server, TEXTUAL, text="a").json()


@pytest.mark.parametrize("task", ["facial-recognition", "ocr"])
def test_faces_and_letters_are_refused_with_what_to_turn_off(texts_server: Running, task: str) -> None:
    entries = {task: {"detection": {"modelName": "buffalo_l", "options": {"minScore": 0.7}}}}
    status, words = refusal(predict(texts_server, entries, ("image", BLOB)))
    assert status == 422
    assert f"{task} is not offered" in words
    assert refusal(predict(texts_server, VISUAL | entries, ("image", BLOB)))[0] == 422


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"clip": {"visual": {"modelName": "a", "colour": 1}}}, "colour"),
        ({"clip": {"visual": {"modelName": "a", "options": {"colour": 1}}}}, "colour"),
        ({"clip": {"visual": {"modelName": "a"}, "aural": {}}}, "aural"),
        ({"clip": {}}, "one of clip.visual and clip.textual"),
        ({"clip": {**VISUAL["clip"], **TEXTUAL["clip"]}}, "one of clip.visual and clip.textual"),
        ({"clip": {"visual": {}}}, "clip.visual.modelName"),
        (VISUAL | {"taste": {}}, "taste"),
        ({}, "clip"),
        ([], "entries is a JSON object"),
        ("[" * 900 + "]" * 900, "entries is"),
    ],
)
def test_wrong_entries_are_named(texts_server: Running, entries: Any, words: str) -> None:
    status, said = refusal(predict(texts_server, entries, ("image", BLOB)))
    assert (status, words in said, said.startswith("entries")) == (422, True, True), said


def test_entries_that_are_no_json_are_400(texts_server: Running) -> None:
    status, said = refusal(predict(texts_server, "clip", ("image", BLOB)))
    assert (status, said.startswith("entries is not JSON")) == (400, True)


@pytest.mark.parametrize(
    ("entries", "parts", "fields", "words"),
    [
        (VISUAL, [], {}, "clip.visual takes one part named image"),
        (VISUAL, [("image", BLOB)] * 2, {}, "clip.visual takes one part"),
        (VISUAL, [("image", BLOB)], {"text": "a"}, "clip.visual takes one part"),
        (TEXTUAL, [], {}, "clip.textual takes a part named text"),
        (TEXTUAL, [("image", BLOB)], {"text": "a"}, "clip.textual takes a part"),
        (VISUAL, [("image", BLOB)], {"assetId": "a"}, "'assetId'"),
        (VISUAL, [("image", ("blob", PHOTO[:5000], "image/jpeg"))], {}, "image: "),
        (TEXTUAL, [], {"text": "a" * 2001}, "max_text_chars"),
        (TEXTUAL, [], {"text": "a" * 9000}, "8000 bytes"),
    ],
)
def test_wrong_parts_are_named(
    texts_server: Running, entries: Any, parts: list[Any], fields: dict[str, str], words: str
) -> None:
    status, said = refusal(predict(texts_server, entries, *parts, **fields))
    assert (status, words in said) == (422, True), said


def test_what_is_no_image_is_415_and_no_base64_is_taken(texts_server: Running) -> None:
    assert refusal(predict(texts_server, VISUAL, ("image", ("blob", b"\0text", "image/jpeg"))))[0] == 415
    assert refusal(predict(texts_server, VISUAL, image=b64(PHOTO)))[0] == 422


def test_another_kind_of_body_is_415(texts_server: Running) -> None:
    assert refusal(texts_server.http.post("/predict", json=VISUAL))[0] == 415


def test_a_text_is_refused_if_the_model_takes_none(server: Running) -> None:
    status, said = refusal(predict(server, TEXTUAL, text="a"))
    assert (status, said.startswith("packlight-tiny takes no texts")) == (422, True)


def test_a_refusal_at_the_door_has_its_shape(loaded: Loaded) -> None:
    with serving(loaded, api_keys=("secret",)) as server:
        assert refusal(predict(server, VISUAL, ("image", BLOB)))[0] == 401


def test_its_health_check_is_answered_without_a_key(loaded: Loaded) -> None:
    with serving(loaded, api_keys=("secret",)) as server:
        answer = server.http.get("/ping")
        assert (answer.status_code, answer.text) == (200, "pong")


def test_info_says_that_any_model_is_answered(texts_server: Running) -> None:
    dialects = {each["name"]: each for each in texts_server.http.get("/info").json()["dialects"]}
    assert dialects["immich"] == {"name": "immich", "paths": ["/predict"], "models": "any"}
    assert dialects["cohere"]["models"] == ["random-siglip2", "packlight-tiny"]
