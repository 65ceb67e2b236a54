"""Packs through the encoder of a `Runner` that attends otherwise, or is wrapped in another encoder."""

from collections.abc import Sequence
from typing import Self

import torch

from loadtest.bench.forwards.bucketed import BucketedEncoder
from loadtest.bench.forwards.buckets import Bucket
from loadtest.bench.forwards.dense import dense_attention
from loadtest.bench.forwards.padded import PaddedEncoder, padded_attention
from model.encoders.parts.blocks import Block, MapHead
from model.encoders.parts.tower import Encoder
from model.kernels.attention import Attention
from model.pack import PackedBatch
from model.running.output import RunnerOutput
from model.running.runner import Runner


class WrappedRunner:
    """Runs each pack as one forward of `encoder`, with the runner's device, dtype and normalisation.

    Unlike a `Runner`, it never cuts a pack for threads. `padded` and `dense` change how the runner's own encoder
    attends, so the runner must not be used afterwards.
    """

    def __init__(self, runner: Runner, encoder: Encoder) -> None:
        self._runner = runner
        self.encoder = encoder

    @classmethod
    def padded(cls, runner: Runner, *, length: int | None = None) -> Self:
        """Pads each segment to `length` tokens; None for the longest of each pack."""
        _attend_by(padded_attention, runner.encoder)
        return cls(runner, PaddedEncoder(runner.encoder, length=length))

    @classmethod
    def dense(cls, runner: Runner) -> Self:
        """Attends with one block-diagonal mask over the pack."""
        _attend_by(dense_attention, runner.encoder)
        return cls(runner, runner.encoder)

    @classmethod
    def bucketed(cls, runner: Runner, buckets: Sequence[Bucket]) -> Self:
        """Fills packs up to the smallest bucket that holds them. buckets: from small to large."""
        return cls(runner, BucketedEncoder(runner.encoder, buckets))

    @torch.inference_mode()
    def run(self, batch: PackedBatch, *, tokens: bool = False) -> RunnerOutput:
        """One forward of the whole pack. tokens: return every token's vector too."""
        output = self.encoder(self._runner.patches(batch), self.encoder.arrange(batch))
        return RunnerOutput(
            pooled=output.pooled.float().cpu().numpy(),
            tokens=output.tokens.float().cpu().numpy() if tokens else None,
            computed_tokens=batch.tokens + output.filler_rows,
        )


def _attend_by(attention: Attention, encoder: Encoder) -> None:
    for module in encoder.modules():
        if isinstance(module, Block | MapHead):
            module.attention = attention
