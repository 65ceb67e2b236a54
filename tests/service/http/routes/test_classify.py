"""`POST /classify`: the logits and probabilities of Transformers' own models, and what the route takes."""

import base64
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import AutoTokenizer

from model.pack import PackedTexts
from model.running.output import RunnerOutput
from service.engine.client import Trust
from service.engine.engine import Engine
from service.loading import load_runner
from service.settings.settings import Settings
from tests import pictures
from tests.service.running import Running, error_of, serving, until
from tests.text_models import FAMILIES, save_whole

PHOTO = pictures.photograph_file("rocket.jpg")
PNG = pictures.save(pictures.picture(48, 64), "PNG")
LABELS = ["a rocket", "two dogs", "a page of text"]


class Family:
    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder = name, folder
        self.model = save_whole(folder, name)

    @torch.no_grad()
    def logits(self, images: NDArray[np.float32], labels: list[str]) -> NDArray[np.float32]:
        """Transformers' `logits_per_image` for images `[B, E]` of length 1, by the model's own scale and bias."""
        tokenizer = AutoTokenizer.from_pretrained(self.folder)
        kind = {"padding": "max_length", "max_length": 64} if self.name == "siglip2" else {"padding": True}
        ids = tokenizer(labels, return_tensors="pt", **kind)["input_ids"]  # trained without the mask
        features = self.model.get_text_features(input_ids=ids).pooler_output
        texts = features / features.norm(dim=-1, keepdim=True)
        logits = texts @ torch.from_numpy(images).T * self.model.logit_scale.exp()
        if self.name == "siglip2":
            logits = logits + self.model.logit_bias
        return logits.T.numpy()  # type: ignore[no-any-return]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Family:
    return Family(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def classifier(family: Family) -> Iterator[Running]:
    loaded = load_runner(Settings(model=str(family.folder), devices="cpu", dtype="float32"))
    with serving(loaded, max_texts_per_request=20) as server:
        yield server


def classified(server: Running, images: list[bytes], **content: Any) -> dict[str, Any]:
    encoded = [base64.b64encode(image).decode() for image in images]
    answer = server.http.post("/classify", json={"images": encoded, "labels": LABELS} | content)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def test_logits_and_probabilities_are_those_of_the_model(family: Family, classifier: Running) -> None:
    encoded = [base64.b64encode(image).decode() for image in (PHOTO, PNG)]
    embedded = classifier.embed_json(images=encoded).json()["data"]
    images = np.array([item["embedding"] for item in embedded], np.float32)
    expected = family.logits(images, LABELS)
    found = classified(classifier, [PHOTO, PNG], raw=True)["data"]
    assert np.abs(np.array([item["logits"] for item in found]) - expected).max() < 1e-4
    exact = torch.from_numpy(expected)
    probabilities = exact.sigmoid() if family.name == "siglip2" else exact.softmax(dim=-1)
    assert np.abs(np.array([item["probabilities"] for item in found]) - probabilities.numpy()).max() < 1e-5
    assert [item["label"] for item in found] == [LABELS[best] for best in expected.argmax(axis=1)]


def test_an_image_has_the_same_answer_alone_and_beside_others_and_with_more_labels(classifier: Running) -> None:
    (alone,) = classified(classifier, [PHOTO], raw=True)["data"]
    beside = classified(classifier, [PNG, PHOTO, PNG], raw=True)["data"][1]
    assert beside | {"index": 0} == alone
    (more,) = classified(classifier, [PHOTO], raw=True, labels=[*LABELS, "a chair"])["data"]
    assert more["logits"][:3] == alone["logits"]


def test_labels_are_paid_for_once(classifier: Running) -> None:
    labels = ["paid", "for", "once"]
    first = classified(classifier, [PHOTO], labels=labels)
    second = classified(classifier, [PHOTO], labels=[*labels, "new"])
    assert (first["usage"]["texts"], second["usage"]["texts"]) == (3, 1)
    assert classified(classifier, [PHOTO], labels=labels)["usage"] == {
        "images": 1, "texts": 0, "tokens": first["data"][0]["tokens"],
    }  # fmt: skip


def test_labels_of_a_device_that_was_found_wrong_are_embedded_anew(
    classifier: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    def paid() -> int:
        texts: int = classified(classifier, [PHOTO], labels=["of", "a", "liar"])["usage"]["texts"]
        return texts

    assert [paid(), paid()] == [3, 0]
    monkeypatch.setattr(Engine, "trust", Trust(doubts=1))
    assert [paid(), paid()] == [3, 0]


def test_usage_tells_the_tokens_that_were_not_computed(family: Family) -> None:
    loaded = load_runner(Settings(model=str(family.folder), devices="cpu", dtype="float32"))
    with serving(loaded, cache_bytes=2**20) as server:
        assert "cached_tokens" not in classified(server, [PHOTO])["usage"]
        again = classified(server, [PHOTO])
        assert again["usage"]["cached_tokens"] == again["data"][0]["tokens"]


def test_a_template_is_filled_with_each_label(classifier: Running) -> None:
    written = classified(classifier, [PHOTO], labels=["a photo of a cat", "a photo of a dog"], raw=True)
    filled = classified(classifier, [PHOTO], labels=["cat", "dog"], templates=["a photo of a {}"], raw=True)
    assert filled["data"][0]["logits"] == written["data"][0]["logits"]
    assert filled["labels"] == ["cat", "dog"]


def test_a_label_of_several_templates_is_their_mean(family: Family, classifier: Running) -> None:
    templates = ["a photo of a {}", "a drawing of a {}"]
    texts = [template.format("cat") for template in templates]
    vectors = np.array([item["embedding"] for item in classifier.embed_json(texts=texts).json()["data"]])
    mean = vectors.mean(axis=0) / np.linalg.norm(vectors.mean(axis=0))
    image = np.array(classifier.embed(PHOTO).json()["data"][0]["embedding"])
    scale = family.model.logit_scale.exp().item()
    bias = family.model.logit_bias.item() if family.name == "siglip2" else 0.0
    (found,) = classified(classifier, [PHOTO], labels=["cat"], templates=templates, raw=True)["data"]
    assert found["logits"][0] == pytest.approx(image @ mean * scale + bias, abs=1e-4)


def test_a_form_gives_each_label_once(classifier: Running) -> None:
    files = [("image", ("a.jpg", PHOTO, "image/jpeg"))]
    answer = classifier.http.post("/classify", files=files, data={"labels": LABELS, "raw": "true"})
    assert answer.json()["data"] == classified(classifier, [PHOTO], raw=True)["data"]


def test_a_broken_image_fails_alone_if_asked(classifier: Running) -> None:
    found = classified(classifier, [PHOTO, PHOTO[:5000]], partial=True)["data"]
    assert ["error" in item for item in found] == [False, True]


@pytest.mark.parametrize(
    ("content", "param"),
    [
        ({"labels": []}, "labels"),
        ({"labels": "cat"}, "labels"),
        ({"labels": [""]}, "labels"),
        ({"labels": None}, "labels"),
        ({"templates": ["no place"]}, "templates"),
        ({"templates": []}, "templates"),
        ({"labels": ["a"] * 3, "templates": [f"{number} {{}}" for number in range(30)]}, "labels"),
        ({"raw": "perhaps"}, "raw"),
        ({"texts": ["a cat"]}, "texts"),
        ({"images": None, "inputs": [[{"text": "a cat"}, {"image": base64.b64encode(PNG).decode()}]]}, "inputs"),
        ({"output": "tokens"}, "output"),
        ({"images": None}, "images"),
        ({"labels": ["long " * 10_000]}, "labels"),
        ({"label": "cat"}, "label"),
        ({"images": []}, "images"),
    ],
)
def test_wrong_labels_are_refused_by_name(classifier: Running, content: dict[str, Any], param: str) -> None:
    images = [base64.b64encode(PNG).decode()]
    for _ in range(2):
        answer = classifier.http.post("/classify", json={"images": images, "labels": LABELS} | content)
        assert error_of(answer)[:3] == (422, "invalid", param)


@pytest.mark.parametrize("query", ["labels=a", "labels=a&labels=b", "templates={}", "raw=true"])
def test_labels_in_the_query_are_told_where_they_belong(classifier: Running, query: str) -> None:
    content = {"images": [base64.b64encode(PNG).decode()], "labels": ["a cat"]}
    name = query.partition("=")[0]
    raw = {"content": PNG, "headers": {"Content-Type": "image/png"}}
    ways: list[dict[str, Any]] = [{"json": content}, {"files": {"image": PNG}}, raw]
    for sent in ways:
        answer = classifier.http.post(f"/classify?{query}", **sent)
        assert error_of(answer)[:3] == (422, "invalid", name)
        assert f"{name} is in the query" in answer.json()["error"]["message"]


def test_a_misspelt_field_is_named_before_what_it_leaves_out(classifier: Running) -> None:
    answer = classifier.http.post("/classify", json={"images": [base64.b64encode(PNG).decode()], "label": ["a cat"]})
    assert error_of(answer)[:3] == (422, "invalid", "label")
    assert "there are: labels, templates, raw, max_tokens" in answer.json()["error"]["message"]


def test_a_template_without_a_place_hears_what_it_lacks(classifier: Running) -> None:
    content = {"images": [base64.b64encode(PNG).decode()], "labels": LABELS, "templates": ["a photo"]}
    answer = classifier.http.post("/classify", json=content)
    assert answer.json()["error"]["message"] == "templates: each of them has {} where the label goes"


@pytest.mark.parametrize(
    ("labels", "templates", "message"),
    [
        (["a"] * 600, ["{}"] * 600, "360000 texts; at most 20"),
        (["a" * 30_000], ["{}" * 30_000], "900000000 characters; the limit is 32768"),
    ],
)
def test_prompts_that_would_fill_the_memory_are_refused_before_they_are_made(
    classifier: Running, labels: list[str], templates: list[str], message: str
) -> None:
    images = [base64.b64encode(PNG).decode()]
    answer = classifier.http.post("/classify", json={"images": images, "labels": labels, "templates": templates})
    assert error_of(answer)[:3] == (422, "invalid", "labels")
    assert message in answer.json()["error"]["message"]


def test_a_label_that_was_cut_once_is_refused_if_asked(classifier: Running) -> None:
    labels = ["a very long label " * 30]
    assert classified(classifier, [PHOTO], labels=labels)["labels"] == labels
    content = {"images": [base64.b64encode(PNG).decode()], "labels": labels, "truncate": "error"}
    assert error_of(classifier.http.post("/classify", json=content))[:3] == (422, "invalid", "labels")


def test_a_label_on_which_the_device_fails_is_no_image(classifier: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(batch: PackedTexts) -> RunnerOutput:
        raise RuntimeError("broken")

    monkeypatch.setattr(classifier.runner, "run_texts", fails)
    content = {"images": [base64.b64encode(PNG).decode()], "labels": ["a label on a broken device"]}
    assert error_of(classifier.http.post("/classify", json=content)) == (500, "engine_fault", "labels", None)


def test_labels_are_charged_as_bytes_in_flight(classifier: Running) -> None:
    labels = [f"{number} " + "a" * 30_000 for number in range(20)]
    classifier.runner.hold()
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(classified, classifier, [PHOTO], labels=labels)
        # Not the first pack: that may be the image of an earlier test, whose label failed.
        until(lambda: classifier.metric("inflight_bytes") > 20 * 30_000)
        classifier.runner.free.set()
        asked.result()
    until(classifier.is_empty)
