"""Products of 8-bit integers: one scale for each row of the input, one for each channel of the weight.

A scale a row keeps an image's vector independent of its pack: a scale a call would be that of the largest row in it.
Products and sums are exact (VNNI adds products in 32 bits), so is the greatest value of a row, and every other step
rounds an element by itself: a row has the same bits beside any others. Needs a CPU with VNNI.
"""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

# -128 is left out, so that steps are the same for either sign.
_LARGEST = 127.0
# oneDNN's fast product takes unsigned rows (signed ones with weights packed ahead run in its reference code, thousands
# of times as slow). So rows are stored with this added, and the bias takes what it adds to the sums away.
_OFFSET = 128
# Floats from here to twice as much have no fraction, and this one's lowest 8 bits are zeros.
_WHOLE = 1.5 * 2**23
# A row with nothing greater counts as zeros: the inverse of its step would not be finite.
_LEAST = 1e-30


@dataclass(frozen=True, slots=True, eq=False)
class Int8Weight:
    """packed: int8 `[in, out]` in a layout of oneDNN's. scales: float32 `[out]`, the step of each channel. excess:
    float32 `[out]`, what the offset of the rows adds, negated. zeros: int32 `[out]`, which oneDNN asks for."""

    packed: Tensor
    scales: Tensor
    excess: Tensor
    zeros: Tensor

    @classmethod
    def of(cls, weight: Tensor) -> Self:
        """weight: float `[out, in]`. A channel with a number that is not finite gives results that are not finite."""
        channels, scales = _steps(weight.float())
        scales, excess = scales.flatten(), channels.sum(1, dtype=torch.float32).mul_(-_OFFSET)
        packed = torch.ops.onednn.qlinear_prepack(channels, None)
        return cls(packed, scales, excess.mul_(scales), torch.zeros(len(weight), dtype=torch.int32))

    def sums(self, rows: Tensor) -> Tensor:
        """The sums of products with rows of `int8_rows`, times each channel's scale: float32 `[rows, out]`."""
        sums: Tensor = torch.ops.onednn.qlinear_pointwise(
            rows, 1.0, 0, self.packed, self.scales, self.zeros, self.excess, 1.0, 0, torch.float32, "none", [], ""
        )  # fmt: skip
        return sums


def int8_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """x in steps of its own for each row: uint8 of its shape, 128 for zero, and float32 `[rows, 1]`, the steps.

    x: float `[rows, in]`.
    """
    rows, scales = _steps(x.float(), offset=_OFFSET)
    return rows.view(torch.uint8), scales


def _steps(x: Tensor, *, offset: int = 0) -> tuple[Tensor, Tensor]:
    """int8 of the shape of x, a number of steps and the offset, in 8 bits; and each row's step. x: float32."""
    largest = torch.maximum(x.amax(1, keepdim=True), x.amin(1, keepdim=True).neg_()).clamp_(min=_LEAST)
    # The sum is rounded to a whole number, and its lowest bits are the integer: fewer passes than `round` takes.
    shifted = torch.addcmul(torch.tensor(_WHOLE + offset), x, _LARGEST / largest)
    return shifted.view(torch.int32).to(torch.int8), largest.div_(_LARGEST)


def int8_product(x: Tensor, weight: Int8Weight, bias: Tensor | None) -> Tensor:
    """`x @ weight.T + bias`: float32 `[rows, out]`. x: float `[rows, in]`, bias: float `[out]`."""
    rows, scales = int8_rows(x)
    y = weight.sums(rows)
    return y.mul_(scales) if bias is None else torch.addcmul(bias.float(), y, scales, out=y)
