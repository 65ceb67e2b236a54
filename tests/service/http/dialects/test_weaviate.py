"""What Weaviate's module sends to its inference service, and what it reads."""

import json
from typing import Any

from model.running.runner import Runner
from service.limits import ModelFacts
from tests import pictures
from tests.service.http.dialects.spoken import b64, uri
from tests.service.running import Running, serving

PHOTO = pictures.photograph_file("rocket.jpg")
Loaded = tuple[Runner, ModelFacts]


def test_the_list_that_it_has_not_is_null_and_there_is_no_content_type(texts_server: Running) -> None:
    both = texts_server.http.post("/vectorize", json={"texts": ["a cat"], "images": [b64(PHOTO)]}).json()
    assert both["error"] == ""
    for name, vectors, other in (("texts", "textVectors", "images"), ("images", "imageVectors", "texts")):
        content: dict[str, Any] = {name: ["a cat"] if name == "texts" else [b64(PHOTO)], other: None}
        answer = texts_server.http.post("/vectorize", content=json.dumps(content))
        assert "content-type" not in answer.request.headers
        assert answer.json() == {"textVectors": [], "imageVectors": [], "error": ""} | {vectors: both[vectors]}


def test_an_error_is_json_with_its_words_at_the_door_too(loaded: Loaded) -> None:
    with serving(loaded, api_keys=("secret",)) as server:
        refused = server.http.post("/vectorize", json={"images": [uri(PHOTO)]})
        assert refused.status_code == 401
        assert "api_keys" in refused.json()["error"]


def test_health_is_204_without_a_key(loaded: Loaded) -> None:
    draining = [False]
    with serving(loaded, api_keys=("secret",), draining=lambda: draining[0]) as server:
        answers = [server.http.get(f"/.well-known/{name}") for name in ("live", "ready")]
        assert [(answer.status_code, answer.content) for answer in answers] == [(204, b"")] * 2
        assert server.http.get("/meta").status_code == 401
        draining[0] = True
        assert server.http.get("/.well-known/live").status_code == 204
        assert server.http.get("/.well-known/ready").status_code == 503


def test_meta_says_what_is_served(server: Running) -> None:
    assert server.http.get("/meta").json() == server.http.get("/info").json()["model"]
