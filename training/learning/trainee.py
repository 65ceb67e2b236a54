"""packlight-tiny while it learns: the NaFlex encoder with gradients.

The encoder that serves computes in place, fused and without gradients. This one has the names and the computation of
Transformers' `Siglip2VisionModel`, so its `state_dict` is a checkpoint. Knows nothing of pictures, losses or
optimisers.

Axes: T tokens of a pack, S segments, L the longest of them, D width, H heads, d = D / H.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.encoders.siglip.naflex import NaFlexConfig
from model.kernels.positions import PositionTable
from model.pack import PackedBatch
from training.learning.dropping import kept_cells

# Attention works on rectangles of neighbouring segments whose lengths differ by at most this factor.
_MOST_UNLIKE = 4 / 3
_MASKED = -30_000.0
# Factor on what a block adds to the residual stream at the start of training.
_BLOCK_GAIN = 0.3


class _Pad(torch.autograd.Function):
    """Gathers rows of x by `number`.

    Each row of x occurs once at `real`. The other rows are padding, and nothing may depend on them.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, number: Tensor, real: Tensor) -> Tensor:
        ctx.save_for_backward(real)
        return x.index_select(0, number)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (real,) = ctx.saved_tensors
        return grad.index_select(0, real), None, None


class Rectangle:
    """Neighbouring segments, each padded to the length of the longest."""

    def __init__(self, lengths: Sequence[int], device: torch.device) -> None:
        each = torch.tensor(lengths, device=device)[:, None]  # [S, 1]
        starts = each.cumsum(0) - each
        cells = torch.arange(max(lengths), device=device)[None]  # [1, L]
        self.tokens = sum(lengths)
        self.shape = len(lengths), max(lengths)
        # Padding repeats the last token of its segment. Any token would do, as the mask hides it.
        self._number = (starts + cells.minimum(each - 1)).flatten()  # [S * L]
        self._real = (cells < each).flatten().nonzero().squeeze(1)  # [T]
        self.mask = torch.where(cells < each, 0.0, _MASKED)[:, None, None]  # [S, 1, 1, L]

    def pad(self, x: Tensor) -> Tensor:
        """Turns `[T, ...]` into `[S, L, ...]`."""
        rows: Tensor = _Pad.apply(x, self._number, self._real)  # type: ignore[no-untyped-call]
        return rows.view(*self.shape, *x.shape[1:])

    def unpad(self, x: Tensor) -> Tensor:
        """Turns `[S, L, D]` into `[T, D]`."""
        return x.flatten(0, 1)[self._real]


def rectangles(lengths: Sequence[int], device: torch.device) -> list[Rectangle]:
    """Returns the rectangles of all segments, in order."""
    runs: list[list[int]] = []
    for length in lengths:
        near = runs and max(length, *runs[-1]) <= _MOST_UNLIKE * min(length, *runs[-1])
        runs.append([*runs.pop(), length] if near else [length])
    return [Rectangle(run, device) for run in runs]


def by_rectangle(attend: Callable[[Tensor, Rectangle], Tensor], x: Tensor, within: Sequence[Rectangle]) -> Tensor:
    """Applies `attend` to the rows of each rectangle, and concatenates the results."""
    parts = torch.split(x, [rectangle.tokens for rectangle in within])
    return torch.cat([attend(part, rectangle) for part, rectangle in zip(parts, within, strict=True)])


class Attention(nn.Module):
    def __init__(self, config: NaFlexConfig) -> None:
        super().__init__()
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            self.add_module(name, nn.Linear(config.width, config.width))
        self._heads = config.heads

    def forward(self, x: Tensor, within: Sequence[Rectangle]) -> Tensor:
        layers = [self.get_submodule(f"{name}_proj") for name in "qkv"]
        weight, bias = (torch.cat([getattr(layer, part) for layer in layers]) for part in ("weight", "bias"))
        attended = by_rectangle(self._attend, F.linear(x, weight, bias), within)
        return self.get_submodule("out_proj")(attended)  # type: ignore[no-any-return]

    def _attend(self, qkv: Tensor, rectangle: Rectangle) -> Tensor:
        padded = rectangle.pad(qkv).view(*rectangle.shape, 3, self._heads, -1)
        q, k, v = padded.permute(2, 0, 3, 1, 4)  # [S, H, L, d] each
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2) + rectangle.mask.to(q.dtype)
        return rectangle.unpad((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    def __init__(self, config: NaFlexConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.width, config.mlp_width)
        self.fc2 = nn.Linear(config.mlp_width, config.width)

    def forward(self, x: Tensor) -> Tensor:
        # In bfloat16 the erf form, as rounding exceeds the difference. PyTorch takes five times as long for a bfloat16
        # tanh on a CPU, which was a tenth of all training.
        x = self.fc1(x)
        return self.fc2(F.gelu(x, approximate="none" if x.dtype == torch.bfloat16 else "tanh"))  # type: ignore[no-any-return]


class Layer(nn.Module):
    def __init__(self, config: NaFlexConfig) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(config.width, eps=config.eps)
        self.self_attn = Attention(config)
        self.layer_norm2 = nn.LayerNorm(config.width, eps=config.eps)
        self.mlp = Mlp(config)

    def forward(self, x: Tensor, within: Sequence[Rectangle]) -> Tensor:
        x = x + self.self_attn(self.layer_norm1(x), within)
        return x + self.mlp(self.layer_norm2(x))  # type: ignore[no-any-return]


class Head(nn.Module):
    """MAP: one learned query attends to the tokens of each segment."""

    def __init__(self, config: NaFlexConfig) -> None:
        super().__init__()
        self.probe = nn.Parameter(torch.randn(1, 1, config.width))
        self.attention = nn.MultiheadAttention(config.width, config.heads, batch_first=True)
        self.layernorm = nn.LayerNorm(config.width, eps=config.eps)
        self.mlp = Mlp(config)
        self._heads = config.heads

    def forward(self, tokens: Tensor, within: Sequence[Rectangle]) -> Tensor:
        """Takes tokens `[T, D]`. Returns `[S, D]`."""
        width = tokens.shape[1]
        weight, bias = self.attention.in_proj_weight, self.attention.in_proj_bias
        query = F.linear(self.probe[0], weight[:width], bias[:width]).view(1, self._heads, 1, -1)
        attend = partial(self._attend, query * query.shape[-1] ** -0.5)
        pooled = self.attention.out_proj(by_rectangle(attend, F.linear(tokens, weight[width:], bias[width:]), within))
        return pooled + self.mlp(self.layernorm(pooled))  # type: ignore[no-any-return]

    def _attend(self, query: Tensor, kv: Tensor, rectangle: Rectangle) -> Tensor:
        padded = rectangle.pad(kv).view(*rectangle.shape, 2, self._heads, -1)
        k, v = padded.permute(2, 0, 3, 1, 4)  # [S, H, L, d] each
        scores = (query * k).sum(-1).unsqueeze(2) + rectangle.mask.to(k.dtype)  # [S, H, 1, L]
        attended: Tensor = (scores.softmax(-1) @ v).flatten(1)  # [S, D]
        return attended


class Embeddings(nn.Module):
    """Embeds patches, and adds to each the position table's value for its place in its grid."""

    def __init__(self, config: NaFlexConfig) -> None:
        super().__init__()
        self.patch_embedding = nn.Linear(config.patch_width, config.width)
        self.position_embedding = nn.Embedding(config.table_side**2, config.width)
        self._side = config.table_side

    def forward(self, batch: PackedBatch) -> Tensor:
        """Returns `[T, D]` in the dtype of the weights."""
        weight = self.patch_embedding.weight
        rows = torch.from_numpy(batch.rows).to(weight.device).to(weight.dtype).sub_(127.5).div_(127.5)
        return self.patch_embedding(rows) + self._positions(batch).to(weight)  # type: ignore[no-any-return]

    def _positions(self, batch: PackedBatch) -> Tensor:
        """Returns float32 `[T, D]`. A grid that occurs more than once in the pack is resized once."""
        table = self.position_embedding.weight.float().view(self._side, self._side, -1)
        resize = PositionTable(table, device=table.device).resized
        each = {grid: resize(grid) for grid in dict.fromkeys(batch.grids)}
        kept = kept_cells(batch)
        if kept is None:
            return torch.cat([each[grid] for grid in batch.grids])
        segments = np.split(kept, batch.cu_seqlens[1:-1])
        return torch.cat([each[grid][cells] for grid, cells in zip(batch.grids, segments, strict=True)])


class Trainee(nn.Module):
    """Turns the patch rows of a pack into one vector per segment and one per token."""

    def __init__(self, config: NaFlexConfig) -> None:
        super().__init__()
        self.embeddings = Embeddings(config)
        self.encoder = nn.ModuleDict({"layers": nn.ModuleList(Layer(config) for _ in range(config.depth))})
        self.post_layernorm = nn.LayerNorm(config.width, eps=config.eps)
        self.head = Head(config)

    @torch.no_grad()
    def begin(self, random: torch.Generator) -> None:
        """Sets the weights to train from."""
        for name, weight in self.named_parameters():
            if weight.ndim == 1:
                weight.fill_(float("norm" in name and name.endswith("weight")))
            elif name.endswith("position_embedding.weight"):
                weight.normal_(0, 0.02, generator=random)
            elif name.endswith("probe"):
                weight.normal_(0, 1, generator=random)
            else:
                weight.normal_(0, weight.shape[1] ** -0.5, generator=random)
                if name.startswith("encoder") and name.endswith(("out_proj.weight", "fc2.weight")):
                    weight.mul_(_BLOCK_GAIN)

    def forward(self, batch: PackedBatch) -> tuple[Tensor, Tensor]:
        """Returns pooled vectors, float32 `[S, D]`, and tokens, `[T, D]` in the dtype of the weights.

        None is of length 1. Both are differentiable by every parameter that they depend on.
        """
        x = self.embeddings(batch)
        within = rectangles(np.diff(batch.cu_seqlens).tolist(), x.device)
        for layer in self.encoder["layers"]:  # type: ignore[attr-defined]
            x = layer(x, within)
        tokens: Tensor = self.post_layernorm(x)
        return self.head(tokens, within).float(), tokens
