"""The blocks of both towers: norms before and after attention and MLP, and norms of queries, keys and values.

Knows nothing of images, texts, positions or files. Axes: R rows of a sequence (filler included), D width, H heads of
the queries, G heads of the keys and values, d width of a head.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.encoders.parts.blocks import RmsNorm
from model.kernels.activations import Activation, activate
from model.kernels.attention import Attention, Segments
from model.kernels.linear import Linear, LinearKernel, row_blocks


@dataclass(frozen=True, slots=True)
class LayerShape:
    """The sizes of one block. shared_heads: G. signal_width: of what is mixed in after the MLP, None without that.
    clipped: linear layers clamp what goes in and what comes out.
    """

    width: int
    heads: int
    shared_heads: int
    head_width: int
    mlp_width: int
    eps: float
    signal_width: int | None = None
    clipped: bool = False

    @property
    def qkv_widths(self) -> tuple[int, int, int]:
        """Values of a row's queries, keys and values."""
        shared = self.shared_heads * self.head_width
        return self.heads * self.head_width, shared, shared


class StreamNorm(RmsNorm):
    """`RmsNorm` of what is added to the float32 residual stream: returns float32."""

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x.float(), self.normalized_shape, self.weight.float(), self.eps)


class ClippedLinear(Linear):
    """A linear layer that clamps what goes in and what comes out, before the activation."""

    def __init__(self, into: int, out: int, *, kernel: LinearKernel, activation: Activation = "none") -> None:
        super().__init__(into, out, kernel=kernel, bias=False)
        self.bounds = nn.Parameter(torch.empty(4), requires_grad=False)
        """Least and most of what goes in, then of what comes out."""
        self._after: Activation = activation

    def forward(self, x: Tensor) -> Tensor:
        bounds = self.bounds.to(x.dtype)
        y = super().forward(torch.clamp(x, bounds[0], bounds[1]))
        return activate(torch.clamp(y, bounds[2], bounds[3]), self._after)


def _linear(into: int, out: int, *, kernel: LinearKernel, clipped: bool, activation: Activation = "none") -> Linear:
    if clipped:
        return ClippedLinear(into, out, kernel=kernel, activation=activation)
    return Linear(into, out, kernel=kernel, activation=activation, bias=False)


class HeadAttention(nn.Module):
    """Attention whose queries, keys and values are normalised head by head, before queries and keys are rotated."""

    def __init__(self, shape: LayerShape, attention: Attention, kernel: LinearKernel) -> None:
        super().__init__()
        # Clipped layers have bounds of their own for what goes in, so they cannot be one product.
        widths = shape.qkv_widths if shape.clipped else (sum(shape.qkv_widths),)
        self.qkv = nn.ModuleList(_linear(shape.width, out, kernel=kernel, clipped=shape.clipped) for out in widths)
        self.q_norm = nn.Parameter(torch.empty(shape.head_width), requires_grad=False)
        self.k_norm = nn.Parameter(torch.empty(shape.head_width), requires_grad=False)
        self.out = _linear(shape.qkv_widths[0], shape.width, kernel=kernel, clipped=shape.clipped)
        self._shape, self._kernel = shape, kernel
        self.attention = attention

    def forward(self, x: Tensor, norm: RmsNorm, segments: Segments, rotation: Tensor) -> Tensor:
        """x: float32 `[R, D]`. Returns what attention gives, `[R, H, d]`, before `out`."""
        shape, dtype = self._shape, norm.weight.dtype
        widths = shape.qkv_widths
        q, k, v = (x.new_empty(len(x), width // shape.head_width, shape.head_width, dtype=dtype) for width in widths)
        # Backends divide scores by √d, and this family does not.
        q_norm, k_norm = self.q_norm.float() * math.sqrt(shape.head_width), self.k_norm.float()
        for rows in row_blocks(x, self._kernel, sum(widths), torch.float32):
            inside = norm(x[rows])
            made = [layer(inside).float() for layer in self.qkv]
            parts = made if len(made) > 1 else made[0].split(widths, dim=1)
            heads = [part.reshape(len(part), -1, shape.head_width) for part in parts]
            q[rows] = _rotated(_normalised(heads[0], q_norm, shape.eps), rotation[rows])
            k[rows] = _rotated(_normalised(heads[1], k_norm, shape.eps), rotation[rows])
            v[rows] = _normalised(heads[2], None, shape.eps)
        return self.attention(q, k, v, segments, segments)


class Signal(nn.Module):
    """What each row began as, mixed into what it has become: norm(project(gate(x) * signal))."""

    def __init__(self, shape: LayerShape, signal_width: int, kernel: LinearKernel) -> None:
        super().__init__()
        self.signal = Linear(shape.width, signal_width, kernel=kernel, bias=False)
        # Transformers scales the projection by D^-0.5 before this norm, which changes only what eps means.
        self.signal_norm = StreamNorm(signal_width, eps=shape.eps * shape.width)
        self.gate = Linear(shape.width, signal_width, kernel=kernel, activation="gelu_tanh", bias=False)
        self.project = Linear(signal_width, shape.width, kernel=kernel, bias=False)
        self.norm = StreamNorm(shape.width, eps=shape.eps)

    def forward(self, x: Tensor, began: Tensor) -> Tensor:
        """What is added to x. x: float32 `[R, D]`. began: the rows before the first block, in the dtype of weights."""
        signal = self.signal_norm(self.signal(began)).to(began.dtype)
        return self.norm(self.project(self.gate(x.to(began.dtype)).mul_(signal)))  # type: ignore[no-any-return]


class GemmaBlock(nn.Module):
    """x + norm(attention(norm(x))), then x + norm(mlp(norm(x))), then a `Signal` and a scale if the tower has them."""

    def __init__(self, shape: LayerShape, attention: Attention, kernel: LinearKernel) -> None:
        super().__init__()
        width, eps = shape.width, shape.eps
        signal_kernel, kernel = kernel, kernel.in_blocks
        self.norm1 = RmsNorm(width, eps=eps)
        self.attention = HeadAttention(shape, attention, kernel)
        self.after1 = StreamNorm(width, eps=eps)
        self.norm2 = RmsNorm(width, eps=eps)
        clipped = shape.clipped
        self.gate = _linear(width, shape.mlp_width, kernel=kernel, clipped=clipped, activation="gelu_tanh")
        self.up = _linear(width, shape.mlp_width, kernel=kernel, clipped=clipped)
        self.down = _linear(shape.mlp_width, width, kernel=kernel, clipped=clipped)
        self.after2 = StreamNorm(width, eps=eps)
        self.signal = Signal(shape, shape.signal_width, signal_kernel) if shape.signal_width else None
        self.scale = nn.Parameter(torch.empty(1), requires_grad=False) if shape.signal_width else None
        self._mlp_width, self._kernel = shape.mlp_width, kernel

    def forward(self, x: Tensor, segments: Segments, rotation: Tensor, began: Tensor | None = None) -> None:
        """x: float32 `[R, D]`, in place. rotation: float32 `[R, d]`, cosines, then sines. began: as for `Signal`."""
        attended = self.attention(x, self.norm1, segments, rotation)
        for rows in row_blocks(x, self._kernel, self._mlp_width, attended.dtype):
            part = x[rows]
            part += self.after1(self.attention.out(attended[rows].flatten(1)))
            inside = self.norm2(part)
            part += self.after2(self.down(self.gate(inside).mul_(self.up(inside))))
            if self.signal is not None and self.scale is not None and began is not None:
                part += self.signal(part, began[rows])
                part *= self.scale.float()


def _normalised(heads: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    return F.rms_norm(heads, heads.shape[-1:], weight, eps)


def _rotated(heads: Tensor, rotation: Tensor) -> Tensor:
    """Values i and i + d/2 of a head turned by angle i. heads: float32 `[R, H, d]`."""
    first, second = heads.chunk(2, dim=-1)
    cosines, sines = rotation[:, None].chunk(2, dim=-1)
    return torch.cat([first * cosines - second * sines, second * cosines + first * sines], dim=-1)
