"""The text encoder: rows of texts and soft tokens in, one vector a document out.

Equal to Transformers' `EmbeddingGemma2TextModel` with the mean over all rows that sentence-transformers takes after it.
Knows no image, no tokenizer and no file. Axes: R rows of the sequence (filler included), S documents, D width, E width
of an embedding, d width of a head.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from model.encoders.gemma.layers import GemmaBlock, LayerShape, StreamNorm
from model.encoders.parts.tower import segment_means
from model.kernels.attention import Attention, Segments
from model.kernels.linear import Linear, LinearKernel, pad_rows


@dataclass(frozen=True, slots=True)
class TextLayer:
    """window: tokens that each attends to on either side; None for all. theta: base of its rotary frequencies."""

    shape: LayerShape
    window: int | None
    theta: float

    @property
    def kind(self) -> tuple[int | None, float, int]:
        """Layers of one kind share segments and rotations."""
        return self.window, self.theta, self.shape.head_width


@dataclass(frozen=True, slots=True, eq=False)
class TextArrangement:
    """segments, rotations: of each kind of layer; a rotation is float32 `[R, d]`."""

    segments: dict[tuple[int | None, float, int], Segments]
    rotations: dict[tuple[int | None, float, int], Tensor]


class RotaryLine:
    """Rotations of positions on a line: pair i of d/2 turns by position / theta^(2i/d)."""

    def __init__(self, head_width: int, theta: float, *, device: torch.device) -> None:
        # On the host, though modules are made on the meta device.
        pairs = torch.arange(0, head_width, 2, dtype=torch.float32, device="cpu")
        self._frequencies = 1.0 / (theta ** (pairs / head_width))
        self._table, self._device = torch.empty(0, device="cpu"), device

    def of(self, positions: NDArray[np.int64]) -> Tensor:
        """float32 `[T, d]` on the device: cosines, then sines."""
        if len(self._table) <= (highest := int(positions.max())):
            angles = torch.arange(max(1024, 2 * highest), dtype=torch.float32)[:, None] * self._frequencies
            # In float64: rounding to float32 then hides what a vectorised cosine does to the last bit.
            angles = angles.double()
            self._table = torch.cat([angles.cos(), angles.sin()], dim=1).float().to(self._device)
        rotation: Tensor = self._table[torch.from_numpy(positions).to(self._device)]
        return rotation


class GemmaText(nn.Module):
    """From the rows of documents to their vectors."""

    def __init__(
        self, layers: Sequence[TextLayer], *, vocabulary: int, out_width: int, attentions: Sequence[Attention],
        kernel: LinearKernel, device: torch.device,
    ) -> None:  # fmt: skip
        """attentions: of each layer, since widths of heads differ."""
        super().__init__()
        shape = layers[0].shape
        self.tokens = nn.Parameter(torch.empty(vocabulary, shape.width), requires_grad=False)
        self.blocks = nn.ModuleList(
            GemmaBlock(layer.shape, attention, kernel) for layer, attention in zip(layers, attentions, strict=True)
        )
        self.norm = StreamNorm(shape.width, eps=shape.eps)
        self.project = Linear(shape.width, out_width, kernel=kernel, bias=False)
        self._layers, self._device, self._row_multiple = layers, device, kernel.row_multiple
        self._rotary = {layer.kind: RotaryLine(layer.shape.head_width, layer.theta, device=device) for layer in layers}

    def arrange(self, cu_seqlens: NDArray[np.int32]) -> TextArrangement:
        """cu_seqlens: int32 `[S+1]` of the documents' rows."""
        lengths = np.diff(cu_seqlens)
        places = np.arange(cu_seqlens[-1]) - np.repeat(cu_seqlens[:-1], lengths)
        whole = Segments.at(cu_seqlens, int(lengths.max()), self._device)
        return TextArrangement(
            segments={kind: replace(whole, window=kind[0]) for kind in self._rotary},
            rotations={kind: pad_rows(line.of(places), self._row_multiple) for kind, line in self._rotary.items()},
        )

    def embedded(self, ids: Tensor) -> Tensor:
        """float32 `[..., D]`: the rows of ids, int32."""
        scale: float = self.tokens.shape[1] ** 0.5
        return F.embedding(ids, self.tokens).float() * scale

    def forward(self, x: Tensor, arrangement: TextArrangement) -> tuple[Tensor, Tensor]:
        """x: float32 `[rows, D]`, overwritten. Returns vectors of documents, float32 `[S, E]`, and normalised rows,
        float32 `[R, D]`, for `projected` to make token vectors from."""
        x = pad_rows(x, self._row_multiple)
        began = x.to(self.norm.weight.dtype)
        if began is x:
            began = x.clone()
        for layer, block in zip(self._layers, self.blocks, strict=True):
            block(x, arrangement.segments[layer.kind], arrangement.rotations[layer.kind], began)
        rows = self.norm(x)
        means = segment_means(rows, next(iter(arrangement.segments.values())).offsets)
        return self.projected(means), rows

    def projected(self, rows: Tensor) -> Tensor:
        """float32 `[n, E]` of float32 `[n, D]`."""
        narrow = pad_rows(rows.to(self.norm.weight.dtype), self._row_multiple)
        return self.project(narrow)[: len(rows)].float()  # type: ignore[no-any-return]
