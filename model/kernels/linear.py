"""Linear layers in which, on a CPU, a row's bits do not depend on the rows beside it.

On a CPU a row's bits can depend on how many rows are multiplied at once: libraries pick another kernel for a product of
few rows, and a vectorised GELU computes the tail of a chunk with other instructions than the rest. An embedding would
then depend on what its image was packed with. So a kernel states in `row_multiple` how many rows it needs (the caller
adds filler rows), and computes activations in a way that does not depend on an element's position.

Knows nothing of segments.
"""

import logging
import sys
from collections.abc import Iterator
from typing import Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.kernels.hardware import has_native_bfloat16

# Measured for float32 and bfloat16 at 1 to 7 threads: oneDNN's rows are stable from 2 rows on, MKL's from 12.
_CPU_ROW_MULTIPLE = 16
# glibc's malloc takes fresh pages for every block of 32 MiB or more: page faults took a tenth of a forward.
_CPU_BYTES_AT_ONCE = 24 * 2**20
# oneDNN blocks weights for this number of rows. Any other number works too.
_USUAL_ROWS = 4096

# GELU in its tanh form, GELU itself, and x * sigmoid(x).
Activation = Literal["none", "gelu_tanh", "gelu", "silu"]

# oneDNN's names: the operation, and its algorithm if it has several.
_ONEDNN: dict[Activation, tuple[str, str]] = {
    "none": ("none", ""),
    "gelu_tanh": ("gelu", "tanh"),
    "gelu": ("gelu", "none"),
    "silu": ("swish", ""),
}

_log = logging.getLogger(__name__)


class LinearKernel(Protocol):
    """`x @ weight.T + bias`, then the activation.

    x: `[rows, in]`, weight: `[out, in]`, bias: `[out]` or None, all of one dtype; returns `[rows, out]`. A row's bits
    are stable if the number of rows is a multiple of `row_multiple`, and a prepared weight gives the same bits as the
    weight itself. Results work best up to `bytes_at_once`.
    """

    row_multiple: int
    bytes_at_once: int

    def prepare_weight(self, weight: Tensor) -> Tensor:
        """The weight in the form that this kernel reads fastest. It will not change any more."""

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None, activation: Activation) -> Tensor: ...


class OneDnnKernel:
    """oneDNN's inner product with a fused activation: float32, and bfloat16 on CPUs that multiply it natively."""

    row_multiple = _CPU_ROW_MULTIPLE
    bytes_at_once = _CPU_BYTES_AT_ONCE

    def prepare_weight(self, weight: Tensor) -> Tensor:
        """Pre-blocked; otherwise oneDNN re-blocks it on every call."""
        blocked: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, _USUAL_ROWS)
        return blocked

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None, activation: Activation) -> Tensor:
        operation, algorithm = _ONEDNN[activation]
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, operation, [], algorithm)
        return out


class PlainCpuKernel:
    """PyTorch's own linear, computed in float32 in every dtype.

    If a CPU only emulates a narrower dtype, the bits of its products change with the number of rows, and those of its
    activations with the position of an element in a chunk.
    """

    row_multiple = _CPU_ROW_MULTIPLE
    bytes_at_once = _CPU_BYTES_AT_ONCE

    def prepare_weight(self, weight: Tensor) -> Tensor:
        """Converted to float32 once, which doubles the memory of 16-bit weights.

        Converting on every call took 2 to 14 % of the forward of a base model (on one thread).
        """
        return weight.float()

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None, activation: Activation) -> Tensor:
        y = F.linear(x.float(), weight.float(), None if bias is None else bias.float())
        return _activate_in_passes(y, activation).to(x.dtype)


class PlainKernel:
    """PyTorch's own linear, for devices other than a CPU. Promises nothing about bits."""

    row_multiple = 1
    bytes_at_once = sys.maxsize

    def prepare_weight(self, weight: Tensor) -> Tensor:
        return weight

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None, activation: Activation) -> Tensor:
        y = F.linear(x, weight, bias)
        if activation == "none":
            return y
        if activation == "silu":
            return F.silu(y)
        return F.gelu(y, approximate="tanh" if activation == "gelu_tanh" else "none")


def _activate_in_passes(x: Tensor, activation: Activation) -> Tensor:
    """The activation in separate passes, each of which rounds an element the same way at any position. x: float32."""
    if activation == "none":
        return x
    if activation == "gelu":
        return 0.5 * x * (1.0 + torch.erf(x * 0.7071067811865476))
    if activation == "gelu_tanh":
        return 0.5 * x * (1.0 + torch.tanh(x * (0.7978845608028654 + 0.035677408136300125 * x * x)))
    # By tanh, since PyTorch's sigmoid rounds the tail of a chunk differently.
    return 0.5 * x * (1.0 + torch.tanh(0.5 * x))


def choose_linear(device: torch.device, dtype: torch.dtype) -> LinearKernel:
    """The kernel for a device and dtype, chosen once when a model is loaded."""
    if device.type != "cpu":
        return PlainKernel()
    if _onednn_has(dtype):
        return OneDnnKernel()
    if dtype != torch.float32:
        _log.warning("this CPU only emulates %s: dtype float32 is faster and its weights are no larger here", dtype)
    return PlainCpuKernel()


def _onednn_has(dtype: torch.dtype) -> bool:
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and has_native_bfloat16())


class Linear(nn.Module):
    """A linear layer, optionally with an activation after it, computed by the kernel it is given."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        kernel: LinearKernel,
        activation: Activation = "none",
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_features, in_features), requires_grad=False)
        self.bias = nn.Parameter(torch.empty(out_features), requires_grad=False) if bias else None
        self._kernel = kernel
        self._activation: Activation = activation

    def forward(self, x: Tensor) -> Tensor:
        return self._kernel(x, self.weight, self.bias, self._activation)

    def prepare(self) -> None:
        """Prepares the weight for the kernel. Call it once the weight is on its device in its dtype; the weight cannot
        be read after that."""
        self.weight = nn.Parameter(self._kernel.prepare_weight(self.weight), requires_grad=False)


def activate(x: Tensor, activation: Activation) -> Tensor:
    """An activation apart from its layer. An element's bits do not depend on its place. x: any dtype, and returned."""
    return x if activation == "none" else _activate_in_passes(x.float(), activation).to(x.dtype)


def pad_rows(x: Tensor, row_multiple: int) -> Tensor:
    """`x` `[rows, ...]` with zero rows appended up to a multiple of `row_multiple` rows."""
    missing = -len(x) % row_multiple
    return torch.cat([x, x.new_zeros(missing, *x.shape[1:])]) if missing else x


def row_blocks(x: Tensor, kernel: LinearKernel, width: int, dtype: torch.dtype) -> Iterator[slice]:
    """Slices that cover the rows of `x` in order, each small enough for the kernel at a result `width` wide."""
    at_once = max(1, kernel.bytes_at_once // (width * dtype.itemsize) // kernel.row_multiple) * kernel.row_multiple
    for start in range(0, len(x), at_once):
        yield slice(start, min(start + at_once, len(x)))
