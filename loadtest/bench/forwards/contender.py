"""One contender of `python -m loadtest.bench forward`: a process that repeats one kind of forward.

It runs as a file with a job in JSON as its argument, and imports `model` from PYTHONPATH, so that another commit's
encoder can take part. It writes the vectors of the first forward to a file and says `ready`. It answers every line on
its standard input with the seconds of a forward. At the end it says by how many bytes forwards raised its memory.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from loadtest.bench.forwards.rounds import CLOCKS, Clock, Forward, answer_rounds, answer_times, memory_bytes, seconds
from loadtest.bench.forwards.wrapped import WrappedRunner
from loadtest.bench.peers.requests import Inputs, computed_rows, unpadded
from model.checkpoint import tiny
from model.checkpoint.load import Checkpoint
from model.encoders.siglip.naflex import NaFlexConfig
from model.kernels.int8 import Int8Weight, int8_rows
from model.pack import PackedBatch, pack
from model.running.devices import choose_dtype
from model.running.runner import Runner

SHAPES = {
    "tiny": tiny.CONFIG,
    "base": NaFlexConfig(width=768, depth=12, heads=12, mlp_width=3072),
    # A quarter of its 27 blocks: every block costs the same.
    "so400m": NaFlexConfig(width=1152, depth=7, heads=16, mlp_width=4304),
}
# A forward, and how many rows it computes, padding included.
Built = tuple[Forward, Callable[[], int]]


def linear_layers(config: NaFlexConfig, tokens: int, segments: int) -> list[tuple[int, int, int, int]]:
    """(rows, inputs, outputs, count) of the matrix products with weights in a forward."""
    d, m = config.width, config.mlp_width
    return [
        (tokens, config.patch_width, d, 1),
        (tokens, d, 3 * d, config.depth),
        (tokens, d, d, config.depth),
        (tokens, d, m, config.depth),
        (tokens, m, d, config.depth),
        (tokens, d, 2 * d, 1),
        (segments, d, d, 1),
        (segments, d, m, 1),
        (segments, m, d, 1),
    ]


def runner_of(config: NaFlexConfig, dtype: str, **options: Any) -> Runner:
    """A runner of the imported checkout, with random weights."""
    checkpoint = Checkpoint(
        name="random",
        config=config,
        tensors=tiny.seeded_tensors(config),
        preprocessing=tiny.PREPROCESSING,
        digest="",
    )
    return Runner(checkpoint, dtype=dtype, **options)  # type: ignore[arg-type]


def packed(config: NaFlexConfig, dtype: str, batch: PackedBatch) -> Built:
    """The encoder of the imported checkout, from uint8 patch rows to pooled vectors on the host."""
    return _built(runner_of(config, dtype), batch)


def dense(config: NaFlexConfig, dtype: str, batch: PackedBatch) -> Built:
    """The same encoder with one block-diagonal mask over the pack."""
    return _built(WrappedRunner.dense(runner_of(config, dtype)), batch)


def rectangle(config: NaFlexConfig, dtype: str, batch: PackedBatch) -> Built:
    """The same encoder on a rectangle as long as the longest segment."""
    return _built(WrappedRunner.padded(runner_of(config, dtype)), batch)


def _built(runner: Runner | WrappedRunner, batch: PackedBatch) -> Built:
    return lambda: runner.run(batch).pooled, lambda: runner.run(batch).computed_tokens


def padded(config: NaFlexConfig, dtype: str, batch: PackedBatch, *, cap: int) -> Built:
    """Transformers' model with the same weights, every image padded to `cap` tokens, from prepared pixels."""
    return _transformers(config, dtype, [padded_inputs(batch, cap)])


def single(config: NaFlexConfig, dtype: str, batch: PackedBatch) -> Built:
    """The same model, each image by itself without padding."""
    return _transformers(config, dtype, unpadded(padded_inputs(batch, batch.max_seqlen)))


def _transformers(config: NaFlexConfig, dtype: str, requests: list[Inputs]) -> Built:
    from transformers import Siglip2VisionConfig, Siglip2VisionModel

    shape = Siglip2VisionConfig(
        hidden_size=config.width,
        intermediate_size=config.mlp_width,
        num_hidden_layers=config.depth,
        num_attention_heads=config.heads,
    )
    tower: Any = Siglip2VisionModel._from_config(shape, attn_implementation="sdpa")
    tower.load_state_dict(tiny.seeded_tensors(config))
    tower = tower.to(getattr(torch, dtype)).eval()
    calls = [{name: torch.from_numpy(array) for name, array in each.items()} for each in requests]
    for each in calls:
        each["pixel_values"] = each["pixel_values"].to(tower.dtype)

    @torch.inference_mode()
    def forward() -> NDArray[np.float32]:
        return np.concatenate([tower(**each).pooler_output.float().numpy() for each in calls])

    return forward, lambda: computed_rows(requests)


def padded_inputs(batch: PackedBatch, cap: int) -> Inputs:
    """What the processor of a NaFlex model makes of the images: each padded to `cap` patches, with masks and grids."""
    lengths = np.diff(batch.cu_seqlens)
    values = np.zeros((len(lengths), cap, batch.rows.shape[1]), np.float32)
    for image, rows in zip(values, np.split(batch.rows, batch.cu_seqlens[1:-1]), strict=True):
        image[: len(rows)] = (rows.astype(np.float32) - 127.5) / 127.5
    mask = (np.arange(cap)[None, :] < lengths[:, None]).astype(np.int64)
    return {"pixel_values": values, "pixel_attention_mask": mask, "spatial_shapes": np.array(batch.grids, np.int64)}


class Ceiling:
    """The bare matrix products of a forward with their shapes; no bias, activation, softmax or norm.

    Products with weights run in oneDNN with the weights pre-blocked, those of attention by `bmm` into allocated memory.
    With int8 the products of blocks are of integers, and of rows that are integers already.
    """

    def __init__(self, config: NaFlexConfig, dtype: str, batch: PackedBatch, clock: Clock) -> None:
        self._clock = clock
        self._dtype = choose_dtype(dtype, torch.device("cpu"))  # type: ignore[arg-type]
        self._products = [
            ((_integers if dtype == "int8" and count > 1 else self._linear)(rows, into, out), count)
            for rows, into, out, count in linear_layers(config, batch.tokens, len(batch.grids))
        ]
        lengths, counts = np.unique(np.diff(batch.cu_seqlens), return_counts=True)
        for length, count in zip(lengths.tolist(), counts.tolist(), strict=True):
            for product in self._attention(config.heads, length, config.width // config.heads):
                self._products.append((product, count * config.depth))

    def _linear(self, rows: int, into: int, out: int) -> Callable[[], object]:
        x, weight = torch.randn(rows, into).to(self._dtype), torch.randn(out, into).to(self._dtype)
        weight = torch.ops.mkldnn._reorder_linear_weight(weight, rows)
        return lambda: torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")

    def _attention(self, heads: int, length: int, width: int) -> list[Callable[[], object]]:
        q, k, v = torch.randn(3, heads, length, width).to(self._dtype)
        scores = torch.empty(heads, length, length, dtype=self._dtype)
        out = torch.empty_like(q)

        def scoring() -> Tensor:
            return torch.bmm(q, k.transpose(1, 2), out=scores)

        def weighing() -> Tensor:
            return torch.bmm(scores, v, out=out)

        return [scoring, weighing]

    def seconds(self) -> float:
        """The time of each product, as often as a forward runs it."""
        return sum(seconds(product, self._clock) * count for product, count in self._products)


def _integers(rows: int, into: int, out: int) -> Callable[[], object]:
    weight, (x, _) = Int8Weight.of(torch.randn(out, into)), int8_rows(torch.randn(rows, into))
    return lambda: weight.sums(x)


_CONTENDERS: dict[str, Callable[..., Built]] = {
    "packed": packed,
    "padded": padded,
    "single": single,
    "rectangle": rectangle,
    "dense": dense,
}


def batch_of(grids: list[tuple[int, int]]) -> PackedBatch:
    """A pack of noise with these grids, the same in every process."""
    random = np.random.default_rng(0)
    return pack([random.integers(0, 256, (h * w, tiny.CONFIG.patch_width), np.uint8) for h, w in grids], grids)


def main() -> None:
    job = json.loads(sys.argv[1])
    config, batch = SHAPES[job["shape"]], batch_of([(h, w) for h, w in job["grids"]])
    if job["layers"]:
        config = replace(config, depth=job["layers"])
    if job["kind"] == "ceiling":
        ceiling = Ceiling(config, job["dtype"], batch, CLOCKS[job["clock"]])
        ceiling.seconds()
        answer_times(ceiling.seconds, memory_bytes("VmRSS"))
    else:
        cap = {"cap": job["cap"]} if job["kind"] == "padded" else {}
        forward, rows = _CONTENDERS[job["kind"]](config, job["dtype"], batch, **cap)
        answer_rounds(forward, job["clock"], job["answer"], computed_rows=rows)


if __name__ == "__main__":
    main()
