"""A server of C-RADIO answers as Transformers' model does for the same files."""

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from service.loading import load_runner
from service.settings.settings import Settings
from tests.radio import SMALL, processor_of, save_model
from tests.service.http.routes.test_families import PHOTOS, assert_within_promise, opened
from tests.service.running import Running, error_of, serving

SIDE = 96
WIDTH = 96


@dataclass(frozen=True)
class Radio:
    server: Running
    model: Any

    def image(self, data: bytes, **parameters: object) -> dict[str, Any]:
        answer = self.server.embed(data, **parameters)
        assert answer.status_code == 200, answer.text
        return dict(answer.json()["data"][0])


@pytest.fixture(scope="module")
def radio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Radio]:
    folder: Path = tmp_path_factory.mktemp("radio")
    model = save_model(folder, SMALL, processor={"size": {"height": SIDE, "width": SIDE}})
    loaded = load_runner(Settings(model=str(folder), devices="cpu", dtype="float32"))
    with serving(loaded) as server, torch.no_grad():
        yield Radio(server, model)


@pytest.mark.parametrize("name", PHOTOS)
def test_a_square_is_the_summary_and_the_features_of_the_processors_picture(radio: Radio, name: str) -> None:
    values = processor_of(size={"height": SIDE, "width": SIDE})(opened(PHOTOS[name]), return_tensors="pt")
    theirs = radio.model(values["pixel_values"])
    image = radio.image(PHOTOS[name], strategy="square", output="both", normalize=False)
    assert image["grid"] == [6, 6]
    assert_within_promise(image["embedding"], theirs.summary[0].numpy())
    assert_within_promise(image["token_embeddings"]["data"], theirs.features[0].numpy())


def test_a_rectangle_keeps_its_aspect_within_its_budget(radio: Radio) -> None:
    image = radio.image(PHOTOS["tall"])
    assert (image["strategy"], image["token_cap"]) == ("naflex", 36)
    assert image["grid"][0] > 3 * image["grid"][1]
    assert radio.image(PHOTOS["tall"], strategy="native")["grid"] == [9, 2]
    assert radio.image(PHOTOS["tall"], max_tokens=9)["tokens"] <= 9
    assert error_of(radio.server.embed(PHOTOS["tall"], max_tokens=0))[:3] == (422, "invalid", "max_tokens")


def test_info_plan_and_openais_route_agree_with_embed(radio: Radio) -> None:
    http = radio.server.http
    model, limits = (http.get("/info").json()[part] for part in ("model", "limits"))
    assert (model["dim"], model["token_dim"], limits["default_max_tokens"]) == (2 * WIDTH, WIDTH, SIDE**2 // 256)
    group = {"height": 150, "width": 40, "count": 1, "task": "photo", "max_tokens": 20}
    option = http.post("/plan", json={"workload": [group], "budget_tokens": 20}).json()["groups"][0]["options"][0]
    image = radio.image(PHOTOS["tall"], max_tokens=20)
    assert (option["tokens"], option["grid"]) == (image["tokens"], image["grid"])
    assert np.linalg.norm(image["embedding"]) == pytest.approx(1.0)
    uri = f"data:image/png;base64,{base64.b64encode(PHOTOS['tall']).decode()}"
    answer = http.post("/v1/embeddings", json={"input": uri}).json()
    assert answer["data"][0]["embedding"] == radio.image(PHOTOS["tall"])["embedding"]
