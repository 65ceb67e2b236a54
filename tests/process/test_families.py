"""A fixed model in an engine process: its vectors, widths and geometry arrive in the HTTP process."""

import base64
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from tests import pictures
from tests.process.server import Server, refused, running
from tests.reference import SMALL, fixed_model

SIDE = 64
PHOTO = pictures.photograph_file("rocket.jpg")
PROCESSOR = CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})


@pytest.fixture(scope="module")
def model() -> Any:
    return fixed_model("clip", SMALL | {"image_size": SIDE, "patch_size": 16})


@pytest.fixture(scope="module")
def folder(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("clip")
    model.save_pretrained(made)
    PROCESSOR.save_pretrained(made)
    return made


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    pinpoints = "64x128,128x64"
    with running("--model", str(folder), "--anyres-pinpoints", pinpoints, "--feature-layer", "-2") as running_server:
        yield running_server


def test_vectors_of_images_and_of_tokens_cross_each_with_its_width(model: Any, server: Server) -> None:
    pixels = PROCESSOR(Image.open(BytesIO(PHOTO)), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        output = model.get_image_features(pixel_values=pixels, output_hidden_states=True)
    answer = server.embed(PHOTO, output="both", normalize=False, encoding="base64").json()
    (image,) = answer["data"]
    assert (answer["dim"], image["token_embeddings"]["shape"]) == (40, [16, 96])
    assert_close(image["embedding"], output.pooler_output[0])
    assert_close(image["token_embeddings"]["data"], output.hidden_states[-2][0, 1:].flatten())


def assert_close(text: str, theirs: Tensor) -> None:
    reference = theirs.numpy()
    ours = np.frombuffer(base64.b64decode(text), "<f4")
    assert np.abs(ours - reference).max() <= 1e-5 * max(1.0, float(np.abs(reference).max()))


def test_the_geometry_crosses_too(server: Server) -> None:
    info = server.http.get("/info").json()
    assert (info["strategies"], info["model"]["token_dim"]) == (["square", "anyres"], 96)
    assert info["limits"]["max_image_tokens"] == 3 * 16
    (image,) = server.embed(PHOTO, strategy="anyres", output="segments").json()["data"]
    assert ([segment["kind"] for segment in image["segments"]], image["tokens"]) == (["thumbnail", "tile", "tile"], 48)
    answer = server.embed(PHOTO, strategy="native")
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, "strategy")


@pytest.mark.parametrize(
    ("engine", "option", "value", "message"),
    [
        ("thread", "--anyres-pinpoints", "64x100", "--anyres-pinpoints): a pinpoint is 64x100; both sides are"),
        ("process", "--anyres-pinpoints", "64x100", "--anyres-pinpoints): a pinpoint is 64x100; both sides are"),
        ("process", "--max-image-tokens", "15", "max_image_tokens (15) is under the 16 tokens"),
    ],
)
def test_what_the_model_cannot_do_is_one_line_and_status_2(
    folder: Path, engine: str, option: str, value: str, message: str
) -> None:
    line = refused("--model", str(folder), "--engine", engine, option, value)
    assert line.startswith("packlight: ")
    assert message in line


@pytest.mark.parametrize("engine", ["thread", "process"])
def test_a_folder_of_another_library_is_one_line_and_status_2(tmp_path: Path, engine: str) -> None:
    (tmp_path / "open_clip_config.json").write_text("{}")
    line = refused("--model", str(tmp_path), "--engine", engine)
    assert line.startswith(f"packlight: {tmp_path} is an OpenCLIP checkpoint: ")
