"""The interface of every family's text tower, and the one module that computes them all.

A family is a `TextConfig`: its shape, the names of its tensors, and which tokens decide a vector. The vector is made of
the last of them. Knows no family, no tokenizer and no checkpoint file.

Axes: T tokens of a pack, S texts, R rows (T and filler), D width, E width of an embedding.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from model.encoders.parts.blocks import Blocks, Norm
from model.encoders.parts.fields import Fields, block_fields
from model.encoders.parts.tensors import (
    ACTIVATIONS,
    Shapes,
    activation_weights,
    block_shapes,
    block_weights,
    hidden_act,
    norm_shapes,
    renamed,
)
from model.kernels.attention import Attention, Segments
from model.kernels.linear import Linear, LinearKernel, pad_rows
from model.pack import PackedTexts

_TOKENS, _POSITIONS = "embeddings.token_embedding.weight", "embeddings.position_embedding.weight"


@dataclass(frozen=True, slots=True, kw_only=True)
class TextConfig(ABC):
    """The shape of a text tower.

    width: D. eps: of the layer norms. hidden_act: Transformers' name. vocabulary: ids are below it. context: the most
    tokens of a text. projection_width: of an embedding; None without a projection.
    """

    width: int
    depth: int
    heads: int
    mlp_width: int
    eps: float
    hidden_act: str
    vocabulary: int
    context: int
    projection_width: int | None

    causal: ClassVar[bool]
    projection: ClassVar[str]
    """The projection's name in a checkpoint."""
    projection_bias: ClassVar[bool]

    @property
    def embedding_width(self) -> int:
        return self.projection_width or self.width

    @abstractmethod
    def used(self, texts: PackedTexts) -> NDArray[np.int64]:
        """How many of each text's first tokens decide its vector, `[S]`. The rest need not be computed."""

    def longest(self) -> NDArray[np.int32]:
        """The ids of a text that takes the whole context."""
        return np.zeros(self.context, dtype=np.int32)

    def checkpoint_shapes(self) -> Shapes:
        """The shape of every tensor of the text tower in a checkpoint, by its name without the key prefix."""
        d, e = self.width, self.projection_width
        shapes: Shapes = {_TOKENS: (self.vocabulary, d), _POSITIONS: (self.context, d)}
        shapes |= block_shapes(self) | norm_shapes("final_layer_norm", d)
        if e:
            shapes[f"{self.projection}.weight"] = (e, d)
        if e and self.projection_bias:
            shapes[f"{self.projection}.bias"] = (e,)
        return shapes

    def tower_weights(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The state of a `TextTower`, from the tensors that `checkpoint_shapes` names."""
        weights = {"tokens": tensors[_TOKENS]} | renamed(tensors, {"norm": "final_layer_norm"})
        weights |= block_weights(tensors, self.depth)
        for part in ("weight", "bias"):
            if f"{self.projection}.{part}" in tensors:
                weights[f"projection.{part}"] = tensors[f"{self.projection}.{part}"]
        return activation_weights(weights, self.depth, self.hidden_act)

    def positions(self, tensors: Mapping[str, Tensor], device: torch.device) -> Tensor:
        """float32 `[context, D]` on the device."""
        return tensors[_POSITIONS].to(device, torch.float32)


def text_fields(text: Fields) -> dict[str, Any]:
    """The fields of `TextConfig` but for the projection."""
    return block_fields(text) | {
        "hidden_act": hidden_act(text),
        "vocabulary": text.count("vocab_size"),
        "context": text.count("max_position_embeddings"),
    }


@dataclass(frozen=True, slots=True, eq=False)
class TextArrangement:
    """A pack of texts as the sequence that the blocks see. The host has decided every integer in it.

    ids, places: int32 and int64 `[T]` on the device, each token's id and its number in its text.
    """

    segments: Segments
    ids: Tensor
    places: Tensor


class TextTower(nn.Module):
    """From packed ids to one vector a text, that of its last token.

    The last block computes only the rows of those tokens after attention.
    """

    def __init__(self, config: TextConfig, *, positions: Tensor, attention: Attention, kernel: LinearKernel) -> None:
        """positions: as from `TextConfig.positions`."""
        super().__init__()
        self.tokens = nn.Parameter(torch.empty(config.vocabulary, config.width), requires_grad=False)
        self.blocks = Blocks(config, attention=attention, kernel=kernel, activation=ACTIVATIONS[config.hidden_act])
        self.norm = Norm(config.width, eps=config.eps)
        self.projection = (
            Linear(config.width, config.projection_width, kernel=kernel, bias=config.projection_bias)
            if config.projection_width
            else None
        )
        self._causal = config.causal
        self._positions = positions
        self._row_multiple = kernel.row_multiple

    def arrange(self, texts: PackedTexts) -> TextArrangement:
        device = self._positions.device
        starts = np.repeat(texts.cu_seqlens[:-1], np.diff(texts.cu_seqlens))
        return TextArrangement(
            segments=Segments.at(texts.cu_seqlens, texts.max_seqlen, device, causal=self._causal),
            ids=torch.from_numpy(texts.ids).to(device),
            places=torch.from_numpy(np.arange(texts.tokens) - starts).to(device),
        )

    def forward(self, arrangement: TextArrangement) -> Tensor:
        """float32 `[S, E]`, not normalised."""
        x = F.embedding(arrangement.ids, self.tokens).float() + self._positions.index_select(0, arrangement.places)
        count = arrangement.segments.count
        ends = self.blocks.ends(pad_rows(x, self._row_multiple), arrangement.segments)
        if self.projection is None:
            return self.norm.in_float32(ends)[:count]
        return self.projection(self.norm(ends))[:count].float()  # type: ignore[no-any-return]

    def filler_rows(self, tokens: int) -> int:
        """Rows that belong to no text, computed because the linear kernel asks for a multiple."""
        return -tokens % self._row_multiple
