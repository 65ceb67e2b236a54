"""NaViT gives timm's numbers: those of a plain reference for every combination, and of Transformers for SigLIP 2."""

import json
import math
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file

from model.checkpoint.load import load_checkpoint
from model.encoders.parts.fields import Fields
from model.encoders.timm import config as timm_config
from model.encoders.timm.architectures import EVA, NAFLEX, as_naflex
from model.errors import CheckpointError
from model.images.patches import patch_rows
from model.pack import pack
from model.running.devices import DtypeName
from model.running.runner import Runner
from model.sizing.budget import Budget
from model.sizing.plan import naflex_grid, plan_image
from tests import pictures
from tests.examples import PART
from tests.model.encoders.test_parity import assert_equals, assert_within_promise
from tests.navit import Navit
from tests.navit_files import BASE, GAP, PICTURES, SMALL, Weights, classic, save_navit, write
from tests.reference import SMALL as SMALL_TOWER
from tests.reference import random_pack, random_tower, reference_outputs

MIXED = [(1, 1), (14, 18), (1, 2), (16, 16), (5, 23), (1, 64), (64, 1), (3, 1), (40, 30), (8, 8)]
FACTORISED = {"pos_embed": "factorized"}
TABLES = [{"pos_embed_interp_mode": mode} for mode in ("bicubic", "bilinear")] + [FACTORISED]
COMBINATIONS = list(product(TABLES, (False, True), ("avg", "map")))
THREADS = (1, 2, 3, 7)
SO150M2 = {"embed_dim": 832, "depth": 1, "num_heads": 13, "mlp_ratio": 34 / 13}


@pytest.fixture(autouse=True)
def _restore_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def assert_parity(folder: Path, reference: Navit, grids: list[tuple[int, int]]) -> None:
    """Compares vectors: within the promised tolerance in float32, roughly in bfloat16."""
    batch = random_pack(grids, patch_size=reference.args["patch_size"])
    pooled, tokens = reference.outputs(batch)
    assert_equals(folder, batch, pooled, tokens, least_cosines=(0.9998, 0.9998))


@pytest.mark.parametrize(("table", "keeps_aspect", "pooling"), COMBINATIONS)
def test_every_combination_of_positions_and_pooling_equals_the_reference(
    tmp_path: Path, table: dict[str, Any], keeps_aspect: bool, pooling: str
) -> None:
    args = SMALL | table | {"pos_embed_ar_preserving": keeps_aspect, "global_pool": pooling, "reg_tokens": 2}
    reference = save_navit(tmp_path, "naflexvit_base_patch16_map", {"init_values": 1e-5}, args)
    assert_parity(tmp_path, reference, MIXED)


ARCHITECTURES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("naflexvit_base_patch16_gap", GAP, {}),
    ("naflexvit_base_patch16_par_gap", GAP | {"pos_embed_ar_preserving": True}, {}),
    ("naflexvit_base_patch16_parfac_gap", GAP | FACTORISED | {"pos_embed_ar_preserving": True}, {}),
    ("naflexvit_base_patch16_map", {"init_values": 1e-5, "reg_tokens": 1}, {}),
    ("naflexvit_so150m2_patch16_reg1_gap", GAP | {"reg_tokens": 1, "qkv_bias": False}, SO150M2),
    ("naflexvit_so150m2_patch16_reg1_map", {"reg_tokens": 1, "qkv_bias": False, "init_values": 1e-5}, SO150M2),
    ("naflexvit_base_patch16_siglip", {"act_layer": "gelu_tanh", "pos_embed_interp_mode": "bilinear"}, {}),
    (
        "naflexvit_so400m_patch16_siglip",
        {"act_layer": "gelu_tanh", "pos_embed_interp_mode": "bilinear"},
        {"embed_dim": 1152, "depth": 1, "num_heads": 16, "mlp_ratio": 3.7362},
    ),
]
# Wide ones, and two whose options others have.
HEAVY = {
    "naflexvit_base_patch16_par_gap",
    "naflexvit_base_patch16_siglip",
    "naflexvit_so150m2_patch16_reg1_gap",
    "naflexvit_so150m2_patch16_reg1_map",
    "naflexvit_so400m_patch16_siglip",
}


@pytest.mark.parametrize(
    ("architecture", "registered", "args"),
    [pytest.param(*case, marks=[pytest.mark.slow] * (case[0] in HEAVY)) for case in ARCHITECTURES],
)
def test_every_architecture_equals_the_reference(
    tmp_path: Path, architecture: str, registered: dict[str, Any], args: dict[str, Any]
) -> None:
    """One block at the architecture's own width; the classifier is ignored."""
    reference = save_navit(tmp_path, architecture, registered, {"depth": 1} | args, classes=10)
    assert_parity(tmp_path, reference, [(1, 1), (14, 18), (5, 23), (24, 24)])


def test_every_architecture_of_the_first_kind_is_tried_above() -> None:
    radio = {name for name in NAFLEX if "_radio_" in name}
    assert {case[0] for case in ARCHITECTURES} | radio == {*NAFLEX}


def small(registered: dict[str, Any]) -> dict[str, Any]:
    """One block with few heads of 24 values."""
    return {"depth": 1, "num_heads": 4, "embed_dim": 96} | ({"mlp_ratio": 2.1} if "mlp_ratio" in registered else {})


@pytest.mark.parametrize("architecture", [name for name in NAFLEX if "_radio_" in name])
def test_c_radio_of_timm_equals_the_reference(tmp_path: Path, architecture: str) -> None:
    """A class token alone is the vector; there is no last norm, and the table is resized without antialiasing."""
    args = small(NAFLEX[architecture]) | {"pos_embed_grid_size": [9, 7]}
    reference = save_navit(tmp_path, architecture, NAFLEX[architecture], args)
    assert_parity(tmp_path, reference, [(1, 1), (14, 18), (5, 23), (9, 30), (9, 7)])


EVA_ONES = ["vit_pe_core_base_patch16_224", "vit_pe_lang_large_patch14_448", "vit_small_plus_patch16_dinov3"]
EVA_ONES += ["vit_base_patch16_dinov3_qkvb", "vit_base_patch16_rope_224", "vit_pe_core_gigantic_patch14_448"]


@pytest.mark.parametrize("is_classic", [True, False], ids=["classic", "naflex"])
@pytest.mark.parametrize("architecture", EVA_ONES)
def test_evas_models_equal_the_reference_under_either_names(
    tmp_path: Path, architecture: str, is_classic: bool
) -> None:
    """Attention pools the class token too, unless the file says `use_naflex`: timm's `NaFlexVit` leaves it out."""
    given = small(EVA[architecture]) | {"img_size": 96} | ({} if is_classic else {"use_naflex": True})
    args = BASE | as_naflex(EVA[architecture] | given)
    args["pos_embed_grid_size"] = [96 // args["patch_size"]] * 2
    tensors = Weights(args)
    write(tmp_path, architecture, given, classic(args, tensors) if is_classic else tensors)
    assert_parity(tmp_path, Navit(args, tensors), [(1, 1), (6, 6), (14, 18), (5, 23)])


@pytest.mark.parametrize(
    "args",
    [
        {"rope_type": "axial", "rope_rotate_half": True, "rope_grid_offset": 0.5, "global_pool": "avg"},
        {"rope_type": "axial", "rope_ref_feat_shape": [7, 9], "reg_tokens": 2, "init_values": 0.0},
        {"rope_type": "dinov3", "rope_grid_indexing": "xy", "rope_temperature": 100.0, "attn_pool_num_heads": 2},
        {"attn_type": "eva", "qkv_fused": False, "swiglu_mlp": True, "class_token": True, "global_pool": "token"},
        {"attn_type": "eva", "swiglu_mlp": True, "swiglu_align_to": 32, "qkv_bias": False, "fc_norm": True},
        {"attn_type": "rope", "qkv_fused": False, "pos_embed": "none", "pre_norm": True, "class_token": True},
        {"swiglu_mlp": True, "global_pool": "avg", "fc_norm": False, "class_token": True, "pool_include_prefix": True},
        {"final_norm": False, "attn_pool_mlp_ratio": 1.5, "reg_tokens": 3, "pool_include_prefix": True},
        {"class_token": True, "global_pool": "token", "fc_norm": True, "pos_embed_antialias": False},
        {"pos_embed_align_corners": True, "pos_embed_ar_preserving": True, "pos_embed_interp_mode": "bilinear"},
    ],
)
def test_what_a_naflexvit_can_be_made_of_equals_the_reference(tmp_path: Path, args: dict[str, Any]) -> None:
    reference = save_navit(
        tmp_path, "naflexvit_base_patch16_map", NAFLEX["naflexvit_base_patch16_map"], small({}) | args
    )
    assert_parity(tmp_path, reference, [(1, 1), (5, 23), (16, 16), (12, 8)])


@pytest.mark.parametrize(
    ("architecture", "given", "meant"),
    [
        ("vit_small_patch16_dinov3", {"use_rot_pos_emb": False}, {"rope_type": ""}),
        ("vit_base_patch16_rope_224", {"use_rot_pos_emb": False, "rope_type": "axial"}, {"rope_type": ""}),
        ("vit_small_patch16_dinov3", {"use_rot_pos_emb": False, "use_naflex": True}, {"rope_type": "dinov3"}),
        ("vit_pe_core_base_patch16_224", {"rope_type": "none", "use_naflex": True}, {"rope_type": "axial"}),
        ("vit_pe_core_base_patch16_224", {"fc_norm": True, "use_naflex": True}, {"fc_norm": True}),
        ("vit_pe_core_base_patch16_224", {"final_norm": False, "use_naflex": True}, {"final_norm": False}),
        ("vit_pe_core_base_patch16_224", {"use_naflex": True} | FACTORISED, FACTORISED),
        ("vit_pe_core_base_patch16_224", {"pos_embed_grid_size": [3, 4], "use_naflex": True}, {}),
    ],
)
def test_switches_of_eva_and_arguments_over_them_are_read_as_timm_reads_them(
    tmp_path: Path, architecture: str, given: dict[str, Any], meant: dict[str, Any]
) -> None:
    """`Eva` has no rotary positions without its switch, whatever their type; `NaFlexVit`'s own arguments win."""
    args = BASE | as_naflex(EVA[architecture] | small({}) | {"use_naflex": "use_naflex" in given})
    args |= meant | {"pos_embed_grid_size": given.get("pos_embed_grid_size", [6, 6])}
    tensors = Weights(args)
    stored = tensors if "use_naflex" in given else classic(args, tensors)
    write(tmp_path, architecture, small({}) | {"img_size": 96} | given, stored)
    assert_parity(tmp_path, Navit(args, tensors), [(1, 1), (6, 6), (5, 23)])


def test_a_rotary_model_gives_an_image_the_same_bits_alone_and_in_any_pack(tmp_path: Path) -> None:
    architecture = "vit_pe_core_base_patch16_224"
    given = small({}) | {"img_size": 96, "depth": 2}
    args = BASE | as_naflex(EVA[architecture] | given) | {"pos_embed_grid_size": [6, 6]}
    write(tmp_path, architecture, given, classic(args, Weights(args)))
    assert_invariance(Runner(load_checkpoint(str(tmp_path)), dtype="float32"))


@pytest.mark.parametrize(
    ("architecture", "args", "message"),
    [
        ("vit_pe_core_base_patch16_224", {"rope_type": "mixed"}, "rope_type is 'mixed'; it is one of , none, axial"),
        ("vit_pe_core_base_patch16_224", {"qk_norm": True}, "qk_norm is True; only False"),
        ("vit_pe_core_base_patch16_224", {"scale_mlp": True}, "scale_mlp_norm is True; only False"),
        ("vit_pe_core_base_patch16_224", {"attn_pool_num_heads": 7}, "attn_pool_num_heads is 7; it does not divide"),
        ("vit_pe_core_base_patch16_224", {"num_kv_heads": 2}, "num_kv_heads is 2; this argument"),
        ("vit_pe_core_base_patch16_224", {"img_size": 8}, "img_size is 8; it holds no patch"),
        ("vit_pe_core_base_patch16_224", {"ref_feat_shape": 14}, "rope_ref_feat_shape is 14; it is a list of two"),
        ("eva02_base_patch14_224", {}, "model_type is None; types that are read are"),
    ],
)
def test_what_of_evas_is_not_supported_is_refused_by_name(
    tmp_path: Path, architecture: str, args: dict[str, Any], message: str
) -> None:
    write(tmp_path, architecture, args, Weights(BASE | small({})))
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(str(tmp_path))


@pytest.mark.parametrize(
    "args",
    [
        {"class_token": True, "reg_tokens": 3},
        {"class_token": True, "reg_tokens": 0, "global_pool": "avg"},
        {"pos_embed_grid_size": [8, 12], "pos_embed_ar_preserving": True},
        {"pos_embed_grid_size": [8, 12], "global_pool": "avg"} | FACTORISED,
        {"patch_size": 14, "init_values": 0.0, "mlp_ratio": 4},
        {"depth": 6, "global_pool": "avg", "act_layer": "gelu_tanh"},
    ],
)
def test_arguments_in_config_json_are_over_those_of_the_architecture(tmp_path: Path, args: dict[str, Any]) -> None:
    reference = save_navit(tmp_path, "naflexvit_base_patch16_map", {"init_values": 1e-5, "reg_tokens": 1}, SMALL | args)
    # In one case the second of these is the table's own grid, which is not resized.
    assert_parity(tmp_path, reference, [(5, 23), (8, 12), (12, 8), (1, 1)])


def test_siglip_2_equals_transformers_under_the_names_of_timm(tmp_path: Path) -> None:
    tower = random_tower(SMALL_TOWER)
    args = {"embed_dim": 96, "depth": 2, "num_heads": 3, "mlp_ratio": 200.5 / 96}
    save_navit(tmp_path, "naflexvit_base_patch16_siglip", {"act_layer": "gelu_tanh"}, args)
    save_file(timm_tensors(tower.state_dict()), tmp_path / "model.safetensors")
    batch = random_pack(MIXED)
    pooled, tokens = reference_outputs(tower, batch)
    output = Runner(load_checkpoint(str(tmp_path)), dtype="float32").run(batch, tokens=True)
    assert output.tokens is not None
    assert_within_promise(output.pooled, pooled)
    assert_within_promise(output.tokens, tokens)


def timm_tensors(theirs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights of SigLIP 2 as timm stores them."""
    parts = {"embeddings.patch_embedding": "embeds.proj", "post_layernorm": "norm", "head.layernorm": "attn_pool.norm"}
    parts |= {"head.mlp.fc1": "attn_pool.mlp.fc1", "head.mlp.fc2": "attn_pool.mlp.fc2"}
    parts |= {"head.attention.out_proj": "attn_pool.proj"}
    for i in range(2):
        layer, block = f"encoder.layers.{i}", f"blocks.{i}"
        parts |= {f"{layer}.self_attn.out_proj": f"{block}.attn.proj", f"{layer}.mlp.fc1": f"{block}.mlp.fc1"}
        parts |= {f"{layer}.mlp.fc2": f"{block}.mlp.fc2"}
        parts |= {f"{layer}.layer_norm{part}": f"{block}.norm{part}" for part in (1, 2)}
    tensors = {"embeds.pos_embed": theirs["embeddings.position_embedding.weight"].view(1, 16, 16, -1)}
    tensors["attn_pool.latent"] = theirs["head.probe"]
    for kind in ("weight", "bias"):
        tensors |= {f"{ours}.{kind}": theirs[f"{name}.{kind}"] for name, ours in parts.items()}
        stacked = theirs[f"head.attention.in_proj_{kind}"]
        tensors |= {f"attn_pool.q.{kind}": stacked[:96], f"attn_pool.kv.{kind}": stacked[96:]}
        for i in range(2):
            qkv = [theirs[f"encoder.layers.{i}.self_attn.{x}_proj.{kind}"] for x in "qkv"]
            tensors[f"blocks.{i}.attn.qkv.{kind}"] = torch.cat(qkv)
    return {name: tensor.clone() for name, tensor in tensors.items()}


@pytest.mark.parametrize("feature_layer", [-2, -1, 0, 1])
def test_tokens_of_a_layer_are_what_its_block_gives(tmp_path: Path, feature_layer: int) -> None:
    reference = save_navit(tmp_path, "naflexvit_base_patch16_gap", GAP, SMALL)
    batch = random_pack([(5, 7), (2, 3)])
    pooled, tokens = reference.outputs(batch, feature_layer=feature_layer)
    output = Runner(load_checkpoint(str(tmp_path)), dtype="float32", feature_layer=feature_layer).run(
        batch, tokens=True
    )
    assert output.tokens is not None
    assert_within_promise(output.tokens, tokens)
    assert_within_promise(output.pooled, pooled)


@pytest.mark.parametrize("dtype", ["float32", pytest.param("bfloat16", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "architecture",
    ["naflexvit_base_patch16_parfac_gap", pytest.param("naflexvit_base_patch16_map", marks=pytest.mark.slow)],
)
def test_an_image_has_the_same_bits_alone_and_in_any_pack(tmp_path: Path, architecture: str, dtype: DtypeName) -> None:
    """At half the width, with heads of 64: products of its own width are tried in test_pack_invariance."""
    save_navit(tmp_path, architecture, NAFLEX[architecture], {"depth": 1, "embed_dim": 384, "num_heads": 6})
    assert_invariance(Runner(load_checkpoint(str(tmp_path)), dtype=dtype))


def assert_invariance(runner: Runner) -> None:
    grids = [(1, 1), (1, 2), (3, 1), (2, 8), (1, 17), (7, 9), (8, 16), (14, 18), (18, 32)]
    images = [random_pack([grid], seed=i) for i, grid in enumerate(grids)]
    torch.set_num_threads(THREADS[1])
    alone = [runner.run(image, tokens=True) for image in images]
    random = np.random.default_rng(1)
    # In quick mode too each image is in a pack, and each number of threads is tried.
    for number in range(0, 4 * len(images), PART):
        torch.set_num_threads(THREADS[number // len(images)])
        chosen = random.permutation([number % len(images), *random.integers(0, len(images), random.integers(0, 5))])
        together = runner.run(pack([images[i].rows for i in chosen], [grids[i] for i in chosen]), tokens=True)
        assert together.tokens is not None
        assert np.array_equal(together.pooled, np.concatenate([alone[i].pooled for i in chosen]))
        expected = np.concatenate([tokens for i in chosen if (tokens := alone[i].tokens) is not None])
        assert np.array_equal(together.tokens, expected)


@pytest.mark.parametrize("width", [96, 200, 768, 1152])
def test_the_mean_of_a_segment_has_the_same_bits_wherever_it_lies_at_any_number_of_threads(width: int) -> None:
    """Pooling by mean relies on this; the tensor is large enough for PyTorch to use several threads."""
    generator = torch.Generator().manual_seed(0)
    for length in (1, 2, 3, 5, 17, 64, 99, 256, 577, 1024, 4096):
        rows = torch.randn(length, width, generator=generator)
        torch.set_num_threads(THREADS[1])
        alone = rows.clone().mean(0)
        for threads in THREADS:
            torch.set_num_threads(threads)
            for before in (1, 3, 16):
                held = torch.cat([torch.randn(before, width), rows, torch.randn(7, width)])
                assert torch.equal(held[before : before + length].mean(0), alone), (length, threads)


@given(st.integers(1, 5000), st.integers(1, 5000), st.sampled_from([1, 64, 128, 256, 576, 784, 1024]))
def test_sizes_are_those_of_timms_search(height: int, width: int, max_tokens: int) -> None:
    """timm's `get_image_size_for_seq` with the arguments of its evaluation: whole patches, any aspect ratio."""
    low, high = 1e-6, 100.0
    while high - low >= 1e-5:
        middle = (low + high) / 2
        if math.prod(side // 16 for side in timm_size(height, width, middle)) <= max_tokens:
            low = middle
        else:
            high = middle
    grid = naflex_grid(height, width, 16, max_tokens)
    assert (16 * grid[0], 16 * grid[1]) == timm_size(height, width, low)


def timm_size(height: int, width: int, ratio: float) -> tuple[int, int]:
    return tuple(max(int(16 * math.ceil(side * ratio / 16)), 16) for side in (height, width))  # type: ignore[return-value]


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [(480, 640), (33, 90), (384, 384)])
def test_patch_rows_are_those_of_pillows_resize_by_the_filter_that_config_json_says(
    tmp_path: Path, interpolation: str, size: tuple[int, int]
) -> None:
    save_navit(tmp_path, "naflexvit_base_patch16_gap", GAP, SMALL)
    rewrite(tmp_path, pretrained_cfg=PICTURES | {"interpolation": interpolation})
    preprocessing = load_checkpoint(str(tmp_path)).preprocessing
    geometry, cap = preprocessing.geometry, preprocessing.default_max_tokens
    assert (cap, geometry.default_strategy) == (576, "naflex")
    image = pictures.picture(*size)
    plan = plan_image(size, geometry=geometry, budget=Budget.of_tokens(cap, 16), strategy="naflex")
    resized = image.resize(plan.resized[::-1], getattr(Image.Resampling, interpolation.upper()))
    cut = torch.from_numpy(np.array(resized)).unfold(0, 16, 16).unfold(1, 16, 16)  # [h, w, C, P, P]
    expected = cut.permute(0, 1, 3, 4, 2).flatten(0, 1).flatten(1)
    assert np.array_equal(patch_rows(image, plan, geometry), expected.numpy())


def rewrite(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_an_old_config_says_everything_beside_the_architecture(tmp_path: Path) -> None:
    save_navit(tmp_path, "naflexvit_base_patch16_map", {"init_values": 1e-5, "reg_tokens": 1}, {"depth": 1})
    pictures_cfg = PICTURES | {"mean": [0.1, 0.2, 0.3], "interpolation": "bilinear"}
    rewrite(tmp_path, pretrained_cfg=None, **pictures_cfg)
    preprocessing = load_checkpoint_of_depth(tmp_path, 1).preprocessing
    assert (preprocessing.mean, preprocessing.geometry.resample) == ((0.1, 0.2, 0.3), "bilinear")


def load_checkpoint_of_depth(folder: Path, depth: int) -> Any:
    rewrite(folder, model_args={"depth": depth, "qk_norm": False, "drop_path_rate": 0.1, "img_size": None})
    return load_checkpoint(str(folder))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"global_pool": "max"}, "global_pool is 'max'; it is one of avg, map, token"),
        ({"global_pool": ["avg"]}, "global_pool is"),
        ({"pos_embed": "rope"}, "pos_embed is 'rope'; it is one of learned, factorized, none"),
        ({"pos_embed_interp_mode": "nearest"}, "pos_embed_interp_mode is 'nearest'; it is one of bilinear, bicubic"),
        ({"pos_embed_antialias": 0}, "pos_embed_antialias is 0; it is true or false"),
        ({"pos_embed_use_grid_sample": True}, "pos_embed_use_grid_sample is True"),
        ({"pos_embed_grid_size": 16}, "pos_embed_grid_size is 16; it is a list of two positive whole numbers"),
        ({"rope_type": "mrope"}, "rope_type is 'mrope'; it is one of , none, axial, dinov3"),
        ({"qk_norm": True}, "qk_norm is True; only False"),
        ({"fc_norm": True}, "lack fc_norm"),
        ({"norm_layer": "rmsnorm"}, "norm_layer is 'rmsnorm'; this argument of the model is not supported"),
        ({"act_layer": "silu"}, "act_layer is 'silu'; it is one of None, gelu, gelu_tanh"),
        ({"num_heads": 7}, "embed_dim is 96; it is not a multiple of num_heads, 7"),
        ({"patch_size": [16, 16]}, r"patch_size is \[16, 16\]; it is a positive whole number"),
        ({"mlp_ratio": "4"}, "mlp_ratio is '4'; it is a positive number"),
        ({"reg_tokens": -1}, "reg_tokens is -1; it is a positive whole number"),
        ({"reg_tokens": 2}, r"reg_token has shape \(1, 1, 96\); config.json asks for \(1, 2, 96\)"),
        ({"class_token": True}, r"lack embeds\.cls_token"),
        ({"init_values": 0.0}, r"hold blocks\.0\.ls1\.gamma.* which config.json does not account for"),
    ],
)
def test_an_argument_that_is_not_supported_is_refused_by_name(
    tmp_path: Path, args: dict[str, Any], message: str
) -> None:
    save_navit(tmp_path, "naflexvit_base_patch16_map", {"init_values": 1e-5, "reg_tokens": 1}, SMALL)
    rewrite(tmp_path, model_args=SMALL | args)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(str(tmp_path))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"architecture": "naflexvit_base_patch16_radio_v5"},
            "architecture is .*radio_v5'; timm's architectures",
        ),
        ({"architecture": "vit_base_patch16_224"}, "model_type is None; types that are read are .*timm's naflexvit_"),
        ({"pretrained_cfg": PICTURES | {"interpolation": "random"}}, "interpolation is 'random'; it is one of"),
        ({"pretrained_cfg": PICTURES | {"std": [0.5, 0, 0.5]}}, "std is .*; each is above 0"),
        ({"model_args": 3}, "model_args is not an object"),
    ],
)
def test_a_config_that_is_not_supported_is_refused_by_key(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    save_navit(tmp_path, "naflexvit_base_patch16_map", {"init_values": 1e-5, "reg_tokens": 1}, SMALL)
    rewrite(tmp_path, **changes)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(str(tmp_path))


def test_what_a_model_is_when_config_json_gives_no_arguments_is_what_timm_registers(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "naflexvit_so400m_patch16_siglip"}))
    config = timm_config.read_config(Fields.read(tmp_path / "config.json"), ())
    assert (config.width, config.depth, config.heads, config.mlp_width) == (1152, 27, 16, 4304)
    assert (config.activation, config.pooling, config.table_mode) == ("gelu_tanh", "map", "bilinear")
    assert BASE["pos_embed_grid_size"] == list(config.table_grid)
