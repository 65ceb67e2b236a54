"""A server of each Qwen-VL tower answers as `model.visual` does for the same files."""

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors import numpy as safetensors
from transformers import Qwen2VLImageProcessorPil
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from service.__main__ import main
from service.loading import load_runner
from service.settings.settings import Settings
from tests import pictures
from tests.qwen import MODELS, PATCH, SMALL, pooled_and_tokens, save_model
from tests.service.http.routes.test_families import PHOTOS, assert_within_promise, opened
from tests.service.running import Running, error_of, load_npy, serving

BOUNDS = {"shortest_edge": 4_000, "longest_edge": 60_000}
E = 72


@dataclass(frozen=True)
class Qwen:
    """A running server, the folder that it serves, and Transformers' tower of that folder."""

    family: str
    folder: Path
    server: Running
    tower: Any

    @property
    def patch(self) -> int:
        return PATCH[self.family]

    @property
    def token_dim(self) -> int:
        return E * (3 if self.family == "qwen3_vl" else 1)

    def reference(self, data: bytes, **bounds: int) -> tuple[NDArray[np.float32], NDArray[np.float32], list[int]]:
        """Pooled `[E]`, tokens `[N, D]` and grid of a file, by the model's own processor."""
        processor = Qwen2VLImageProcessorPil.from_pretrained(self.folder, size=BOUNDS | bounds)
        inputs = processor(opened(data), return_tensors="pt")
        pooled, tokens = pooled_and_tokens(self.tower, inputs["pixel_values"], inputs["image_grid_thw"])
        return pooled[0], tokens, inputs["image_grid_thw"][0, 1:].tolist()

    def image(self, data: bytes, **parameters: object) -> dict[str, Any]:
        answer = self.server.embed(data, **parameters)
        assert answer.status_code == 200, answer.text
        (image,) = answer.json()["data"]
        assert answer.json()["usage"] == {"images": 1, "tokens": image["tokens"]}
        return dict(image)


@pytest.fixture(scope="module", params=list(MODELS))
def qwen(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Qwen]:
    folder = tmp_path_factory.mktemp(request.param)
    tower = save_model(folder, request.param, SMALL[request.param])
    mean, std = (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD) if request.param != "qwen3_vl" else ([0.5] * 3, [0.5] * 3)
    patch = PATCH[request.param]
    Qwen2VLImageProcessorPil(patch_size=patch, size=BOUNDS, image_mean=mean, image_std=std).save_pretrained(folder)
    loaded = load_runner(Settings(model=str(folder), devices="cpu", dtype="float32"))
    with serving(loaded) as server, torch.no_grad():
        yield Qwen(request.param, folder, server, tower)


@pytest.mark.parametrize("name", PHOTOS)
def test_output_tokens_are_those_that_the_language_model_takes(qwen: Qwen, name: str) -> None:
    pooled, tokens, grid = qwen.reference(PHOTOS[name])
    image = qwen.image(PHOTOS[name], output="both", normalize=False)
    assert image["strategy"] == "native"
    assert image["grid"] == grid
    assert image["tokens"] == grid[0] * grid[1]
    assert image["output_tokens"] == len(tokens) == image["tokens"] // 4
    assert image["token_embeddings"]["shape"] == [len(tokens), qwen.token_dim]
    assert_within_promise(image["token_embeddings"]["data"], tokens)
    assert_within_promise(image["embedding"], pooled)
    scaled = qwen.image(PHOTOS[name])
    assert_within_promise(scaled["embedding"], pooled / np.linalg.norm(pooled))
    assert scaled["output_tokens"] == len(tokens)


def test_bounds_are_areas_and_default_to_the_models_own(qwen: Qwen) -> None:
    area = qwen.patch**2
    photo, icon = PHOTOS["photo"], PHOTOS["icon"]
    for data, parameters, bounds in (
        (photo, {"max_pixels": 20_000}, {"longest_edge": 20_000}),
        (photo, {"max_tokens": 57}, {"longest_edge": 57 * area}),
        (photo, {"max_pixels": 30_000, "max_tokens": 1000}, {"longest_edge": 30_000}),
        (icon, {"min_pixels": 9_000}, {"shortest_edge": 9_000}),
    ):
        _, tokens, grid = qwen.reference(data, **bounds)
        image = qwen.image(data, output="tokens", **parameters)
        assert image["grid"] == grid, parameters
        assert_within_promise(image["token_embeddings"]["data"], tokens)
    assert qwen.image(photo)["token_cap"] == 60_000 // area
    refused = qwen.server.embed(photo, max_tokens=3)
    assert error_of(refused) == (422, "invalid", "max_tokens", 0)


def test_an_image_has_the_same_bits_alone_and_beside_others(qwen: Qwen) -> None:
    images = list(PHOTOS.values())
    for strategy in ("native", "square"):
        together = qwen.server.embed_form(images, strategy=strategy, output="both", max_tokens=100).json()["data"]
        alone = [qwen.image(image, strategy=strategy, output="both", max_tokens=100) for image in images]
        assert together == [image | {"index": index} for index, image in enumerate(alone)]
        assert together[0]["grid"] == [10, 10] or strategy == "native"


def test_positions_are_those_of_m_rope_unless_the_request_asks_for_v2pe(qwen: Qwen) -> None:
    photo = PHOTOS["photo"]
    image = qwen.image(photo, output="tokens")
    rows, columns = (side // 2 for side in image["grid"])
    assert image["positions"] == {
        "shape": [rows * columns, 3],
        "dtype": "int32",
        "data": [[0, row, column] for row in range(rows) for column in range(columns)],
    }
    assert qwen.image(photo, output="tokens", positions="mrope") == image
    spaced = qwen.image(photo, output="both", positions="v2pe:1/4")["positions"]
    data = [number / 4 for number in range(rows * columns)]
    assert spaced == {"shape": [rows * columns], "dtype": "float32", "data": data}
    assert "positions" not in qwen.image(photo)
    refused = qwen.server.embed(photo, positions="mrope")
    assert error_of(refused) == (422, "invalid", "positions", None)


def test_base64_and_safetensors_hold_the_same_numbers(qwen: Qwen) -> None:
    images = list(PHOTOS.values())
    plain = qwen.server.embed_form(images, output="both").json()["data"]
    coded = qwen.server.embed_form(images, output="both", encoding="base64").json()["data"]
    vectors = [np.array(image["token_embeddings"]["data"], np.float32) for image in plain]
    positions = [np.array(image["positions"]["data"], np.int32) for image in plain]
    for image, tokens, places in zip(coded, vectors, positions, strict=True):
        assert np.array_equal(decoded(image["token_embeddings"], "<f4"), tokens)
        assert np.array_equal(decoded(image["positions"], "<i4"), places)
    tensors = in_safetensors(qwen, output="both")
    assert set(tensors) == {"embeddings", "grids", "token_embeddings", "cu_tokens", "positions"}
    assert tensors["cu_tokens"].tolist() == np.cumsum([0, *map(len, vectors)]).tolist()
    assert np.array_equal(tensors["token_embeddings"], np.concatenate(vectors))
    assert np.array_equal(tensors["positions"], np.concatenate(positions))
    spaced = in_safetensors(qwen, output="tokens", positions="v2pe:0.5")["positions"]
    assert spaced.dtype == np.float32
    assert np.array_equal(spaced, np.concatenate([np.arange(len(tokens)) / 2 for tokens in vectors]))


def decoded(array: dict[str, Any], dtype: str) -> NDArray[Any]:
    return np.frombuffer(base64.b64decode(array["data"]), dtype).reshape(array["shape"])


def in_safetensors(qwen: Qwen, **parameters: str) -> dict[str, NDArray[Any]]:
    files = [("image", ("a", data)) for data in PHOTOS.values()]
    headers = {"Accept": "application/x-safetensors"}
    answer = qwen.server.http.post("/embed", files=files, data=parameters, headers=headers)
    assert answer.status_code == 200, answer.text
    return dict(safetensors.load(answer.content))


def test_npy_has_the_charged_tokens_in_a_header(qwen: Qwen) -> None:
    answer = qwen.server.http.post(
        "/embed", content=PHOTOS["photo"], headers={"Accept": "application/x-npy", "Content-Type": "image/jpeg"}
    )
    assert load_npy(answer.content).shape == (1, E)
    assert answer.headers["X-Image-Tokens"] == str(qwen.image(PHOTOS["photo"])["tokens"])


def test_the_bound_on_json_token_vectors_counts_merged_tokens_and_their_width(
    qwen: Qwen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bound is a tenth of the usual one, which 60 pictures reach."""
    monkeypatch.setattr("service.http.formats.MAX_JSON_TOKEN_BYTES", 100_000)
    picture = pictures.save(pictures.picture(14 * qwen.patch, 16 * qwen.patch), "PNG")
    enough = 100_000 // (56 * qwen.token_dim * 4) + 1
    refused = qwen.server.embed_form([picture] * enough, output="tokens")
    assert error_of(refused) == (422, "invalid", "encoding", None)
    assert f"{56 * enough} token vectors of {qwen.token_dim}" in refused.json()["error"]["message"]
    assert qwen.server.embed_form([picture] * (enough - 1), output="tokens").status_code == 200


def test_info_describes_the_model_and_its_strategies(qwen: Qwen, capsys: pytest.CaptureFixture[str]) -> None:
    info = qwen.server.http.get("/info").json()
    assert (info["model"]["dim"], info["model"]["token_dim"]) == (E, qwen.token_dim)
    assert info["strategies"] == ["native", "square"]
    assert info["limits"]["max_image_tokens"] == 60_000 // qwen.patch**2
    assert (info["model"]["geometry"]["native_factor"], info["model"]["patch_size"]) == (2, qwen.patch)
    for strategy in ("naflex", "anyres"):
        refused = qwen.server.embed(PHOTOS["icon"], strategy=strategy)
        assert error_of(refused) == (422, "invalid", "strategy", None)
    assert main(["info", "--model", str(qwen.folder), "--devices", "cpu", "--dtype", "float32"]) == 0
    assert str(qwen.token_dim) in capsys.readouterr().out


def test_padding_and_charges_are_counted_before_merging(qwen: Qwen) -> None:
    before = [qwen.server.counted("tokens_total", kind="image"), qwen.server.counted("charged_tokens_total")]
    image = qwen.image(PHOTOS["tall"], output="tokens")
    assert qwen.server.metric("tokens_total", kind="image") - before[0] == image["tokens"]
    assert qwen.server.counted("charged_tokens_total") - before[1] == image["tokens"]
    assert qwen.server.runner.packs[-1] == [image["tokens"]]
    assert qwen.server.runner.computed[-1] == image["tokens"] + -image["tokens"] % 16


def test_openais_route_and_the_command_line_give_the_same_vector(qwen: Qwen, tmp_path: Path) -> None:
    photo = PHOTOS["photo"]
    ours = qwen.image(photo)["embedding"]
    uri = f"data:image/jpeg;base64,{base64.b64encode(photo).decode()}"
    answer = qwen.server.http.post("/v1/embeddings", json={"input": uri}).json()
    assert answer["data"][0]["embedding"] == ours
    (tmp_path / "photo.jpg").write_bytes(photo)
    out = str(tmp_path / "out.jsonl")
    model = ["--model", str(qwen.folder), "--devices", "cpu", "--dtype", "float32"]
    assert main(["embed", str(tmp_path / "photo.jpg"), *model, "--out", out]) == 0
    written = json.loads(Path(out).read_text())
    assert np.array_equal(np.float32(written["embedding"]), np.float32(ours))
    assert written["strategy"] == "native"


def test_the_plan_shows_the_served_model(qwen: Qwen) -> None:
    workload = [{"height": 427, "width": 640, "count": 10, "task": "photo"}]
    plan = qwen.server.http.post("/plan", json={"workload": workload, "budget_tokens": 100_000}).json()
    options = plan["groups"][0]["options"]
    own = [option for option in options if option["geometry"] in (None, "served", str(qwen.folder))]
    assert {option["strategy"] for option in own} == {"native", "square"}, options
