"""A server for each family of encoders answers as Transformers does for the same files."""

import base64
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors import numpy as safetensors
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.siglip2.image_processing_pil_siglip2 import Siglip2ImageProcessorPil

from model.sizing.geometry import STRATEGIES
from service.loading import load_runner
from service.settings.settings import Settings
from tests import pictures
from tests.reference import SMALL, save_fixed, save_tower
from tests.service.running import Running, error_of, load_npy, serving

# The side of a fixed model's input and of a tile. NaFlex derives it from its 16 tokens.
SIDE, PATCH = 64, 16
TILE_TOKENS = 16
FIXED = SMALL | {"image_size": SIDE, "patch_size": PATCH}
LAYOUTS = [[rows * SIDE, columns * SIDE] for rows, columns in ((1, 2), (2, 1), (2, 2), (3, 1), (1, 3))]
_HALVES = [0.5, 0.5, 0.5]

PHOTOS = {
    "photo": pictures.photograph_file("rocket.jpg"),
    "page": pictures.photograph_file("page.png"),
    "tall": pictures.save(pictures.picture(150, 40), "PNG"),
    "icon": pictures.save(pictures.picture(20, 31), "WEBP", lossless=True),
}

Outputs = tuple[NDArray[np.float32], NDArray[np.float32]]


@dataclass(frozen=True)
class Family:
    """A running server, and Transformers' model and processor of the same checkpoint.

    whole: pooled `[1, E]` and tokens `[N, D]` of a file by the model's own processor. tiles: pooled `[S, E]` and
    tokens `[S, n, D]` of normalised pictures `[S, 3, SIDE, SIDE]`, which `tiler` makes as LLaVA-NeXT does.
    """

    name: str
    server: Running
    whole: Callable[[bytes], Outputs]
    tiles: Callable[[torch.Tensor], Outputs]
    tiler: Any

    def segments(self, data: bytes) -> Outputs:
        values = self.tiler(opened(data), return_tensors=None)["pixel_values"][0]
        return self.tiles(torch.from_numpy(np.stack(values)))


def opened(data: bytes) -> Image.Image:
    return Image.open(BytesIO(data)).convert("RGB")


def naflex(folder: Path) -> dict[str, Any]:
    tower = save_tower(folder, SMALL)
    processor = Siglip2ImageProcessorPil(max_num_patches=TILE_TOKENS)
    processor.save_pretrained(folder)

    def forward(values: Any, mask: Any, shapes: Any) -> Outputs:
        output = tower(pixel_values=values, pixel_attention_mask=mask, spatial_shapes=shapes)
        return output.pooler_output.numpy(), output.last_hidden_state.numpy()

    def whole(data: bytes) -> Outputs:
        inputs = processor(opened(data), return_tensors="pt")
        pooled, tokens = forward(inputs["pixel_values"], inputs["pixel_attention_mask"], inputs["spatial_shapes"])
        return pooled, tokens[0, : int(inputs["pixel_attention_mask"].sum())]

    def tiles(values: torch.Tensor) -> Outputs:
        side, count = SIDE // PATCH, len(values)
        cut = values.view(count, 3, side, PATCH, side, PATCH).permute(0, 2, 4, 3, 5, 1).reshape(count, side**2, -1)
        return forward(cut, torch.ones(cut.shape[:2], dtype=torch.int32), torch.full((count, 2), side))

    return {"whole": whole, "tiles": tiles, "tiler": tiler(_HALVES, _HALVES, resample=2)}


def siglip(folder: Path) -> dict[str, Any]:
    model = save_fixed(folder, "siglip", FIXED)
    processor = SiglipImageProcessorPil(size={"height": SIDE, "width": SIDE}, resample=3)
    processor.save_pretrained(folder)

    def tiles(values: torch.Tensor) -> Outputs:
        output = model.get_image_features(pixel_values=values)
        return output.pooler_output.numpy(), output.last_hidden_state.numpy()

    return {"whole": by_processor(processor, tiles), "tiles": tiles, "tiler": tiler(_HALVES, _HALVES, resample=3)}


def clip(folder: Path) -> dict[str, Any]:
    model = save_fixed(folder, "clip", FIXED)
    processor = CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    processor.save_pretrained(folder)

    def tiles(values: torch.Tensor) -> Outputs:
        output = model.get_image_features(pixel_values=values)
        # The class token comes first, and is not answered.
        return output.pooler_output.numpy(), output.last_hidden_state[:, 1:].numpy()

    return {
        "whole": by_processor(processor, tiles),
        "tiles": tiles,
        "tiler": tiler(OPENAI_CLIP_MEAN, OPENAI_CLIP_STD, resample=3),
    }


def by_processor(processor: Any, tiles: Callable[[torch.Tensor], Outputs]) -> Callable[[bytes], Outputs]:
    def whole(data: bytes) -> Outputs:
        pooled, tokens = tiles(processor(opened(data), return_tensors="pt")["pixel_values"])
        return pooled, tokens[0]

    return whole


def tiler(mean: list[float], std: list[float], *, resample: int) -> Any:
    return LlavaNextImageProcessorPil(
        size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}, image_grid_pinpoints=LAYOUTS,
        image_mean=mean, image_std=std, resample=resample,
    )  # fmt: skip


FAMILIES = {"naflex": naflex, "siglip": siglip, "clip": clip}
WIDTHS = {"naflex": (96, 96), "siglip": (96, 96), "clip": (40, 96)}


@pytest.fixture(scope="module", params=list(FAMILIES))
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Family]:
    folder = tmp_path_factory.mktemp(request.param)
    reference = FAMILIES[request.param](folder)
    loaded = load_runner(Settings(model=str(folder), devices="cpu", dtype="float32"))
    with serving(loaded) as server, torch.no_grad():
        yield Family(request.param, server, **reference)


def assert_within_promise(ours: Any, theirs: NDArray[np.float32]) -> None:
    array = np.array(ours, np.float32)
    assert array.shape == theirs.shape
    assert np.abs(array - theirs).max() <= 1e-5 * max(1.0, float(np.abs(theirs).max()))


def image_of(family: Family, data: bytes, **parameters: object) -> dict[str, Any]:
    """The one image of an answer, whose usage is checked."""
    answer = family.server.embed(data, normalize=False, **parameters)
    assert answer.status_code == 200, answer.text
    (image,) = answer.json()["data"]
    assert answer.json()["usage"] == {"images": 1, "tokens": image["tokens"]}
    return dict(image)


@pytest.mark.parametrize("name", PHOTOS)
def test_an_answer_equals_transformers_for_the_same_file(family: Family, name: str) -> None:
    pooled, tokens = family.whole(PHOTOS[name])
    image = image_of(family, PHOTOS[name], output="both")
    assert image["strategy"] == ("naflex" if family.name == "naflex" else "square")
    assert_within_promise(image["embedding"], pooled[0])
    assert_within_promise(image["token_embeddings"]["data"], tokens)
    assert image["token_embeddings"]["shape"] == [image["tokens"], 96]


@pytest.mark.parametrize("name", PHOTOS)
def test_each_anyres_segment_equals_transformers_for_that_tile(family: Family, name: str) -> None:
    pooled, tokens = family.segments(PHOTOS[name])
    image = image_of(family, PHOTOS[name], strategy="anyres", output="segments")
    segments = image["segments"]
    assert_within_promise([segment["embedding"] for segment in segments], pooled)
    assert [segment["offset"] for segment in segments] == [TILE_TOKENS * place for place in range(len(pooled))]
    assert {(segment["tokens"], *segment["grid"]) for segment in segments} == {(TILE_TOKENS, 4, 4)}
    rows, columns = (side // SIDE for side in image["resized"])
    assert [(segment["kind"], segment["row"], segment["column"]) for segment in segments] == [
        ("thumbnail", 0, 0),
        *(("tile", row, column) for row in range(rows) for column in range(columns)),
    ]
    both = image_of(family, PHOTOS[name], strategy="anyres", output="both")
    assert_within_promise(both["token_embeddings"]["data"], tokens.reshape(-1, 96))
    assert both["tokens"] == both["output_tokens"] == TILE_TOKENS * len(pooled)


def test_an_image_of_several_segments_has_the_mean_of_their_normalised_vectors(family: Family) -> None:
    pooled, _ = family.segments(PHOTOS["photo"])
    mean = (pooled / np.linalg.norm(pooled, axis=1, keepdims=True)).mean(axis=0)
    plain = image_of(family, PHOTOS["photo"], strategy="anyres")
    assert_within_promise(plain["embedding"], mean)
    assert [set(segment) for segment in plain["segments"]] == [
        {"kind", "row", "column", "grid", "tokens", "offset"}
    ] * len(pooled)
    scaled = family.server.embed(PHOTOS["photo"], strategy="anyres").json()["data"][0]
    assert_within_promise(scaled["embedding"], mean / np.linalg.norm(mean))
    segments = family.server.embed(PHOTOS["photo"], strategy="anyres", output="segments").json()["data"][0]["segments"]
    np.testing.assert_allclose(np.linalg.norm([s["embedding"] for s in segments], axis=1), 1, atol=1e-6)


def test_an_image_has_the_same_bits_alone_and_beside_every_strategy(family: Family) -> None:
    images = list(PHOTOS.values())
    for strategy in family.server.facts.geometry.strategies:
        together = family.server.embed_form(images, strategy=strategy).json()["data"]
        alone = [family.server.embed(image, strategy=strategy).json()["data"][0] for image in images]
        assert together == [image | {"index": index} for index, image in enumerate(alone)]


def binary(family: Family, accept: str, **parameters: str) -> Any:
    files = [("image", ("a", data)) for data in PHOTOS.values()]
    answer = family.server.http.post(
        "/embed", files=files, data=parameters, headers={"Accept": f"application/{accept}"}
    )
    assert answer.status_code == 200, answer.text
    return answer


def test_safetensors_say_where_the_segments_of_an_image_are(family: Family) -> None:
    tensors = safetensors.load(binary(family, "x-safetensors", strategy="anyres", output="both").content)
    json = family.server.embed_form(list(PHOTOS.values()), strategy="anyres", output="both").json()["data"]
    counts = [len(image["segments"]) for image in json]
    assert max(counts) > min(counts) >= 3
    assert tensors["cu_segments"].tolist() == np.cumsum([0, *counts]).tolist()
    assert tensors["segment_grids"].tolist() == [segment["grid"] for image in json for segment in image["segments"]]
    assert tensors["cu_tokens"].tolist() == np.cumsum([0, *(image["tokens"] for image in json)]).tolist()
    assert tensors["segment_grids"].prod(axis=1).sum() == len(tensors["token_embeddings"])
    pooled_width, token_width = WIDTHS[family.name]
    assert tensors["embeddings"].shape == (len(PHOTOS), pooled_width)
    assert tensors["token_embeddings"].shape[1] == token_width
    tokens = np.concatenate([np.array(image["token_embeddings"]["data"], np.float32) for image in json])
    assert np.array_equal(tensors["token_embeddings"], tokens)

    plain = safetensors.load(binary(family, "x-safetensors", output="both").content)
    assert set(plain) == {"embeddings", "grids", "token_embeddings", "cu_tokens"}


def test_npy_has_one_row_for_each_image_however_many_segments_it_has(family: Family) -> None:
    answer = binary(family, "x-npy", strategy="anyres")
    json = family.server.embed_form(list(PHOTOS.values()), strategy="anyres").json()["data"]
    assert np.array_equal(load_npy(answer.content), np.array([image["embedding"] for image in json], np.float32))
    assert answer.headers["X-Image-Tokens"] == ",".join(str(image["tokens"]) for image in json)


def test_info_describes_the_model_and_its_strategies(family: Family) -> None:
    info = family.server.http.get("/info").json()
    pooled_width, token_width = WIDTHS[family.name]
    assert (info["model"]["dim"], info["model"]["token_dim"]) == (pooled_width, token_width)
    served = ["naflex", "native", "square", "anyres"] if family.name == "naflex" else ["square", "anyres"]
    assert info["strategies"] == served
    assert info["limits"]["max_image_tokens"] == (1024 if family.name == "naflex" else 5 * TILE_TOKENS)
    assert info["limits"]["default_max_tokens"] == TILE_TOKENS


@pytest.mark.parametrize("partial", [False, True])
def test_a_strategy_that_the_model_lacks_is_refused_and_its_own_are_named(family: Family, partial: bool) -> None:
    lacking = set() if family.name == "naflex" else {"naflex", "native"}
    assert {*STRATEGIES} - {*family.server.facts.geometry.strategies} == lacking
    for strategy in lacking:
        decodes = family.server.decoder.decodes
        refused = family.server.embed(PHOTOS["icon"], strategy=strategy, partial=partial)
        assert error_of(refused) == (422, "invalid", "strategy", None)
        assert "it takes square, anyres" in refused.json()["error"]["message"]
        assert family.server.decoder.decodes == decodes


def test_min_pixels_enlarge_an_image_of_native_size(family: Family) -> None:
    answer = family.server.embed(PHOTOS["icon"], strategy="native", min_pixels=64 * 64)
    if family.name != "naflex":
        assert error_of(answer) == (422, "invalid", "strategy", None)
        return
    (image,) = answer.json()["data"]
    assert (image["size"], image["resized"]) == ([20, 31], [64, 80])
    (image,) = family.server.embed(PHOTOS["icon"], strategy="native").json()["data"]
    assert image["resized"] == [16, 32]


def test_openais_route_uses_the_models_default_strategy(family: Family) -> None:
    answer = family.server.http.post("/v1/embeddings", json={"input": uri(PHOTOS["photo"])}).json()
    ours = family.server.embed(PHOTOS["photo"]).json()
    assert answer["data"][0]["embedding"] == ours["data"][0]["embedding"]
    assert answer["usage"]["total_tokens"] == ours["usage"]["tokens"]


def test_the_bound_on_json_token_vectors_counts_their_own_width(family: Family) -> None:
    """2,604 of them, 96 values each, are just within a million bytes. An embedding of CLIP has 40 values."""
    icons = [PHOTOS["icon"]] * 55
    assert len(icons) * 3 * TILE_TOKENS * 96 * 4 > 1_000_000
    refused = family.server.embed_form(icons, strategy="anyres", output="tokens")
    assert error_of(refused) == (422, "invalid", "encoding", None)
    assert family.server.embed_form(icons[:54], strategy="anyres", output="tokens").status_code == 200


def test_a_fixed_model_avoids_no_padding_to_a_cap(family: Family) -> None:
    def avoided() -> float:
        return family.server.metric("padding_avoided_tokens_total", layout="pad_to_cap")

    before = avoided()
    image = image_of(family, PHOTOS["photo"])
    cap = TILE_TOKENS if family.name == "naflex" else image["tokens"]
    assert avoided() - before == cap - image["tokens"]


def test_positions_of_unmerged_tokens_are_answered_on_request(family: Family) -> None:
    icon = PHOTOS["icon"]
    rows, columns = image_of(family, icon)["grid"]
    assert "positions" not in image_of(family, icon, output="tokens")
    placed = image_of(family, icon, output="tokens", positions="mrope")["positions"]
    assert placed["data"] == [[0, row, column] for row in range(rows) for column in range(columns)]
    tiles = image_of(family, icon, strategy="anyres", output="tokens", positions="v2pe:1/256")
    assert tiles["positions"]["data"] == [number / 256 for number in range(tiles["tokens"])]
    refused = family.server.embed(icon, strategy="anyres", output="tokens", positions="mrope")
    assert error_of(refused) == (422, "invalid", "positions", None)


def uri(data: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"
