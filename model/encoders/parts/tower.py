"""The interface of every family of encoders, so that one runner and one loader serve them all.

A family is an `EncoderConfig` (its shape, the names of its tensors, how its pictures are prepared) and an `Encoder` (a
module from patch rows to vectors). Knows no family.

Axes: T image tokens of a pack, S segments, R rows of the blocks' sequence (class tokens included), D width, E width of
an embedding.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from model.encoders.parts.arrangement import Arrangement, Positions, PrefixedArrangement
from model.encoders.parts.fields import Fields, block_fields
from model.encoders.parts.preprocessing import Preprocessing
from model.errors import CheckpointError
from model.kernels.attention import Attention
from model.kernels.linear import Linear, LinearKernel, pad_rows
from model.pack import PackedBatch, PackedDocuments

Pooling = Literal["cls", "mean"]
"""What an embedding is, in a family that leaves the choice: the class token, or the mean of the image tokens."""
LanguagePositions = Literal["mrope", "sequence", "rows"]
"""Time, row and column of each token; one token after another; or the same with one text token after each row."""


@dataclass(frozen=True, slots=True, eq=False)
class EncoderOutput:
    """tokens: `[T, D]`, image tokens only, in the order of the pack; merged tokens if the family merges. pooled:
    `[S, E]`, not normalised.

    filler_rows: rows that belong to no image, computed because the linear kernel asks for a multiple.
    """

    tokens: Tensor
    pooled: Tensor
    filler_rows: int


class Encoder(nn.Module, ABC):
    """A vision tower over packed patches."""

    @abstractmethod
    def arrange(self, batch: PackedBatch) -> Arrangement:
        """The part of a forward of `batch` that the host decides, already on the device."""

    @abstractmethod
    def forward(self, patches: Tensor, arrangement: Arrangement) -> EncoderOutput:
        """patches: `[T, 3*P*P]` normalised, in the dtype of the weights. Asks the device nothing."""


class DocumentEncoder(Encoder):
    """A vision tower and a text encoder behind it, over packed documents. A segment of a `PackedBatch` is one too."""

    @abstractmethod
    def arrange_documents(self, documents: PackedDocuments) -> Arrangement:
        """As `arrange`. The patches of the forward are then those of all pictures, no rows without any."""


def segment_means(tokens: Tensor, offsets: Sequence[int]) -> Tensor:
    """The mean of each segment's tokens: float32 `[S, D]`. offsets: `[S+1]`, in tokens.

    One by one: the bits of a batched sum could depend on where a segment lies in the pack.
    """
    return torch.stack([tokens[start:end].float().mean(0) for start, end in pairwise(offsets)])


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderConfig(ABC):
    """The shape of an encoder. width: D. eps: of the layer norms."""

    width: int
    depth: int
    heads: int
    mlp_width: int
    patch_size: int
    eps: float

    encoder_type: ClassVar["type[Tower]"]

    @property
    def language_positions(self) -> LanguagePositions | None:
        """How a language model counts the tokens; None if none takes them as they are."""
        return None

    @property
    def head_width(self) -> int:
        """Values of a head, d."""
        return self.width // self.heads

    @property
    def patch_width(self) -> int:
        """Values of one patch row: three channels."""
        return 3 * self.patch_size**2

    @property
    def embedding_width(self) -> int:
        """Values of a pooled vector."""
        return self.width

    @property
    def token_width(self) -> int:
        """Values of a token's vector in the output."""
        return self.width

    @property
    def chosen_pooling(self) -> Pooling | None:
        """None in a family that leaves no choice."""
        return None

    def pooled_by(self, pooling: Pooling) -> "EncoderConfig":
        """The same encoder with that pooling. Raises `CheckpointError` in a family that leaves no choice."""
        raise CheckpointError(f"pooling is {pooling}; this model leaves no choice of how its embeddings are pooled")

    @abstractmethod
    def preprocessing(self, fields: Fields) -> Preprocessing:
        """How pictures are prepared. fields: of preprocessor_config.json, empty without that file."""

    @abstractmethod
    def checkpoint_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every tensor of the vision tower in a checkpoint, by its name without the key prefix."""

    @abstractmethod
    def encoder_weights(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The state of the encoder, from the tensors that `checkpoint_shapes` names."""

    @abstractmethod
    def positions(self, tensors: Mapping[str, Tensor], device: torch.device) -> Positions:
        """The position embeddings among those tensors."""

    def encoder(
        self, *, positions: Positions, attention: Attention, kernel: LinearKernel, features_after: int | None
    ) -> Encoder:
        """An encoder whose parameters have no values yet. features_after: as in `Blocks`."""
        return self.encoder_type(self, Setup(positions, attention, kernel, features_after))


@dataclass(frozen=True, slots=True)
class Setup:
    """What an encoder computes with, apart from its weights. features_after: as in `Blocks`."""

    positions: Positions
    attention: Attention
    kernel: LinearKernel
    features_after: int | None


class Tower(Encoder):
    """What every family's encoder begins with: the patch embedding.

    The residual stream is float32 in every dtype: bfloat16 sums lose more accuracy than all products together.
    """

    def __init__(self, config: EncoderConfig, setup: Setup, *, patch_bias: bool = True) -> None:
        super().__init__()
        self.patch = Linear(config.patch_width, config.width, kernel=setup.kernel, bias=patch_bias)
        self._positions = setup.positions
        self._row_multiple = setup.kernel.row_multiple

    def with_prefix(self, patches: Tensor, arrangement: PrefixedArrangement) -> Tensor:
        """The rows that the blocks take, filler included: float32 `[R, D]`, each patch with its position.

        A row before a segment's own has no patch: its position is all of it.
        """
        embedded = self.patch(pad_rows(patches, self._row_multiple))[: len(patches)].float()
        positions = pad_rows(arrangement.positions, self._row_multiple)
        return torch.zeros_like(positions).index_copy_(0, arrangement.token_rows, embedded) + positions


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedConfig(EncoderConfig):
    """The shape of an encoder of one grid.

    image_side: of its pictures, in pixels; strips that fill no patch are dropped.
    """

    image_side: int

    @property
    def grid(self) -> tuple[int, int]:
        return self.image_side // self.patch_size, self.image_side // self.patch_size


def shape_fields(vision: Fields) -> dict[str, Any]:
    """The fields of `EncoderConfig`, from the keys that Transformers' vision configurations share."""
    return block_fields(vision) | {"patch_size": vision.count("patch_size")}


def fixed_shape_fields(vision: Fields) -> dict[str, Any]:
    """The fields of `FixedConfig`."""
    shape = shape_fields(vision)
    image_side = vision.count("image_size")
    if image_side < shape["patch_size"]:
        raise vision.error("image_size", f"it holds no patch of {shape['patch_size']} pixels a side")
    return shape | {"image_side": image_side}
