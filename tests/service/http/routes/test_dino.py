"""A server of DINOv2 or DINOv3 answers as Transformers' model does for the same files."""

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import numpy as safetensors
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from service.loading import load_runner
from service.settings.settings import Settings
from tests.dino import SMALL, save_dino
from tests.service.http.routes.test_families import PHOTOS, assert_within_promise, opened
from tests.service.running import Running, error_of, load_npy, serving

_IMAGENET: dict[str, Any] = {"image_mean": IMAGENET_DEFAULT_MEAN, "image_std": IMAGENET_DEFAULT_STD}
# DINOv3's own processor has no Pillow backend; ViT's does the same with Pillow.
PROCESSORS: dict[str, Any] = {
    "v2-registers": BitImageProcessorPil(
        **_IMAGENET, size={"shortest_edge": 64}, crop_size={"height": 56, "width": 56}
    ),
    "v3": ViTImageProcessorPil(**_IMAGENET, size={"height": 64, "width": 64}),
}
TOKENS = 16


@dataclass(frozen=True)
class Dino:
    """server: of the mean of the patches for DINOv3, of the class token for DINOv2."""

    server: Running
    model: Any
    processor: Any
    pooling: str

    def image(self, data: bytes, **parameters: object) -> dict[str, Any]:
        answer = self.server.embed(data, **parameters)
        assert answer.status_code == 200, answer.text
        return dict(answer.json()["data"][0])


@pytest.fixture(scope="module", params=list(PROCESSORS))
def dino(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dino]:
    folder, processor = tmp_path_factory.mktemp("dino"), PROCESSORS[request.param]
    model = save_dino(folder, *SMALL[request.param])
    processor.save_pretrained(folder)
    pooling = "mean" if request.param == "v3" else "cls"
    loaded = load_runner(
        Settings(model=str(folder), devices="cpu", dtype="float32", pooling="mean" if pooling == "mean" else None)
    )
    with serving(loaded) as server, torch.no_grad():
        yield Dino(server, model, processor, pooling)


@pytest.mark.parametrize("name", PHOTOS)
def test_a_square_gives_what_the_model_gives_for_its_processors_picture(dino: Dino, name: str) -> None:
    output = dino.model(dino.processor(opened(PHOTOS[name]), return_tensors="pt")["pixel_values"])
    tokens = output.last_hidden_state[0, 5:]
    pooled = output.pooler_output[0] if dino.pooling == "cls" else tokens.mean(0)
    image = dino.image(PHOTOS[name], strategy="square", output="both", normalize=False)
    assert (image["grid"], image["tokens"]) == ([4, 4], TOKENS)
    assert_within_promise(image["embedding"], pooled.numpy())
    assert_within_promise(image["token_embeddings"]["data"], tokens.numpy())


def test_a_rectangle_keeps_its_aspect_within_its_budget(dino: Dino) -> None:
    image, patch = dino.image(PHOTOS["tall"]), dino.model.config.patch_size
    assert (image["strategy"], image["token_cap"]) == ("naflex", TOKENS)
    assert image["grid"][0] > 3 * image["grid"][1]
    assert image["resized"] == [patch * side for side in image["grid"]]
    assert dino.image(PHOTOS["tall"], strategy="native")["grid"] == [round(150 / patch), round(40 / patch)]
    assert error_of(dino.server.embed(PHOTOS["tall"], strategy="anyres"))[:3] == (422, "invalid", "strategy")


def raw(dino: Dino, accept: str, **parameters: str) -> bytes:
    headers = {"Content-Type": "image/*", "Accept": accept}
    answer = dino.server.http.post("/embed", content=PHOTOS["photo"], params=parameters, headers=headers)
    return answer.raise_for_status().content


def test_every_form_of_an_answer_holds_the_same_vectors(dino: Dino) -> None:
    image = dino.image(PHOTOS["photo"], output="both")
    embedding, tokens = image["embedding"], image["token_embeddings"]
    assert np.linalg.norm(embedding) == pytest.approx(1.0)
    assert tokens["shape"] == [image["tokens"], 96]
    assert np.array_equal(load_npy(raw(dino, "application/x-npy"))[0], np.float32(embedding))
    stored = safetensors.load(raw(dino, "application/x-safetensors", output="both"))
    assert np.array_equal(stored["token_embeddings"], np.float32(tokens["data"]))
    uri = f"data:image/jpeg;base64,{base64.b64encode(PHOTOS['photo']).decode()}"
    answer = dino.server.http.post("/v1/embeddings", json={"input": uri}).json()
    assert answer["data"][0]["embedding"] == embedding
    assert answer["usage"]["total_tokens"] == image["tokens"]


def test_info_says_how_an_embedding_is_pooled_and_plan_agrees_with_embed(dino: Dino) -> None:
    http = dino.server.http
    info = http.get("/info").json()
    assert (info["model"]["dim"], info["model"]["pooling"]) == (96, dino.pooling)
    assert info["strategies"] == ["naflex", "native", "square"]
    group = {"height": 150, "width": 40, "count": 1, "task": "photo", "max_tokens": 20}
    planned = http.post("/plan", json={"workload": [group], "budget_tokens": 20}).json()["groups"][0]["options"]
    options = {option["strategy"]: option for option in planned if option["loaded"]}
    image = dino.image(PHOTOS["tall"], max_tokens=20)
    assert (options["naflex"]["tokens"], options["naflex"]["grid"]) == (image["tokens"], image["grid"])
    # DINOv2's processor cuts a square out of the middle, DINOv3's squashes the picture.
    shown, stretch = (56**2 / (64 * 240), 1) if dino.pooling == "cls" else (1, 150 / 40)
    assert options["square"]["shown"] == pytest.approx(shown, abs=1e-3)
    assert options["square"]["stretch"] == pytest.approx(stretch, abs=1e-3)


def test_texts_are_refused(dino: Dino) -> None:
    answer = dino.server.http.post("/embed", json={"texts": ["a red bicycle"]})
    assert answer.status_code == 422
    assert "takes no texts" in answer.json()["error"]["message"]
