"""The layers that vision transformers share: pre-norm blocks over a packed sequence, and attention pooling (MAP).

Knows nothing of images, positions, devices or checkpoint files.

Axes: R rows of a sequence (filler included), S segments, D width, H heads, d = D / H.
"""

from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.kernels.activations import Activation
from model.kernels.attention import Attention, Segments
from model.kernels.linear import Linear, LinearKernel, pad_rows, row_blocks


class BlockShape(Protocol):
    """The sizes that a block depends on."""

    @property
    def width(self) -> int: ...
    @property
    def depth(self) -> int: ...
    @property
    def heads(self) -> int: ...
    @property
    def mlp_width(self) -> int: ...
    @property
    def eps(self) -> float: ...


class Norm(nn.LayerNorm):
    """Layer norm of the float32 residual stream: computes in float32, returns the dtype of the weights."""

    def forward(self, x: Tensor) -> Tensor:
        return self.in_float32(x).to(self.weight.dtype)

    def in_float32(self, x: Tensor) -> Tensor:
        """Returns float32, for the residual stream itself or an answer."""
        return F.layer_norm(x, self.normalized_shape, self.weight.float(), self.bias.float(), self.eps)


class RmsNorm(nn.RMSNorm):
    """`Norm` without mean and bias."""

    def __init__(self, width: int, *, eps: float) -> None:
        super().__init__(width, eps)

    def forward(self, x: Tensor) -> Tensor:
        return self.in_float32(x).to(self.weight.dtype)

    def in_float32(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.normalized_shape, self.weight.float(), self.eps)


class Mlp(nn.Sequential):
    def __init__(self, shape: BlockShape, kernel: LinearKernel, activation: Activation) -> None:
        super().__init__(
            Linear(shape.width, shape.mlp_width, kernel=kernel, activation=activation),
            Linear(shape.mlp_width, shape.width, kernel=kernel),
        )


class GatedMlp(nn.Module):
    """down(activation(gate(x)) * up(x)); SwiGLU with SiLU."""

    def __init__(self, shape: BlockShape, kernel: LinearKernel, activation: Activation) -> None:
        super().__init__()
        self.gate = Linear(shape.width, shape.mlp_width, kernel=kernel, activation=activation)
        self.up = Linear(shape.width, shape.mlp_width, kernel=kernel)
        self.down = Linear(shape.mlp_width, shape.width, kernel=kernel)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.gate(x).mul_(self.up(x)))  # type: ignore[no-any-return]


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)). x: float32 `[R, D]`."""

    def __init__(
        self,
        shape: BlockShape,
        attention: Attention,
        kernel: LinearKernel,
        activation: Activation,
        *,
        norm: type[Norm] | type[RmsNorm] = Norm,
        mlp: type[Mlp] | type[GatedMlp] = Mlp,
    ) -> None:
        super().__init__()
        kernel = kernel.in_blocks
        self.norm1 = norm(shape.width, eps=shape.eps)
        self.qkv = Linear(shape.width, 3 * shape.width, kernel=kernel)
        self.out = Linear(shape.width, shape.width, kernel=kernel)
        self.norm2 = norm(shape.width, eps=shape.eps)
        self.mlp = mlp(shape, kernel, activation)
        self._heads = shape.heads
        self.attention = attention
        self._mlp_width = shape.mlp_width
        self._kernel = kernel

    def forward(self, x: Tensor, segments: Segments, rotation: Tensor | None = None) -> None:
        """In place. rotation: float32 `[R, d]`, the cosines, then the sines, that rotate the heads of each row."""
        qkv = self._project(x).view(len(x), 3, self._heads, -1)  # [R, 3, H, d]
        if rotation is not None:
            for rows in row_blocks(x, self._kernel, 2 * x.shape[1], torch.float32):
                _rotate(qkv[rows, :2], rotation[rows])
        q, k, v = qkv.unbind(1)
        self._add(x, self.attention(q, k, v, segments, segments))

    def ends(self, x: Tensor, segments: Segments) -> Tensor:
        """The output for the last row of each segment alone: float32 `[S, D]` and filler rows. Leaves x as it is."""
        q, k, v = self._project(x).view(len(x), 3, self._heads, -1).unbind(1)
        ends = segments.cu_seqlens[1:] - 1
        one_each = Segments.singles(segments.count, x.device)
        attended = self.attention(q.index_select(0, ends), k, v, one_each, segments)
        last = pad_rows(x.index_select(0, ends), self._kernel.row_multiple)
        self._add(last, pad_rows(attended, self._kernel.row_multiple))
        return last

    def _add(self, x: Tensor, attended: Tensor) -> None:
        """What follows attention, in place. attended: `[R, H, d]`."""
        for rows in row_blocks(x, self._kernel, self._mlp_width, attended.dtype):
            part = x[rows]
            part += self.out(attended[rows].flatten(1))
            part += self.mlp(self._normalised(self.norm2, part))

    def _project(self, x: Tensor) -> Tensor:
        """Queries, keys and values: `[R, 3*D]`."""
        width, dtype = 3 * x.shape[1], self.norm1.weight.dtype
        blocks = list(row_blocks(x, self._kernel, width, dtype))
        if len(blocks) == 1:
            return self.qkv(self._normalised(self.norm1, x)).to(dtype)  # type: ignore[no-any-return]
        qkv = torch.empty(len(x), width, dtype=dtype, device=x.device)
        for rows in blocks:
            qkv[rows] = self.qkv(self._normalised(self.norm1, x[rows]))
        return qkv

    def _normalised(self, norm: Norm | RmsNorm, x: Tensor) -> Tensor:
        return norm.in_float32(x) if self._kernel.takes_float32 else norm(x)


def _rotate(heads: Tensor, rotation: Tensor) -> None:
    """In place, in float32: rotates values i and i + d/2 of a head by angle i. heads: `[R, 2, H, d]`."""
    first, second = heads.float().chunk(2, dim=-1)
    cosines, sines = rotation[:, None, None].chunk(2, dim=-1)
    heads.copy_(torch.cat([first * cosines - second * sines, second * cosines + first * sines], dim=-1))


class Blocks(nn.ModuleList):
    """All blocks in order.

    features_after: the number of blocks after which features are taken, 0 for the input of the first; None takes none.
    """

    def __init__(
        self,
        shape: BlockShape,
        *,
        attention: Attention,
        kernel: LinearKernel,
        activation: Activation = "gelu_tanh",
        norm: type[Norm] | type[RmsNorm] = Norm,
        mlp: type[Mlp] | type[GatedMlp] = Mlp,
        features_after: int | None = None,
    ) -> None:
        super().__init__(Block(shape, attention, kernel, activation, norm=norm, mlp=mlp) for _ in range(shape.depth))
        self._features_after = features_after

    def forward(self, x: Tensor, segments: Segments, rotation: Tensor | None = None) -> Tensor | None:
        """x: float32 `[R, D]`, overwritten with the last block's output. rotation: as for `Block`. Returns the
        features, of the shape of x."""
        features = x.clone() if self._features_after == 0 else None
        for i, block in enumerate(self, start=1):
            block(x, segments, rotation)
            if i == self._features_after:
                features = x.clone()
        return features

    def ends(self, x: Tensor, segments: Segments) -> Tensor:
        """As `Block.ends` after all blocks. x: float32 `[R, D]`, overwritten."""
        *before, last = self
        for block in before:
            block(x, segments)
        return last.ends(x, segments)  # type: ignore[no-any-return, operator]


class MapHead(nn.Module):
    """One learned query attends to the tokens of each segment. The residual starts after the projection.

    The query is the checkpoint's probe. It is the same for every image, so it is stored projected.
    """

    def __init__(
        self, shape: BlockShape, attention: Attention, kernel: LinearKernel, activation: Activation = "gelu_tanh"
    ) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.empty(shape.width), requires_grad=False)
        self.kv = Linear(shape.width, 2 * shape.width, kernel=kernel)
        self.out = Linear(shape.width, shape.width, kernel=kernel)
        self.norm = Norm(shape.width, eps=shape.eps)
        self.mlp = Mlp(shape, kernel, activation)
        self._heads = shape.heads
        self.attention = attention
        self._row_multiple = kernel.row_multiple

    def forward(self, tokens: Tensor, segments: Segments) -> Tensor:
        """tokens: `[R, D]`, with filler rows behind the last segment. Returns float32 `[S, D]`."""
        k, v = self.kv(tokens).view(len(tokens), 2, self._heads, -1).unbind(1)  # [R, H, d] each
        q = self.query.view(1, self._heads, -1).repeat(segments.count, 1, 1)  # [S, H, d]
        one_each = Segments.singles(segments.count, tokens.device)
        attended = self.attention(q, k, v, one_each, segments).flatten(1)  # [S, D]
        pooled = self.out(pad_rows(attended, self._row_multiple)).float()
        pooled = pooled + self.mlp(self.norm(pooled))
        return pooled[: segments.count]  # type: ignore[no-any-return]
