"""A server of a NaViT checkpoint as timm writes it answers as the reference does for the same files."""

from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image

from model.pack import PackedBatch, pack
from service.loading import load_runner
from service.settings.settings import Settings
from tests import pictures
from tests.navit import Navit
from tests.navit_files import GAP, SMALL, save_navit
from tests.service.http.routes.test_families import assert_within_promise
from tests.service.running import Running, serving

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "naflexvit_base_patch16_parfac_gap": GAP | {"pos_embed": "factorized", "pos_embed_ar_preserving": True},
    "naflexvit_base_patch16_siglip": {"act_layer": "gelu_tanh", "pos_embed_interp_mode": "bilinear"},
}
FILES = {
    "photo": pictures.photograph_file("rocket.jpg"),
    "tall": pictures.save(pictures.picture(150, 40), "PNG"),
    "icon": pictures.save(pictures.picture(20, 31), "WEBP", lossless=True),
}


@dataclass(frozen=True)
class Served:
    server: Running
    reference: Navit


@pytest.fixture(scope="module", params=list(ARCHITECTURES))
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("navit")
    reference = save_navit(folder, request.param, ARCHITECTURES[request.param], SMALL, classes=10)
    loaded = load_runner(Settings(model=str(folder), devices="cpu", dtype="float32"))
    with serving(loaded) as server:
        yield Served(server, reference)


def cut(data: bytes, resized: tuple[int, int]) -> PackedBatch:
    """Patches of a file by timm's transform at this size: Pillow's bicubic filter, then row by row."""
    image = Image.open(BytesIO(data)).convert("RGB").resize(resized[::-1], Image.Resampling.BICUBIC)
    grid = resized[0] // 16, resized[1] // 16
    patches = np.array(image).reshape(grid[0], 16, grid[1], 16, 3).swapaxes(1, 2)
    return pack([patches.reshape(-1, 16 * 16 * 3)], [grid])


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("strategy", ["naflex", "native", "square"])
def test_an_answer_equals_the_reference_for_the_same_file(served: Served, name: str, strategy: str) -> None:
    answer = served.server.embed(FILES[name], strategy=strategy, output="both", normalize=False, max_tokens=100)
    assert answer.status_code == 200, answer.text
    (image,) = answer.json()["data"]
    pooled, tokens = served.reference.outputs(cut(FILES[name], tuple(image["resized"])))
    assert_within_promise(image["embedding"], pooled[0])
    assert_within_promise(image["token_embeddings"]["data"], tokens)
    assert image["tokens"] == len(tokens) <= 100


def test_images_of_one_request_have_the_same_vectors_as_alone(served: Served) -> None:
    together = served.server.embed_form(list(FILES.values())).json()["data"]
    alone = [served.server.embed(data).json()["data"][0] for data in FILES.values()]
    assert together == [image | {"index": index} for index, image in enumerate(alone)]


def test_the_default_cap_is_that_of_timms_evaluation(served: Served) -> None:
    info = served.server.http.get("/info").json()
    assert info["limits"]["default_max_tokens"] == 576
    assert (info["model"]["dim"], info["model"]["token_dim"]) == (96, 96)
    assert info["strategies"] == ["naflex", "native", "square", "anyres"]
    (image,) = served.server.embed(pictures.save(pictures.picture(100, 100), "PNG")).json()["data"]
    assert (image["strategy"], image["resized"], image["tokens"]) == ("naflex", [384, 384], 576)
