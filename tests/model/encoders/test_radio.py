"""C-RADIO gives the numbers of Transformers' `RadioModel`, which packs images or takes them one by one."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.nn import functional as F
from transformers import RadioConfig

from model.checkpoint.load import Checkpoint, load_checkpoint
from model.encoders.radio.config import DEFAULTS
from model.errors import CheckpointError
from model.images.patches import patch_rows
from model.kernels.positions import PositionTable
from model.running.devices import DtypeName
from model.running.runner import Runner
from model.sizing.budget import Budget
from model.sizing.geometry import Geometry
from model.sizing.plan import plan_image
from tests.examples import PART, many
from tests.model.encoders.invariance import DTYPES, assert_same_bits_in_any_pack
from tests.model.encoders.test_parity import assert_equals, assert_within_promise
from tests.radio import PUBLISHED, SMALL, outputs_one_by_one, packed_outputs, processor_of, save_model
from tests.reference import random_pack

MIXED = [(1, 1), (14, 18), (1, 2), (32, 32), (5, 23), (1, 64), (20, 3), (24, 20), (53, 19)]
# At published widths a row costs a hundred times as much: one image is long enough for the largest parts of attention.
OF_PUBLISHED = [(1, 1), (14, 18), (1, 2), (28, 28), (5, 23), (1, 64), (20, 3), (24, 20)]
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("radio")
    save_model(folder, SMALL)
    return folder


@pytest.mark.parametrize(
    "shape",
    [
        pytest.param(SMALL, id="small"),
        pytest.param(SMALL | {"use_swiglu_ffn": True, "qkv_bias": False, "summary_idxs": [0, 2]}, id="gated"),
        pytest.param(SMALL | {"hidden_act": "quick_gelu", "num_registers": 0, "patch_size": 14}, id="quick-gelu"),
    ],
)
def test_float32_equals_both_ways_of_transformers_and_bfloat16_stays_close(
    tmp_path: Path, shape: dict[str, Any]
) -> None:
    assert_radio_equals(tmp_path, shape, MIXED)


@pytest.mark.parametrize("feature_layer", [-2, 0])
def test_tokens_of_a_layer_are_the_hidden_states_of_transformers(saved: Path, feature_layer: int) -> None:
    model = save_model(saved, SMALL)
    batch = random_pack([(3, 7)])
    picture = torch.from_numpy(batch.rows).float().div(255).view(3, 7, 16, 16, 3).permute(4, 0, 2, 1, 3)
    layers: list[torch.Tensor] = []
    hooks = [layer.register_forward_pre_hook(lambda _, x: layers.append(x[0][0])) for layer in model.encoder.layer]
    with torch.no_grad():
        model(picture.reshape(1, 3, 48, 112))
    for hook in hooks:
        hook.remove()
    runner = Runner(load_checkpoint(str(saved)), dtype="float32", feature_layer=feature_layer)
    tokens = runner.run(batch, tokens=True).tokens
    assert tokens is not None
    # Before the second block, and before the first; ten rows before the image's own.
    assert_within_promise(tokens, layers[1 if feature_layer else 0][10:].numpy())


@pytest.mark.parametrize("dtype", ["float32", pytest.param("bfloat16", marks=pytest.mark.slow)])
def test_an_image_has_the_same_bits_alone_and_in_any_pack(tmp_path: Path, dtype: DtypeName) -> None:
    save_model(tmp_path, SMALL | {"use_swiglu_ffn": True})
    images = [random_pack([grid], seed=i) for i, grid in enumerate(MIXED)]
    assert_same_bits_in_any_pack(Runner(load_checkpoint(str(tmp_path)), dtype=dtype), images, packs=32 // PART)


@pytest.mark.slow
@pytest.mark.parametrize("gated", [False, True], ids=["plain", "gated"])
def test_published_widths_equal_transformers_with_the_same_bits_in_any_pack(tmp_path: Path, gated: bool) -> None:
    assert_radio_equals(tmp_path, PUBLISHED | {"use_swiglu_ffn": gated}, OF_PUBLISHED)
    images = [random_pack([grid], seed=i) for i, grid in enumerate(OF_PUBLISHED)]
    for dtype in DTYPES if gated else ():
        assert_same_bits_in_any_pack(Runner(load_checkpoint(str(tmp_path)), dtype=dtype), images, packs=8)


def assert_radio_equals(folder: Path, shape: dict[str, Any], grids: list[tuple[int, int]]) -> None:
    model = save_model(folder, shape)
    batch = random_pack(grids, patch_size=shape.get("patch_size", 16))
    pooled, tokens = packed_outputs(model, batch)
    assert_equals(folder, batch, pooled, tokens, least_cosines=(0.9999, 0.9998))
    for together, alone in zip((pooled, tokens), outputs_one_by_one(model, batch), strict=True):
        assert_within_promise(together, alone)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@many(100)
@given(st.integers(2, 20), st.integers(2, 20), st.integers(1, 40), st.integers(1, 40))
def test_a_table_is_the_crop_of_its_square_to_the_bit(mode: Any, rows: int, columns: int, h: int, w: int) -> None:
    """A grid as high or as wide as the table is among them: PyTorch copies such an axis."""
    table = torch.randn(rows, columns, 8, generator=torch.Generator().manual_seed(rows))
    ours = PositionTable(table, device=torch.device("cpu"), mode=mode, antialias=False, keeps_aspect=True)
    last = table.reshape(1, rows, columns, 8).permute(0, 3, 1, 2)
    for grid in ((h, w), (rows, w), (h, columns)):
        square = F.interpolate(last, size=(max(grid),) * 2, mode=mode, align_corners=False)
        expected = square[0, :, : grid[0], : grid[1]].flatten(1).T
        if grid != (rows, columns):
            assert torch.equal(ours.resized(grid), expected)


def rewrite(folder: Path, change: Any) -> None:
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)


def reconfigure(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_the_names_of_transformers_modules_are_the_same_weights(tmp_path: Path) -> None:
    """Also inside another model, and with a projection for videos."""
    model = save_model(tmp_path / "stored", SMALL | {"video_temporal_patch_size": 2})
    expected = Runner(load_checkpoint(str(tmp_path / "stored")), dtype="float32").run(random_pack(MIXED[:4]))
    for prefix in ("", "module.vision_tower."):
        folder = tmp_path / f"modules-{bool(prefix)}"
        model.config.save_pretrained(folder)
        names = {f"{prefix}{name}": tensor.contiguous() for name, tensor in model.state_dict().items()}
        save_file(names, folder / WEIGHTS)
        found = Runner(load_checkpoint(str(folder)), dtype="float32").run(random_pack(MIXED[:4]))
        assert np.array_equal(found.pooled, expected.pooled)


def test_a_file_without_layer_scales_and_buffers_is_read_as_nvidias_is(tmp_path: Path) -> None:
    """Transformers then takes config.json's values."""
    model = save_model(tmp_path, SMALL | {"layerscale_value": 0.5})
    for layer in model.encoder.layer:
        layer.layer_scale1.lambda1.data.fill_(0.5)
        layer.layer_scale2.lambda1.data.fill_(0.5)
    lacking = ("lambda1", "norm_mean", "norm_std", "summary_idxs")
    rewrite(tmp_path, lambda t: [t.pop(key) for key in [*t] if key.endswith(lacking)])
    batch = random_pack(MIXED[:3])
    found = Runner(load_checkpoint(str(tmp_path)), dtype="float32").run(batch)
    assert_within_promise(found.pooled, packed_outputs(model, batch)[0])


def test_the_mean_in_the_weights_goes_before_that_in_config_json_as_in_transformers(tmp_path: Path) -> None:
    model = save_model(tmp_path, SMALL)
    rounded = torch.tensor([0.5, 0.45, 0.4]).view(3, 1, 1)
    model.input_conditioner.norm_mean, model.input_conditioner.norm_std = rounded, rounded / 2
    rewrite(tmp_path, lambda t: t.update({"radio_model.input_conditioner.norm_mean": rounded}))
    rewrite(tmp_path, lambda t: t.update({"radio_model.input_conditioner.norm_std": rounded / 2}))
    batch = random_pack(MIXED[:3])
    found = Runner(load_checkpoint(str(tmp_path)), dtype="float32").run(batch)
    assert_within_promise(found.pooled, packed_outputs(model, batch)[0])


@pytest.mark.parametrize("options", [{}, {"size": {"height": 96, "width": 96}}], ids=["224", "96"])
@pytest.mark.parametrize("size", [(480, 640), (33, 90)])
def test_a_square_has_the_patch_rows_of_the_processor_to_the_bit(
    options: dict[str, Any], size: tuple[int, int]
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    theirs = processor_of(do_rescale=False, **options)(Image.fromarray(pixels), return_tensors="np")["pixel_values"][0]
    side = theirs.shape[1]
    geometry = Geometry.for_naflex(16, (side // 16) ** 2, resample="bicubic")
    budget = Budget.of_tokens((side // 16) ** 2, 16)
    plan = plan_image(size, geometry=geometry, budget=budget, strategy="square")
    cut = theirs.reshape(3, side // 16, 16, side // 16, 16).transpose(1, 3, 2, 4, 0).reshape(-1, 768)
    assert np.array_equal(patch_rows(Image.fromarray(pixels), plan, geometry), cut)


def preprocessed(folder: Path, **content: Any) -> Any:
    (folder / "preprocessor_config.json").write_text(json.dumps(content))
    return load_checkpoint(str(folder)).preprocessing


def test_a_picture_without_a_budget_gets_the_tokens_of_the_processors_square(tmp_path: Path) -> None:
    save_model(tmp_path, SMALL)
    unsaid: Checkpoint = load_checkpoint(str(tmp_path))
    assert unsaid.preprocessing.default_max_tokens == 196
    assert unsaid.preprocessing.geometry == Geometry.for_naflex(16, 196, resample="bicubic")
    processor_of(size={"height": 512, "width": 512}).save_pretrained(tmp_path)
    assert load_checkpoint(str(tmp_path)).preprocessing.default_max_tokens == 1024
    # As in files beside NVIDIA's own code, whose callers resize.
    found = preprocessed(
        tmp_path, image_processor_type="CLIPImageProcessor", do_resize=False, do_center_crop=True, do_normalize=False,
        size={"shortest_edge": 432}, crop_size={"height": 432, "width": 432},
    )  # fmt: skip
    assert found.default_max_tokens == 729
    assert found.mean == tuple(DEFAULTS["norm_mean"])


@pytest.mark.parametrize(
    "content",
    [{"do_normalize": True}, {"resample": 2}, {"size": {"height": 8, "width": 8}}, {"rescale_factor": 1}]
    + [{"image_processor_type": "SiglipImageProcessor"}],
)
def test_pictures_that_would_be_prepared_in_another_manner_are_refused(saved: Path, content: dict[str, Any]) -> None:
    try:
        with pytest.raises(CheckpointError, match=rf"preprocessor_config\.json: {next(iter(content))} is"):
            preprocessed(saved, **content)
    finally:
        (saved / "preprocessor_config.json").unlink()


def test_what_a_config_leaves_out_is_as_in_transformers() -> None:
    theirs = RadioConfig().to_dict()
    assert {key: theirs[key] for key in DEFAULTS} == DEFAULTS


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_act": "relu"}, "hidden_act is 'relu'; it is one of"),
        ({"num_channels": 4}, "num_channels is 4; only 3"),
        ({"num_attention_heads": 5}, "hidden_size is 96; it is not a multiple of num_attention_heads, 5"),
        ({"head_dim": 64}, "head_dim is 64; only 32"),
        ({"summary_idxs": []}, r"summary_idxs is \[\]; it names one class token at least"),
        ({"summary_idxs": [0, 3]}, r"summary_idxs is \[0, 3\]; it is a list of numbers from 0 to 2"),
        ({"summary_idxs": [0, 2]}, r"summary_idxs is \[0, 2\] in config.json, and \[0, 1\] in the weights"),
        ({"summary_idxs": [0]}, r"summary_idxs has shape \(2,\); config.json asks for \(1,\)"),
        ({"num_registers": 6}, r"cls_token\.token has shape \(10, 96\); config.json asks for \(9, 96\)"),
        ({"max_img_size": 8}, "max_img_size is 8; it holds no patch"),
        ({"norm_std": [0.5, 0, 0.5]}, "norm_std is .*; each is above 0"),
        ({"use_swiglu_ffn": True}, r"lack model\.blocks\.0\.mlp\.down_proj"),
        ({"qkv_bias": False}, r"hold radio_model\.model\.blocks\.0\.attn\.qkv\.bias, .*does not account for"),
    ],
)
def test_a_config_that_is_not_supported_is_refused_by_key(
    tmp_path: Path, saved: Path, changes: dict[str, Any], message: str
) -> None:
    for file in ("config.json", WEIGHTS):
        (tmp_path / file).write_bytes((saved / file).read_bytes())
    reconfigure(tmp_path, **changes)
    with pytest.raises(CheckpointError, match=message):
        Runner(load_checkpoint(str(tmp_path)))
