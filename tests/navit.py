"""What timm's vision transformers compute: dense, one image at a time.

timm cannot be imported here, as it needs torchvision; this is written from what its naflexvit.py (1.0.31) does.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from model.pack import PackedBatch
from tests.reference import normalised


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
        args = self.args
        x = self._linear("embeds.proj", patches) + self._positions(grid)
        prefix = [self.tensors[name][0] for name in ("embeds.cls_token", "embeds.reg_token") if name in self.tensors]
        x = torch.cat([*prefix, x])
        before = sum(len(rows) for rows in prefix)
        x = self._norm("norm_pre", x) if args["pre_norm"] else x
        turns = rotations(args, grid, before)
        layers = [x]
        for i in range(args["depth"]):
            x = self._block(f"blocks.{i}.", x, turns)
            layers.append(x)
        after = args["global_pool"] == "avg" if args["fc_norm"] is None else args["fc_norm"]
        x = self._norm("norm", x) if args["final_norm"] and not after else x
        pooled = self._pool(x, 0 if args["pool_include_prefix"] else before)
        pooled = self._norm("fc_norm", pooled) if args["final_norm"] and after else pooled
        return pooled, (x if feature_layer is None else layers[feature_layer])[before:]

    def _pool(self, x: Tensor, before: int) -> Tensor:
        if self.args["global_pool"] == "token":
            return x[0]
        return x[before:].mean(0) if self.args["global_pool"] == "avg" else self._map_pool(x[before:])

    def _positions(self, grid: tuple[int, int]) -> Tensor:
        sides = (max(grid),) * 2 if self.args["pos_embed_ar_preserving"] else grid
        if self.args["pos_embed"] == "none":
            return torch.zeros(1)
        if self.args["pos_embed"] == "factorized":
            axes = [
                _stretched(self.tensors[f"embeds.pos_embed_{axis}"][0], side)[:cut]
                for axis, side, cut in zip("yx", sides, grid, strict=True)
            ]
            return (axes[0][:, None] + axes[1][None]).flatten(0, 1)
        table = self.tensors["embeds.pos_embed"]
        if grid == table.shape[1:3]:
            return table.flatten(0, 2)
        whole = F.interpolate(
            table.permute(0, 3, 1, 2),
            size=sides,
            mode=self.args["pos_embed_interp_mode"],
            antialias=self.args["pos_embed_antialias"],
            align_corners=self.args["pos_embed_align_corners"],
        )
        return whole[0, :, : grid[0], : grid[1]].flatten(1).T

    def _block(self, name: str, x: Tensor, turns: tuple[Tensor, Tensor] | None) -> Tensor:
        q, k, v = self._qkv(f"{name}attn.", self._norm(f"{name}norm1", x))
        attended = self._attend(q, k, v, self.args["num_heads"], turns)
        x = x + self._scale(f"{name}ls1.gamma", f"{name}gamma_1", self._linear(f"{name}attn.proj", attended))
        return x + self._scale(
            f"{name}ls2.gamma", f"{name}gamma_2", self._mlp(f"{name}mlp", self._norm(f"{name}norm2", x))
        )

    def _qkv(self, name: str, x: Tensor) -> tuple[Tensor, ...]:
        if f"{name}q_proj.weight" in self.tensors:
            return tuple(self._linear(f"{name}{part}_proj", x) for part in "qkv")
        q, k, v = self._linear(f"{name}qkv", x).chunk(3, -1)
        return q + self.tensors.get(f"{name}q_bias", 0), k, v + self.tensors.get(f"{name}v_bias", 0)

    def _map_pool(self, tokens: Tensor) -> Tensor:
        q = self._linear("attn_pool.q", self.tensors["attn_pool.latent"][0])
        k, v = self._linear("attn_pool.kv", tokens).chunk(2, -1)
        heads = self.args["attn_pool_num_heads"] or self.args["num_heads"]
        x = self._linear("attn_pool.proj", self._attend(q, k, v, heads, None))
        return (x + self._mlp("attn_pool.mlp", self._norm("attn_pool.norm", x)))[0]

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, heads: int, turns: tuple[Tensor, Tensor] | None) -> Tensor:
        q, k, v = (x.view(len(x), heads, -1).transpose(0, 1) for x in (q, k, v))  # [H, T, d]
        if turns:
            q, k = (self._rotated(x, *turns) for x in (q, k))
        scores = q @ k.transpose(1, 2) * q.shape[-1] ** -0.5
        attended: Tensor = scores.softmax(-1) @ v
        return attended.transpose(0, 1).flatten(1)

    def _rotated(self, x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
        """cosines, sines: `[T, d/2]`, of each pair."""
        if self.args["rope_rotate_half"]:
            first, second = x.chunk(2, -1)
            return torch.cat([first * cosines - second * sines, second * cosines + first * sines], -1)
        first, second = x[..., 0::2], x[..., 1::2]
        return torch.stack([first * cosines - second * sines, second * cosines + first * sines], -1).flatten(-2)

    def _mlp(self, name: str, x: Tensor) -> Tensor:
        if f"{name}.fc1_g.weight" in self.tensors:
            return self._linear(
                f"{name}.fc2", F.silu(self._linear(f"{name}.fc1_g", x)) * self._linear(f"{name}.fc1_x", x)
            )
        x = self._linear(f"{name}.fc1", x)
        if self.args["swiglu_mlp"] and not name.startswith("attn_pool"):
            gate, up = x.chunk(2, -1)
            return self._linear(f"{name}.fc2", F.silu(gate) * up)
        approximate = "tanh" if self.args["act_layer"] == "gelu_tanh" else "none"
        return self._linear(f"{name}.fc2", F.gelu(x, approximate=approximate))

    def _linear(self, name: str, x: Tensor) -> Tensor:
        return F.linear(x, self.tensors[f"{name}.weight"], self.tensors.get(f"{name}.bias"))

    def _norm(self, name: str, x: Tensor) -> Tensor:
        weight, bias = self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"]
        return F.layer_norm(x, weight.shape, weight, bias, self.args["norm_eps"])

    def _scale(self, plain: str, eva: str, x: Tensor) -> Tensor:
        return x * self.tensors.get(plain, self.tensors.get(eva, torch.ones(1)))


def rotations(args: Mapping[str, Any], grid: tuple[int, int], before: int) -> tuple[Tensor, Tensor] | None:
    """Cosines and sines of each row and pair, `[T, d/2]`: place by place, in float64. Rows before are not turned."""
    if args["rope_type"] == "":
        return None
    count, theta = args["embed_dim"] // args["num_heads"] // 4, args["rope_temperature"]
    reference, offset = args["rope_ref_feat_shape"], args["rope_grid_offset"]
    angles = np.zeros((before + grid[0] * grid[1], 2 * count))
    for number, cell in enumerate(np.ndindex(*grid), start=before):
        if args["rope_type"] == "dinov3":
            places = [2 * math.pi * (2 * (at + 0.5 + offset) / side - 1) for at, side in zip(cell, grid, strict=True)]
        else:
            places = [at + offset for at in cell]
            if reference:
                places = [at / side * r for at, side, r in zip(places, grid, reference, strict=True)]
        if args["rope_grid_indexing"] == "xy":
            places = places[::-1]
        angles[number] = [place / theta ** (i / count) for place in places for i in range(count)]
    return torch.from_numpy(np.cos(angles)).float(), torch.from_numpy(np.sin(angles)).float()


def _stretched(table: Tensor, side: int) -> Tensor:
    """A table `[n, D]` read at the centres of `side` cells: linear between its own centres, constant beyond."""
    places = (np.arange(side) + 0.5) * len(table) / side - 0.5
    columns = [np.interp(places, np.arange(len(table)), column) for column in table.T.numpy()]
    return torch.from_numpy(np.stack(columns, axis=1).astype(np.float32))
