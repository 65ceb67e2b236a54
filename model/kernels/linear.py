"""Linear layers whose every row comes out the same, on a CPU, whatever other rows stand beside it.

On a CPU the bits of a row can depend on how many rows are multiplied at once: a library picks another kernel for a
product of few rows, and a vectorised GELU computes the tail of its chunk by other instructions than the rest. Both
would make an embedding depend on what its image was packed with. Hence a kernel says in `row_multiple` how many rows
it must be given (filler rows make up the difference), and applies activations in a form that does not see positions.

Knows nothing of segments: every row is on its own here.
"""

import sys
from collections.abc import Iterator
from typing import Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.kernels.hardware import has_native_bfloat16

# Measured for float32 and bfloat16 at 1 to 7 threads: oneDNN's rows are stable from 2 rows on, MKL's from 12.
_CPU_ROW_MULTIPLE = 16
# Below the size from which glibc's malloc gets fresh pages for every block (32 MiB): faults took a tenth of a forward.
_CPU_BYTES_AT_ONCE = 24 * 2**20
# What weights are prepared for; any number of rows may come.
_USUAL_ROWS = 4096

# GELU in its tanh form, GELU itself, and x * sigmoid(x).
Activation = Literal["none", "gelu_tanh", "gelu", "silu"]

# What oneDNN calls them: the operation, and the algorithm where it has several.
_ONEDNN: dict[Activation, tuple[str, str]] = {
    "none": ("none", ""),
    "gelu_tanh": ("gelu", "tanh"),
    "gelu": ("gelu", "none"),
    "silu": ("swish", ""),
}


class LinearKernel(Protocol):
    """`x @ weight.T + bias`, then the activation.

    x: `[rows, in]`, weight: `[out, in]`, bias: `[out]` or None, all of one dtype; returns `[rows, out]`. Bits of a row
    are promised to be stable when the number of rows is a multiple of `row_multiple`, and to be the same with a weight
    as it is and a prepared weight. Results do best with at most `bytes_at_once`.
    """

    row_multiple: int
    bytes_at_once: int

    def prepare_weight(self, weight: Tensor) -> Tensor:
        """The weight as this kernel reads it best, for a model that will not change any more."""

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None, activation: Activation) -> Tensor: ...


class OneDnnKernel:
    """oneDNN's inner product, activation fused into it: float32, and bfloat16 on CPUs that multiply it natively."""

    row_multiple = _CPU_ROW_MULTIPLE
    bytes_at_once = _CPU_BYTES_AT_ONCE

    def prepare_weight(self, weight: Tensor) -> Tensor:
        """In blocks, which oneDNN would else make anew in every call."""
        blocked: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, _USUAL_ROWS)
        return blocked

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None, activation: Activation) -> Tensor:
        operation, algorithm = _ONEDNN[activation]
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, operation, [], algorithm)
        return out


class PlainCpuKernel:
    """PyTorch's own linear, computed in float32 whatever the dtype.

    Where a CPU only emulates a narrower dtype, the bits of its products change with the number of rows, and those of
    its activations with the place of an element in a chunk.
    """

    row_multiple = _CPU_ROW_MULTIPLE
    bytes_at_once = _CPU_BYTES_AT_ONCE

    def prepare_weight(self, weight: Tensor) -> Tensor:
        return weight

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None, activation: Activation) -> Tensor:
        y = F.linear(x.float(), weight.float(), None if bias is None else bias.float())
        return _activate_in_passes(y, activation).to(x.dtype)


class PlainKernel:
    """PyTorch's own linear, for devices that are not a CPU. Makes no promise about bits."""

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
    """The activation as separate passes, each of which rounds an element alike wherever it lies. x: float32."""
    if activation == "none":
        return x
    if activation == "gelu":
        return 0.5 * x * (1.0 + torch.erf(x * 0.7071067811865476))
    if activation == "gelu_tanh":
        return 0.5 * x * (1.0 + torch.tanh(x * (0.7978845608028654 + 0.035677408136300125 * x * x)))
    # By tanh: PyTorch's sigmoid rounds the tail of a chunk unlike the rest.
    return 0.5 * x * (1.0 + torch.tanh(0.5 * x))


def choose_linear(device: torch.device, dtype: torch.dtype) -> LinearKernel:
    """The kernel for a device and dtype, chosen once when a model is loaded."""
    if device.type != "cpu":
        return PlainKernel()
    return OneDnnKernel() if _onednn_has(dtype) else PlainCpuKernel()


def _onednn_has(dtype: torch.dtype) -> bool:
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and has_native_bfloat16())


class Linear(nn.Module):
    """A linear layer, with an activation after it where asked, computed by the kernel it was given."""

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
        """Prepares the weight for the kernel, once it is on its device in its dtype. It cannot be read after that."""
        self.weight = nn.Parameter(self._kernel.prepare_weight(self.weight), requires_grad=False)


def pad_rows(x: Tensor, row_multiple: int) -> Tensor:
    """`x` with zero rows after its own, up to a multiple of `row_multiple` rows. x: `[rows, ...]`."""
    missing = -len(x) % row_multiple
    return torch.cat([x, x.new_zeros(missing, *x.shape[1:])]) if missing else x


def row_blocks(x: Tensor, kernel: LinearKernel, width: int, dtype: torch.dtype) -> Iterator[slice]:
    """Slices that together are all rows of `x`, in order: for each the result, `width` wide, is small enough."""
    at_once = max(1, kernel.bytes_at_once // (width * dtype.itemsize) // kernel.row_multiple) * kernel.row_multiple
    for start in range(0, len(x), at_once):
        yield slice(start, min(start + at_once, len(x)))
