"""SigLIP 2 NaFlex: a pre-norm vision transformer over packed patches, and its attention-pooling (MAP) head.

Equal to Transformers' `Siglip2VisionModel` (modeling_siglip2.py) on the same weights, without its padding. Knows
nothing of images, devices or checkpoint files.

Axes: T tokens of a pack (filler rows included), S segments, D width, H heads, d = D / H.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.attention import Attention, Segments
from model.linear import Linear, LinearKernel, pad_rows


@dataclass(frozen=True, slots=True)
class NaFlexConfig:
    """The shape of an encoder. `table_side`: side of the learned square position table, in patches."""

    width: int
    depth: int
    heads: int
    mlp_width: int
    patch_size: int = 16
    table_side: int = 16
    eps: float = 1e-6

    @property
    def patch_width(self) -> int:
        """Values of one patch row: three channels."""
        return 3 * self.patch_size**2


@dataclass(frozen=True, slots=True, eq=False)
class EncoderOutput:
    """tokens: `[T, D]` after the final norm. pooled: `[S, D]`, one row a segment, not normalised."""

    tokens: Tensor
    pooled: Tensor


class Norm(nn.LayerNorm):
    """Layer norm of the float32 residual stream, computed in float32, out in the dtype of the weights."""

    def forward(self, x: Tensor) -> Tensor:
        y = F.layer_norm(x, self.normalized_shape, self.weight.float(), self.bias.float(), self.eps)
        return y.to(self.weight.dtype)


class Mlp(nn.Sequential):
    def __init__(self, config: NaFlexConfig, kernel: LinearKernel) -> None:
        super().__init__(
            Linear(config.width, config.mlp_width, kernel=kernel, gelu=True),
            Linear(config.mlp_width, config.width, kernel=kernel),
        )


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)). x: float32 `[T, D]`."""

    def __init__(self, config: NaFlexConfig, attention: Attention, kernel: LinearKernel) -> None:
        super().__init__()
        self.norm1 = Norm(config.width, eps=config.eps)
        self.qkv = Linear(config.width, 3 * config.width, kernel=kernel)
        self.out = Linear(config.width, config.width, kernel=kernel)
        self.norm2 = Norm(config.width, eps=config.eps)
        self.mlp = Mlp(config, kernel)
        self._heads = config.heads
        self._attention = attention

    def forward(self, x: Tensor, segments: Segments) -> Tensor:
        q, k, v = self.qkv(self.norm1(x)).view(len(x), 3, self._heads, -1).unbind(1)  # [T, H, d] each
        x = x + self.out(self._attention(q, k, v, segments, segments).flatten(1))
        return x + self.mlp(self.norm2(x))  # type: ignore[no-any-return]


class MapHead(nn.Module):
    """One learned query attends to the tokens of each segment. The residual starts after the projection.

    The query is the checkpoint's probe, already projected: it is the same for every image.
    """

    def __init__(self, config: NaFlexConfig, attention: Attention, kernel: LinearKernel) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.empty(config.width), requires_grad=False)
        self.kv = Linear(config.width, 2 * config.width, kernel=kernel)
        self.out = Linear(config.width, config.width, kernel=kernel)
        self.norm = Norm(config.width, eps=config.eps)
        self.mlp = Mlp(config, kernel)
        self._heads = config.heads
        self._attention = attention
        self._row_multiple = kernel.row_multiple

    def forward(self, tokens: Tensor, segments: Segments) -> Tensor:
        k, v = self.kv(tokens).view(len(tokens), 2, self._heads, -1).unbind(1)  # [T, H, d] each
        q = self.query.view(1, self._heads, -1).repeat(segments.count, 1, 1)  # [S, H, d]
        one_each = Segments.singles(segments.count, tokens.device)
        attended = self._attention(q, k, v, one_each, segments).flatten(1)  # [S, D]
        pooled = self.out(pad_rows(attended, self._row_multiple)).float()
        pooled = pooled + self.mlp(self.norm(pooled))
        return pooled[: segments.count]  # type: ignore[no-any-return]


class NaFlexEncoder(nn.Module):
    """Packed patches to tokens and one pooled vector a segment."""

    def __init__(self, config: NaFlexConfig, *, attention: Attention, kernel: LinearKernel) -> None:
        super().__init__()
        self.patch = Linear(config.patch_width, config.width, kernel=kernel)
        self.blocks = nn.ModuleList(Block(config, attention, kernel) for _ in range(config.depth))
        self.norm = Norm(config.width, eps=config.eps)
        self.head = MapHead(config, attention, kernel)

    def forward(self, patches: Tensor, positions: Tensor, segments: Segments) -> EncoderOutput:
        """patches: `[T, 3*P*P]` normalised, in the dtype of the weights. positions: float32 `[T, D]`.

        The residual stream is float32 in every dtype: bfloat16 sums would cost more accuracy than all products.
        """
        x = self.patch(patches).float() + positions
        for block in self.blocks:
            x = block(x, segments)
        tokens = self.norm(x)
        return EncoderOutput(tokens=tokens, pooled=self.head(tokens, segments))


def checkpoint_shapes(config: NaFlexConfig) -> dict[str, tuple[int, ...]]:
    """Every tensor that a `siglip2` checkpoint holds for its vision tower, without the key prefix, and its shape."""
    d, m = config.width, config.mlp_width

    def linear(name: str, out: int, into: int) -> dict[str, tuple[int, ...]]:
        return {f"{name}.weight": (out, into), f"{name}.bias": (out,)}

    def norm(name: str) -> dict[str, tuple[int, ...]]:
        return {f"{name}.weight": (d,), f"{name}.bias": (d,)}

    shapes = linear("embeddings.patch_embedding", d, config.patch_width)
    shapes["embeddings.position_embedding.weight"] = (config.table_side**2, d)
    for i in range(config.depth):
        layer = f"encoder.layers.{i}"
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= linear(f"{layer}.self_attn.{name}", d, d)
        shapes |= norm(f"{layer}.layer_norm1") | norm(f"{layer}.layer_norm2")
        shapes |= linear(f"{layer}.mlp.fc1", m, d) | linear(f"{layer}.mlp.fc2", d, m)
    shapes |= norm("post_layernorm")
    shapes |= {"head.probe": (1, 1, d), "head.attention.in_proj_weight": (3 * d, d)}
    shapes |= {"head.attention.in_proj_bias": (3 * d,)} | linear("head.attention.out_proj", d, d)
    return shapes | norm("head.layernorm") | linear("head.mlp.fc1", m, d) | linear("head.mlp.fc2", d, m)


def encoder_weights(checkpoint: Mapping[str, Tensor], config: NaFlexConfig) -> dict[str, Tensor]:
    """The state of a `NaFlexEncoder` from the tensors that `checkpoint_shapes` names.

    q, k and v are laid together, and the probe is projected once for all.
    """
    weights: dict[str, Tensor] = {}

    def copy(ours: str, theirs: str) -> None:
        for part in ("weight", "bias"):
            weights[f"{ours}.{part}"] = checkpoint[f"{theirs}.{part}"]

    copy("patch", "embeddings.patch_embedding")
    copy("norm", "post_layernorm")
    for i in range(config.depth):
        ours, theirs = f"blocks.{i}", f"encoder.layers.{i}"
        for part in ("weight", "bias"):
            qkv = [checkpoint[f"{theirs}.self_attn.{x}_proj.{part}"] for x in "qkv"]
            weights[f"{ours}.qkv.{part}"] = torch.cat(qkv)
        copy(f"{ours}.out", f"{theirs}.self_attn.out_proj")
        copy(f"{ours}.norm1", f"{theirs}.layer_norm1")
        copy(f"{ours}.norm2", f"{theirs}.layer_norm2")
        copy(f"{ours}.mlp.0", f"{theirs}.mlp.fc1")
        copy(f"{ours}.mlp.1", f"{theirs}.mlp.fc2")
    in_weight, in_bias = (checkpoint[f"head.attention.in_proj_{part}"] for part in ("weight", "bias"))
    d = config.width
    # In float64: the bits of a float32 product of one row depend on how the weights happen to lie in memory.
    probe = checkpoint["head.probe"].view(d).double()
    weights["head.query"] = (in_weight[:d].double() @ probe + in_bias[:d].double()).float()
    weights["head.kv.weight"], weights["head.kv.bias"] = in_weight[d:], in_bias[d:]
    copy("head.out", "head.attention.out_proj")
    copy("head.norm", "head.layernorm")
    copy("head.mlp.0", "head.mlp.fc1")
    copy("head.mlp.1", "head.mlp.fc2")
    return weights
