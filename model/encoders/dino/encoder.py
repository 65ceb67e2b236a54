"""The encoder of DINOv2 and DINOv3: a class token and registers stand before the patches of each segment.

They attend and are attended to, and are never among the tokens that come out. Knows nothing of images, devices or
checkpoint files.

Axes: T patches of a pack, R rows of the sequence (class tokens and registers included), S segments, D width.
"""

from torch import Tensor

from model.encoders.dino.family import DinoConfig
from model.encoders.parts.arrangement import Arrangement, RotatedArrangement, rotated_arrangement
from model.encoders.parts.blocks import Blocks, GatedMlp, Mlp, Norm
from model.encoders.parts.tensors import ACTIVATIONS
from model.encoders.parts.tower import EncoderOutput, Setup, Tower, segment_means
from model.kernels.rotary import PrefixedPositions
from model.pack import PackedBatch


class DinoEncoder(Tower):
    """From packed patches to tokens and a pooled vector a segment, all after the last norm."""

    def __init__(self, config: DinoConfig, setup: Setup) -> None:
        super().__init__(config, setup)
        assert isinstance(setup.positions, PrefixedPositions)
        self.blocks = Blocks(
            config,
            attention=setup.attention,
            kernel=setup.kernel,
            activation=ACTIVATIONS[config.hidden_act],
            mlp=GatedMlp if config.gated else Mlp,
            features_after=setup.features_after,
        )
        self.norm = Norm(config.width, eps=config.eps)
        self._config = config
        self._positions: PrefixedPositions = setup.positions

    def arrange(self, batch: PackedBatch) -> RotatedArrangement:
        return rotated_arrangement(batch, self._positions, 1 + self._config.registers, self._row_multiple)

    def forward(self, patches: Tensor, arrangement: Arrangement) -> EncoderOutput:
        assert isinstance(arrangement, RotatedArrangement)
        x = self.with_prefix(patches, arrangement)
        features = self.blocks(x, arrangement.segments, arrangement.rotation)
        tokens = self.norm.in_float32(x.index_select(0, arrangement.token_rows))
        if self._config.pooling == "cls":
            pooled = self.norm.in_float32(x.index_select(0, arrangement.segments.cu_seqlens[:-1]))
        else:
            pooled = segment_means(tokens, arrangement.images.offsets)
        return EncoderOutput(
            tokens=tokens if features is None else features.index_select(0, arrangement.token_rows),
            pooled=pooled,
            filler_rows=len(x) - arrangement.rows,
        )
