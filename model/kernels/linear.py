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
from typing import Any, Protocol, Self, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.kernels.activations import Activation, activate_
from model.kernels.hardware import has_avx512, has_native_bfloat16
from model.kernels.int8 import Int8Weight, int8_product

# Measured for float32 and bfloat16 at 1 to 7 threads: oneDNN's rows are stable from 2 rows on, MKL's from 12.
_CPU_ROW_MULTIPLE = 16
# glibc's malloc takes fresh pages for every block of 32 MiB or more: page faults took a tenth of a forward.
_CPU_BYTES_AT_ONCE = 24 * 2**20
# 16-bit results for each thread: the passes around an 8-bit product then stay in the caches.
_INT8_BYTES_AT_ONCE = 2**22
# MKL's columns are computed alike, for any number of threads, where a layer has a multiple of these (1 to 96 threads).
_MKL_COLUMNS = 16
# oneDNN blocks weights for this number of rows. Any other number works too.
_USUAL_ROWS = 4096

# oneDNN's names: the operation, and its algorithm if it has several.
_ONEDNN: dict[Activation, tuple[str, str]] = {
    "none": ("none", ""),
    "gelu_tanh": ("gelu", "tanh"),
    "gelu": ("gelu", "none"),
    "silu": ("swish", ""),
}

_log = logging.getLogger(__name__)

Weight = TypeVar("Weight")
"""What a kernel makes of a weight: a tensor, or one with scales."""


class Kernel(Protocol[Weight]):
    """`x @ weight.T + bias`, then the activation.

    x: `[rows, in]`, weight: `[out, in]`, bias: `[out]` or None, all of one dtype; returns `[rows, out]` of that dtype.
    A row's bits are stable if the number of rows is a multiple of `row_multiple`, and a prepared weight gives the same
    bits as the weight itself. Results work best up to `bytes_at_once`. in_blocks: the kernel of the layers inside
    blocks, of the same `row_multiple`. takes_float32: x is best float32, whatever the dtype of weights, and float32 is
    returned.
    """

    row_multiple: int
    takes_float32: bool

    @property
    def bytes_at_once(self) -> int: ...
    @property
    def in_blocks(self) -> "Kernel[Any]": ...

    def prepare_weight(self, weight: Tensor) -> Weight:
        """The weight in the form that this kernel reads fastest. It will not change any more."""

    def __call__(self, x: Tensor, weight: Weight, bias: Tensor | None, activation: Activation) -> Tensor: ...


LinearKernel = Kernel[Any]


class _SameInBlocks:
    takes_float32 = False

    @property
    def in_blocks(self) -> Self:
        return self


class OneDnnKernel(_SameInBlocks):
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


class PlainCpuKernel(_SameInBlocks):
    """PyTorch's own linear in float32, for machines without oneDNN. With MKL it is `MklKernel`."""

    row_multiple = _CPU_ROW_MULTIPLE
    bytes_at_once = _CPU_BYTES_AT_ONCE

    def prepare_weight(self, weight: Tensor) -> Tensor:
        """In memory of its own: it may be a view of a file, whose pages would stay and might change."""
        return weight.clone(memory_format=torch.contiguous_format)

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None, activation: Activation) -> Tensor:
        return activate_(F.linear(x, weight, bias), activation)


class MklKernel(PlainCpuKernel):
    """MKL's float32, for CPUs with AVX2 alone: there oneDNN takes 1.15 times as long, and 1.6 times with a GELU.

    Three threads or more share the columns of a narrow layer, and MKL computes the last columns of a share with other
    instructions. So oneDNN takes layers whose width is no multiple of 16.
    """

    def __init__(self) -> None:
        self._of_ragged = OneDnnKernel()

    def prepare_weight(self, weight: Tensor) -> Tensor:
        return self._of_ragged.prepare_weight(weight) if _is_ragged(weight) else super().prepare_weight(weight)

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None, activation: Activation) -> Tensor:
        if _is_ragged(weight):
            return self._of_ragged(x, weight, bias, activation)
        return super().__call__(x, weight, bias, activation)


def _is_ragged(weight: Tensor) -> bool:
    return weight.shape[0] % _MKL_COLUMNS != 0


class WideningKernel(_SameInBlocks):
    """Another kernel's float32 for a dtype that the CPU only emulates.

    Emulated, the bits of a product change with the number of rows, and those of an activation with the position of an
    element in a chunk.
    """

    def __init__(self, inner: Kernel[Tensor]) -> None:
        self._inner = inner
        self.row_multiple = inner.row_multiple

    @property
    def bytes_at_once(self) -> int:
        return self._inner.bytes_at_once

    def prepare_weight(self, weight: Tensor) -> Tensor:
        """Converted to float32 once, which doubles the memory of 16-bit weights.

        Converting on every call took 2 to 14 % of the forward of a base model (on one thread).
        """
        return self._inner.prepare_weight(weight.float())

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None, activation: Activation) -> Tensor:
        y = self._inner(x.float(), weight.float(), None if bias is None else bias.float(), activation)
        return y.to(x.dtype)


class Int8Kernel(_SameInBlocks):
    """Products of 8-bit integers in oneDNN, on CPUs with VNNI. x: of any float dtype; returns float32."""

    row_multiple = _CPU_ROW_MULTIPLE
    takes_float32 = True

    @property
    def bytes_at_once(self) -> int:
        return _INT8_BYTES_AT_ONCE * torch.get_num_threads()

    def prepare_weight(self, weight: Tensor) -> Int8Weight:
        return Int8Weight.of(weight)

    def __call__(self, x: Tensor, weight: Int8Weight, bias: Tensor | None, activation: Activation) -> Tensor:
        return activate_(int8_product(x, weight, bias), activation)


class Int8InBlocks(OneDnnKernel):
    """8-bit integers inside blocks, where nearly all products are. Patches, heads and pooling are as without it."""

    def __init__(self) -> None:
        self._in_blocks = Int8Kernel()

    @property
    def in_blocks(self) -> Int8Kernel:  # type: ignore[override]
        return self._in_blocks


class PlainKernel(_SameInBlocks):
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


def choose_linear(device: torch.device, dtype: torch.dtype, *, int8: bool = False) -> LinearKernel:
    """The kernel for a device and dtype, chosen once when a model is loaded. int8: `choose_dtype` has allowed it."""
    if device.type != "cpu":
        return PlainKernel()
    if int8:
        return Int8InBlocks()
    kernel = _float32_kernel()
    if dtype == torch.float32:
        return kernel
    if dtype == torch.bfloat16 and has_native_bfloat16() and _has_onednn():
        return OneDnnKernel()
    _log.warning("this CPU only emulates %s: dtype float32 is faster and its weights are no larger here", dtype)
    return WideningKernel(kernel)


def _float32_kernel() -> Kernel[Tensor]:
    if not _has_onednn():
        return PlainCpuKernel()
    return MklKernel() if _has_mkl() and not has_avx512() else OneDnnKernel()


def _has_mkl() -> bool:
    return bool(torch.backends.mkl.is_available())  # type: ignore[no-untyped-call]


def _has_onednn() -> bool:
    return bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]


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
        self._prepared: Int8Weight | None = None

    def forward(self, x: Tensor) -> Tensor:
        return self._kernel(x, self._prepared or self.weight, self.bias, self._activation)

    def prepare(self) -> None:
        """Prepares the weight for the kernel. Call it once the weight is on its device in its dtype; the weight cannot
        be read after that."""
        prepared = self._kernel.prepare_weight(self.weight)
        if isinstance(prepared, Tensor):
            self.weight = nn.Parameter(prepared, requires_grad=False)
        else:
            self._prepared, self.weight = prepared, None  # type: ignore[assignment]


def pad_rows(x: Tensor, row_multiple: int) -> Tensor:
    """`x` `[rows, ...]` with zero rows appended up to a multiple of `row_multiple` rows."""
    missing = -len(x) % row_multiple
    return torch.cat([x, x.new_zeros(missing, *x.shape[1:])]) if missing else x


def row_blocks(x: Tensor, kernel: LinearKernel, width: int, dtype: torch.dtype) -> Iterator[slice]:
    """Slices that cover the rows of `x` in order, each small enough for the kernel at a result `width` wide."""
    at_once = max(1, kernel.bytes_at_once // (width * dtype.itemsize) // kernel.row_multiple) * kernel.row_multiple
    for start in range(0, len(x), at_once):
        yield slice(start, min(start + at_once, len(x)))
