"""Checkpoints of timm's vision transformers with random weights, as timm writes them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.navit import Navit

SMALL = {"embed_dim": 96, "depth": 2, "num_heads": 3, "mlp_ratio": 2.1}
GAP = {"global_pool": "avg", "reg_tokens": 4, "init_values": 1e-5}
# What a forward depends on, as `NaFlexVit` takes it; the rest is in `SMALL` or set by a test.
BASE: dict[str, Any] = {
    "embed_dim": 768,
    "depth": 12,
    "num_heads": 12,
    "mlp_ratio": 4.0,
    "patch_size": 16,
    "qkv_bias": True,
}
BASE |= {"class_token": False, "reg_tokens": 0, "init_values": None, "act_layer": None, "global_pool": "map"}
BASE |= {"pos_embed": "learned", "pos_embed_grid_size": [16, 16], "pos_embed_ar_preserving": False}
BASE |= {"pos_embed_interp_mode": "bicubic", "pos_embed_antialias": True, "pos_embed_align_corners": False}
BASE |= {"pre_norm": False, "final_norm": True, "fc_norm": None, "pool_include_prefix": False}
BASE |= {"attn_type": "standard", "qkv_fused": True, "swiglu_mlp": False, "swiglu_align_to": 0}
BASE |= {"rope_type": "", "rope_temperature": 10_000.0, "rope_ref_feat_shape": None, "rope_grid_offset": 0.0}
BASE |= {"rope_grid_indexing": "ij", "rope_rotate_half": False, "attn_pool_num_heads": None}
BASE |= {"attn_pool_mlp_ratio": None, "norm_eps": 1e-6}
PICTURES = {"input_size": [3, 384, 384], "interpolation": "bicubic", "mean": [0.5] * 3, "std": [0.5] * 3}


def save_navit(
    folder: Path, architecture: str, registered: Mapping[str, Any], model_args: Mapping[str, Any], *, classes: int = 0
) -> Navit:
    """A folder as timm's `save_for_hf` writes it. registered: what timm gives this architecture over `BASE`."""
    navit = Navit(args := BASE | dict(registered) | dict(model_args), Weights(args))
    classifier = {"head.weight": torch.randn(classes, args["embed_dim"]), "head.bias": torch.randn(classes)}
    write(folder, architecture, model_args, dict(navit.tensors) | (classifier if classes else {}), classes=classes)
    return navit


def write(
    folder: Path, architecture: str, model_args: Mapping[str, Any], tensors: Mapping[str, Tensor], *, classes: int = 0
) -> None:
    config = {"architecture": architecture, "num_classes": classes, "model_args": dict(model_args)}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(dict(tensors), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config | {"pretrained_cfg": PICTURES}))


def classic(args: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same weights as in a model that is not a `NaFlexVit`: a convolution, and a table with the class token's."""
    named = {f"patch_embed.proj.{part}": f"embeds.proj.{part}" for part in ("weight", "bias")}
    named |= {"cls_token": "embeds.cls_token", "reg_token": "embeds.reg_token"}
    found = {ours: tensors[theirs] for ours, theirs in named.items() if theirs in tensors}
    found |= {name: tensor for name, tensor in tensors.items() if not name.startswith("embeds.")}
    patch = args["patch_size"]
    kernel = tensors["embeds.proj.weight"].view(-1, patch, patch, 3)
    found["patch_embed.proj.weight"] = kernel.permute(0, 3, 1, 2).contiguous()
    if "embeds.pos_embed" in tensors:
        table = tensors["embeds.pos_embed"].flatten(1, 2)
        if args["class_token"]:
            # Timm adds the class token's own position to it.
            first = torch.full((1, 1, args["embed_dim"]), 0.25)
            found["cls_token"] = found["cls_token"] - first
            table = torch.cat([first, table], 1)
        found["pos_embed"] = table
    return found


class Weights(dict[str, Tensor]):
    """Random tensors by timm's names, norms, biases and scales too, so that a test sees any that are mixed up."""

    def __init__(self, args: Mapping[str, Any], *, seed: int = 0) -> None:
        super().__init__()
        self.args, self.width = args, args["embed_dim"]
        self._generator = torch.Generator().manual_seed(seed)
        attention, rotary = args["attn_type"], args["rope_type"] != ""
        self.is_eva = attention != "standard" or rotary or args["swiglu_mlp"]
        # EVA's own attention has queries and values with a bias, and keys without.
        self.biases_keys = not self.is_eva or attention == "rope" or (attention == "standard" and rotary)
        self.linear("embeds.proj", self.width, 3 * args["patch_size"] ** 2, bias=not args["pre_norm"])
        for i in range(args["depth"]):
            self._block(f"blocks.{i}.")
        after = args["global_pool"] == "avg" if args["fc_norm"] is None else args["fc_norm"]
        norms = {"fc_norm" if after else "norm": args["final_norm"], "norm_pre": args["pre_norm"]}
        for name in [name for name, present in norms.items() if present]:
            self.norm(name)
        if args["global_pool"] == "map":
            self._pool()
        self |= {name: self.noise(*shape) for name, shape in _embedding_shapes(args).items()}

    def noise(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self._generator)

    def linear(self, name: str, out: int, into: int, *, bias: bool = True) -> None:
        self[f"{name}.weight"] = self.noise(out, into) * into**-0.5
        if bias:
            self[f"{name}.bias"] = 0.1 * self.noise(out)

    def norm(self, name: str) -> None:
        self[f"{name}.weight"], self[f"{name}.bias"] = 1 + 0.1 * self.noise(self.width), 0.1 * self.noise(self.width)

    def _block(self, block: str) -> None:
        d, biased = self.width, self.args["qkv_bias"]
        self.norm(f"{block}norm1")
        self.norm(f"{block}norm2")
        if self.args["qkv_fused"] or not self.is_eva:
            self.linear(f"{block}attn.qkv", 3 * d, d, bias=biased and self.biases_keys)
            if biased and not self.biases_keys:
                self |= {f"{block}attn.{part}_bias": 0.1 * self.noise(d) for part in "qv"}
        else:
            for part in "qkv":
                self.linear(f"{block}attn.{part}_proj", d, d, bias=biased and (part != "k" or self.biases_keys))
        self.linear(f"{block}attn.proj", d, d)
        self._mlp(f"{block}mlp.")
        scale = self.args["init_values"]
        if scale or (self.is_eva and scale is not None):
            names = ("gamma_1", "gamma_2") if self.is_eva else ("ls1.gamma", "ls2.gamma")
            self |= {f"{block}{name}": 0.5 + 0.2 * self.noise(d) for name in names}

    def _mlp(self, mlp: str) -> None:
        d, m = self.width, int(self.width * self.args["mlp_ratio"])
        if align := self.args["swiglu_align_to"]:
            m += -m % align
            self.linear(f"{mlp}fc1_g", m, d)
            self.linear(f"{mlp}fc1_x", m, d)
        else:
            self.linear(f"{mlp}fc1", 2 * m if self.args["swiglu_mlp"] else m, d)
        self.linear(f"{mlp}fc2", d, m)

    def _pool(self) -> None:
        d, ratio = self.width, self.args["attn_pool_mlp_ratio"] or self.args["mlp_ratio"]
        m = int(d * ratio)
        self.norm("attn_pool.norm")
        for name, out, into in (("q", d, d), ("kv", 2 * d, d), ("proj", d, d), ("mlp.fc1", m, d), ("mlp.fc2", d, m)):
            self.linear(f"attn_pool.{name}", out, into)
        self["attn_pool.latent"] = self.noise(1, 1, d)


def _embedding_shapes(args: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    d, (rows, columns) = args["embed_dim"], args["pos_embed_grid_size"]
    shapes: dict[str, tuple[int, ...]] = {}
    if args["class_token"]:
        shapes["embeds.cls_token"] = (1, 1, d)
    if args["reg_tokens"]:
        shapes["embeds.reg_token"] = (1, args["reg_tokens"], d)
    if args["pos_embed"] == "none":
        return shapes
    if args["pos_embed"] == "factorized":
        return shapes | {"embeds.pos_embed_y": (1, rows, d), "embeds.pos_embed_x": (1, columns, d)}
    return shapes | {"embeds.pos_embed": (1, rows, columns, d)}
