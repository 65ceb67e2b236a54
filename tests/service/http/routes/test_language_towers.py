"""Servers of Pixtral's and Kimi K2.5's towers answer as Transformers does for the same files."""

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers.models.pixtral.image_processing_pil_pixtral import PixtralImageProcessorPil

from model.images.patches import patch_rows
from model.pack import pack
from model.sizing.budget import Budget
from model.sizing.geometry import Geometry
from model.sizing.plan import plan_image
from model.sizing.shrink import Shrink
from service.__main__ import main
from service.loading import load_runner
from service.settings.settings import Settings
from tests import pictures
from tests.language_towers import (
    KIMI,
    PIXTRAL,
    kimi_outputs,
    navit_resize,
    random_kimi,
    random_pixtral,
    save_kimi_processor,
)
from tests.service.http.routes.test_families import PHOTOS, assert_within_promise, opened
from tests.service.running import Running, error_of, serving

EDGE = 300
MOST_PATCHES = 300
D = KIMI["hidden_size"]


@dataclass(frozen=True)
class Served:
    family: str
    folder: Path
    server: Running
    tower: Any

    def reference(self, data: bytes) -> tuple[NDArray[np.float32], NDArray[np.float32], list[int]]:
        """Pooled `[D]`, tokens `[N, …]` and grid of a file."""
        if self.family == "pixtral":
            inputs = PixtralImageProcessorPil.from_pretrained(self.folder)(opened(data), return_tensors="pt")
            tokens = self.tower(inputs["pixel_values"].float()).last_hidden_state[0].numpy()
            return tokens.mean(0), tokens, [int(side) // 16 for side in inputs["image_sizes"][0]]
        picture = opened(data)
        size = picture.height, picture.width
        geometry = Geometry.for_shrinking(14, Shrink(512 * 14, MOST_PATCHES, multiple=2, pads=True), factor=2)
        plan = plan_image(size, geometry=geometry, budget=Budget.of_tokens(10_000, 14), strategy="native")
        assert plan.resized == navit_resize()(*size, 14, 2, MOST_PATCHES, 512)[1]
        batch = pack([patch_rows(picture, plan, geometry)], [plan.segments[0].grid])
        pooled, tokens = kimi_outputs(self.tower, batch)
        return pooled[0], tokens, list(batch.grids[0])

    def image(self, data: bytes, **parameters: object) -> dict[str, Any]:
        answer = self.server.embed(data, **parameters)
        assert answer.status_code == 200, answer.text
        return dict(answer.json()["data"][0])


@pytest.fixture(scope="module", params=["pixtral", "kimi"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp(request.param)
    tower = random_pixtral(PIXTRAL) if request.param == "pixtral" else random_kimi(KIMI)
    tower.save_pretrained(folder)
    if request.param == "pixtral":
        PixtralImageProcessorPil(size={"longest_edge": EDGE}).save_pretrained(folder)
    else:
        save_kimi_processor(folder, max_patches=MOST_PATCHES)
    loaded = load_runner(Settings(model=str(folder), devices="cpu", dtype="float32"))
    with serving(loaded) as server, torch.no_grad():
        yield Served(request.param, folder, server, tower)


@pytest.mark.parametrize("name", PHOTOS)
def test_tokens_and_their_mean_are_those_of_transformers(served: Served, name: str) -> None:
    pooled, tokens, grid = served.reference(PHOTOS[name])
    image = served.image(PHOTOS[name], output="both", normalize=False)
    assert (image["strategy"], image["grid"], image["tokens"]) == ("native", grid, grid[0] * grid[1])
    assert image["output_tokens"] == len(tokens) == image["tokens"] // (1 if served.family == "pixtral" else 4)
    assert image["token_embeddings"]["shape"] == list(tokens.shape)
    assert_within_promise(image["token_embeddings"]["data"], tokens)
    assert_within_promise(image["embedding"], pooled)


def test_positions_are_places_in_the_language_models_sequence(served: Served) -> None:
    image = served.image(PHOTOS["photo"], output="tokens")
    height, width = image["grid"]
    places = list(range(image["output_tokens"]))
    if served.family == "pixtral":
        row = ["[IMG]"] * width + ["[IMG_BREAK]"]
        places = [place for place, token in enumerate(row * height) if token == "[IMG]"]
    assert image["positions"] == {"shape": [len(places)], "dtype": "int32", "data": places}
    assert served.image(PHOTOS["photo"], output="tokens", positions="sequence") == image
    placed = served.image(PHOTOS["photo"], output="tokens", positions="mrope")["positions"]
    assert placed["shape"] == [len(places), 3]


def test_budgets_bound_tokens_and_an_icon_is_enlarged_only_on_request(served: Served) -> None:
    patch = 16 if served.family == "pixtral" else 14
    for bound in ({"max_tokens": 40}, {"max_pixels": 40 * patch**2}):
        assert 20 <= served.image(PHOTOS["photo"], **bound)["tokens"] <= 40
    icon = served.image(PHOTOS["icon"])
    larger = served.image(PHOTOS["icon"], min_pixels=150 * patch**2)
    assert icon["tokens"] < 30 < 150 <= larger["tokens"]
    assert served.image(PHOTOS["photo"], strategy="square", max_tokens=50)["grid"] in ([7, 7], [6, 6])
    assert error_of(served.server.embed(PHOTOS["icon"], strategy="naflex")) == (422, "invalid", "strategy", None)


def test_a_strip_whose_shorter_side_rounds_to_nothing_has_a_row_of_patches(served: Served) -> None:
    strip = pictures.save(Image.new("RGB", (4000, 2), "red"), "PNG")
    height, width = served.image(strip)["grid"]
    assert (height, width) == ((1, 19) if served.family == "pixtral" else (2, 286))
    if served.family == "kimi":
        assert error_of(served.server.embed(strip, max_tokens=4)) == (422, "invalid", "max_tokens", 0)
    assert served.server.embed(strip, max_tokens=1).status_code == (200 if served.family == "pixtral" else 422)


def test_an_image_has_the_same_bits_alone_and_beside_others(served: Served) -> None:
    images = list(PHOTOS.values())
    together = served.server.embed_form(images, output="both").json()["data"]
    alone = [served.image(image, output="both") for image in images]
    assert together == [image | {"index": index} for index, image in enumerate(alone)]


def test_info_plan_openais_route_and_the_command_line_know_the_model(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    model = served.server.http.get("/info").json()["model"]
    width, counted = (D, "rows") if served.family == "pixtral" else (4 * D, "sequence")
    assert (model["dim"], model["token_dim"], model["language_positions"]) == (D, width, counted)
    assert main(["info", "--model", str(served.folder), "--devices", "cpu", "--dtype", "float32"]) == 0
    assert str(width) in capsys.readouterr().out
    workload = [{"height": 427, "width": 640, "count": 10, "task": "photo"}]
    plan = served.server.http.post("/plan", json={"workload": workload, "budget_tokens": 100_000}).json()
    assert {"native", "square"} <= {option["strategy"] for option in plan["groups"][0]["options"]}
    answer = served.server.http.post("/v1/embeddings", json={"input": uri_of(PHOTOS["photo"])}).json()
    assert answer["data"][0]["embedding"] == served.image(PHOTOS["photo"])["embedding"]


def test_a_size_in_vllms_parameters_is_refused_since_it_is_a_side_here(served: Served) -> None:
    body = {"input": uri_of(PHOTOS["icon"]), "mm_processor_kwargs": {"size": {"longest_edge": 200}}}
    refused = served.server.http.post("/v1/embeddings", json=body)
    assert (refused.status_code, refused.json()["error"]["param"]) == (422, "mm_processor_kwargs")


def uri_of(data: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"
