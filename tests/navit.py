"""Checkpoints of NaViT as timm writes them, with random weights, and what they compute: dense, one image at a time.

timm cannot be imported here, as it needs torchvision; this is written from what its naflexvit.py (1.0.31) does.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from model.pack import PackedBatch
from tests.reference import normalised

SMALL = {"embed_dim": 96, "depth": 2, "num_heads": 3, "mlp_ratio": 2.1}
GAP = {"global_pool": "avg", "reg_tokens": 4, "init_values": 1e-5}
# The arguments of an architecture that a forward depends on; the rest is in `SMALL` or set by a test.
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
BASE |= {"pos_embed_interp_mode": "bicubic"}
PICTURES = {"input_size": [3, 384, 384], "interpolation": "bicubic", "mean": [0.5] * 3, "std": [0.5] * 3}


@dataclass(frozen=True)
class Navit:
    """A model in plain torch. args: all of `BASE`. tensors: by timm's names."""

    args: Mapping[str, Any]
    tensors: Mapping[str, Tensor]

    @torch.no_grad()
    def outputs(
        self, batch: PackedBatch, *, feature_layer: int | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Pooled `[S, D]` and tokens `[T, D]`; tokens after a layer if one is named, 0 for the input of the first."""
        pooled, tokens = [], []
        for (start, end), grid in zip(pairwise(batch.cu_seqlens.tolist()), batch.grids, strict=True):
            vector, image = self._image(normalised(batch.rows[start:end]), grid, feature_layer)
            pooled.append(vector.numpy())
            tokens.append(image.numpy())
        return np.stack(pooled), np.concatenate(tokens)

    def _image(self, patches: Tensor, grid: tuple[int, int], feature_layer: int | None) -> tuple[Tensor, Tensor]:
        x = self._linear("embeds.proj", patches) + self._positions(grid)
        prefix = [self.tensors[name][0] for name in ("embeds.cls_token", "embeds.reg_token") if name in self.tensors]
        x = torch.cat([*prefix, x])
        before = sum(len(rows) for rows in prefix)
        layers = [x]
        for i in range(self.args["depth"]):
            x = self._block(f"blocks.{i}.", x)
            layers.append(x)
        tokens = x[before:]
        if self.args["global_pool"] == "avg":
            pooled = self._norm("fc_norm", tokens.mean(0))
        else:
            tokens = self._norm("norm", tokens)
            pooled = self._map_pool(tokens)
        return pooled, tokens if feature_layer is None else layers[feature_layer][before:]

    def _positions(self, grid: tuple[int, int]) -> Tensor:
        sides = (max(grid),) * 2 if self.args["pos_embed_ar_preserving"] else grid
        if self.args["pos_embed"] == "factorized":
            axes = [
                _stretched(self.tensors[f"embeds.pos_embed_{axis}"][0], side)[:cut]
                for axis, side, cut in zip("yx", sides, grid, strict=True)
            ]
            return (axes[0][:, None] + axes[1][None]).flatten(0, 1)
        table = self.tensors["embeds.pos_embed"]
        if grid == table.shape[1:3]:
            return table.flatten(0, 2)
        mode = self.args["pos_embed_interp_mode"]
        whole = F.interpolate(table.permute(0, 3, 1, 2), size=sides, mode=mode, antialias=True)
        return whole[0, :, : grid[0], : grid[1]].flatten(1).T

    def _block(self, name: str, x: Tensor) -> Tensor:
        q, k, v = self._linear(f"{name}attn.qkv", self._norm(f"{name}norm1", x)).chunk(3, -1)
        x = x + self._scale(f"{name}ls1", self._linear(f"{name}attn.proj", self._attend(q, k, v)))
        return x + self._scale(f"{name}ls2", self._mlp(f"{name}mlp", self._norm(f"{name}norm2", x)))

    def _map_pool(self, tokens: Tensor) -> Tensor:
        q = self._linear("attn_pool.q", self.tensors["attn_pool.latent"][0])
        k, v = self._linear("attn_pool.kv", tokens).chunk(2, -1)
        x = self._linear("attn_pool.proj", self._attend(q, k, v))
        return (x + self._mlp("attn_pool.mlp", self._norm("attn_pool.norm", x)))[0]

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        heads: int = self.args["num_heads"]
        q, k, v = (x.view(len(x), heads, -1).transpose(0, 1) for x in (q, k, v))  # [H, T, d]
        scores = q @ k.transpose(1, 2) * q.shape[-1] ** -0.5
        attended: Tensor = scores.softmax(-1) @ v
        return attended.transpose(0, 1).flatten(1)

    def _mlp(self, name: str, x: Tensor) -> Tensor:
        approximate = "tanh" if self.args["act_layer"] == "gelu_tanh" else "none"
        return self._linear(f"{name}.fc2", F.gelu(self._linear(f"{name}.fc1", x), approximate=approximate))

    def _linear(self, name: str, x: Tensor) -> Tensor:
        return F.linear(x, self.tensors[f"{name}.weight"], self.tensors.get(f"{name}.bias"))

    def _norm(self, name: str, x: Tensor) -> Tensor:
        weight, bias = self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"]
        return F.layer_norm(x, weight.shape, weight, bias, 1e-6)

    def _scale(self, name: str, x: Tensor) -> Tensor:
        return x * self.tensors[f"{name}.gamma"] if f"{name}.gamma" in self.tensors else x


def _stretched(table: Tensor, side: int) -> Tensor:
    """A table `[n, D]` read at the centres of `side` cells: linear between its own centres, constant beyond."""
    places = (np.arange(side) + 0.5) * len(table) / side - 0.5
    columns = [np.interp(places, np.arange(len(table)), column) for column in table.T.numpy()]
    return torch.from_numpy(np.stack(columns, axis=1).astype(np.float32))


def save_navit(
    folder: Path, architecture: str, registered: Mapping[str, Any], model_args: Mapping[str, Any], *, classes: int = 0
) -> Navit:
    """A folder as timm's `save_for_hf` writes it. registered: what timm gives this architecture over `BASE`."""
    args = BASE | dict(registered) | dict(model_args)
    tensors = random_tensors(args)
    config = {
        "architecture": architecture, "num_classes": classes, "num_features": args["embed_dim"],
        "global_pool": args["global_pool"], "model_args": dict(model_args), "pretrained_cfg": PICTURES,
    }  # fmt: skip
    classifier = {"head.weight": torch.randn(classes, args["embed_dim"]), "head.bias": torch.randn(classes)}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors | (classifier if classes else {}), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return Navit(args, tensors)


def random_tensors(args: Mapping[str, Any], *, seed: int = 0) -> dict[str, Tensor]:
    """Every parameter is random, including biases, norms and scales, so that a test sees any that are mixed up."""
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    tensors: dict[str, Tensor] = {}

    def linear(name: str, out: int, into: int, *, bias: bool = True) -> None:
        tensors[f"{name}.weight"] = noise(out, into) * into**-0.5
        if bias:
            tensors[f"{name}.bias"] = 0.1 * noise(out)

    def norm(name: str) -> None:
        tensors[f"{name}.weight"], tensors[f"{name}.bias"] = 1 + 0.1 * noise(d), 0.1 * noise(d)

    d, m = args["embed_dim"], int(args["embed_dim"] * args["mlp_ratio"])
    linear("embeds.proj", d, 3 * args["patch_size"] ** 2)
    shapes: dict[str, tuple[int, ...]] = _embedding_shapes(args)
    for i in range(args["depth"]):
        block = f"blocks.{i}."
        norm(f"{block}norm1")
        linear(f"{block}attn.qkv", 3 * d, d, bias=args["qkv_bias"])
        linear(f"{block}attn.proj", d, d)
        norm(f"{block}norm2")
        linear(f"{block}mlp.fc1", m, d)
        linear(f"{block}mlp.fc2", d, m)
        if args["init_values"]:
            tensors |= {f"{block}ls{part}.gamma": 0.5 + 0.2 * noise(d) for part in (1, 2)}
    if args["global_pool"] == "avg":
        norm("fc_norm")
    else:
        norm("norm")
        norm("attn_pool.norm")
        for name, out, into in (("q", d, d), ("kv", 2 * d, d), ("proj", d, d), ("mlp.fc1", m, d), ("mlp.fc2", d, m)):
            linear(f"attn_pool.{name}", out, into)
        shapes["attn_pool.latent"] = (1, 1, d)
    return tensors | {name: noise(*shape) for name, shape in shapes.items()}


def _embedding_shapes(args: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    d, (rows, columns) = args["embed_dim"], args["pos_embed_grid_size"]
    shapes: dict[str, tuple[int, ...]] = {}
    if args["class_token"]:
        shapes["embeds.cls_token"] = (1, 1, d)
    if args["reg_tokens"]:
        shapes["embeds.reg_token"] = (1, args["reg_tokens"], d)
    if args["pos_embed"] == "factorized":
        return shapes | {"embeds.pos_embed_y": (1, rows, d), "embeds.pos_embed_x": (1, columns, d)}
    return shapes | {"embeds.pos_embed": (1, rows, columns, d)}
