"""One contender of `python -m loadtest.bench forward`: a process that repeats one kind of forward.

It runs as a file with a job in JSON as its argument, and imports `model` from PYTHONPATH, so that another commit's
encoder can take part. It writes the vectors of the first forward to a file and says `ready`. It answers every line on
its standard input with the seconds of a forward. At the end it says by how many bytes forwards raised its memory.
"""

import ctypes
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from loadtest.bench.forwards.wrapped import WrappedRunner
from model.checkpoint import tiny
from model.checkpoint.load import Checkpoint
from model.encoders.siglip.naflex import NaFlexConfig
from model.pack import PackedBatch, pack
from model.running.runner import Runner

SHAPES = {
    "tiny": tiny.CONFIG,
    "base": NaFlexConfig(width=768, depth=12, heads=12, mlp_width=3072),
    # A quarter of its 27 blocks: every block costs the same.
    "so400m": NaFlexConfig(width=1152, depth=7, heads=16, mlp_width=4304),
}
# A forward is repeated for at least this long: a single short one would be noise.
_AT_LEAST_S = 0.3

Clock = Callable[[], float]
Forward = Callable[[], NDArray[np.float32]]

_CLOCKS: dict[str, Clock] = {"wall": time.perf_counter, "processor": time.process_time}


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


def packed(config: NaFlexConfig, dtype: str, batch: PackedBatch) -> Forward:
    """The encoder of the imported checkout, from uint8 patch rows to pooled vectors on the host."""
    runner = runner_of(config, dtype)
    return lambda: runner.run(batch).pooled


def dense(config: NaFlexConfig, dtype: str, batch: PackedBatch) -> Forward:
    """The same encoder with one block-diagonal mask over the pack."""
    runner = WrappedRunner.dense(runner_of(config, dtype))
    return lambda: runner.run(batch).pooled


def rectangle(config: NaFlexConfig, dtype: str, batch: PackedBatch) -> Forward:
    """The same encoder on a rectangle as long as the longest segment."""
    runner = WrappedRunner.padded(runner_of(config, dtype))
    return lambda: runner.run(batch).pooled


def padded(config: NaFlexConfig, dtype: str, batch: PackedBatch, *, cap: int) -> Forward:
    """Transformers' model with the same weights, every image padded to `cap` tokens, from prepared pixels."""
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
    values = torch.zeros(len(batch.grids), cap, config.patch_width)
    lengths = np.diff(batch.cu_seqlens)
    for image, rows in zip(values, np.split(batch.rows, batch.cu_seqlens[1:-1]), strict=True):
        image[: len(rows)] = torch.from_numpy(rows).float().sub(127.5).div(127.5)
    values = values.to(tower.dtype)
    mask = (torch.arange(cap)[None, :] < torch.from_numpy(lengths)[:, None]).int()
    grids = torch.tensor(batch.grids)

    @torch.inference_mode()
    def forward() -> NDArray[np.float32]:
        output = tower(pixel_values=values, pixel_attention_mask=mask, spatial_shapes=grids)
        pooled: NDArray[np.float32] = output.pooler_output.float().numpy()
        return pooled

    return forward


class Ceiling:
    """The bare matrix products of a forward with their shapes; no bias, activation, softmax or norm.

    Products with weights run in oneDNN with the weights pre-blocked, those of attention by `bmm` into allocated memory.
    """

    def __init__(self, config: NaFlexConfig, dtype: str, batch: PackedBatch, clock: Clock) -> None:
        self._clock = clock
        self._dtype = getattr(torch, dtype)
        self._products = [
            (self._linear(rows, into, out), count)
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
        return sum(_seconds(product, self._clock) * count for product, count in self._products)


_CONTENDERS: dict[str, Callable[..., Forward]] = {
    "packed": packed,
    "padded": padded,
    "rectangle": rectangle,
    "dense": dense,
}


def batch_of(grids: list[tuple[int, int]]) -> PackedBatch:
    """A pack of noise with these grids, the same in every process."""
    random = np.random.default_rng(0)
    return pack([random.integers(0, 256, (h * w, tiny.CONFIG.patch_width), np.uint8) for h, w in grids], grids)


def main() -> None:
    job = json.loads(sys.argv[1])
    clock = _CLOCKS[job["clock"]]
    config, batch = SHAPES[job["shape"]], batch_of([(h, w) for h, w in job["grids"]])
    if job["kind"] == "ceiling":
        ceiling = Ceiling(config, job["dtype"], batch, clock)
        ceiling.seconds()
        _answer(ceiling.seconds, _memory_bytes("VmRSS"))
    else:
        cap = {"cap": job["cap"]} if job["kind"] == "padded" else {}
        answer_rounds(_CONTENDERS[job["kind"]](config, job["dtype"], batch, **cap), job["clock"], job["answer"])


def answer_rounds(forward: Forward, clock: str, answer: str) -> None:
    """Writes the vectors of a first forward to the file `answer`, and times forwards for as long as the parent asks."""
    ctypes.CDLL(None).malloc_trim(0)  # Freed memory would hide what forwards take.
    resident = _memory_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # Resets the peak.
    np.save(answer, forward())
    _answer(lambda: _repeated(forward, _CLOCKS[clock]), resident)


def _answer(measured: Callable[[], float], resident_bytes: int) -> None:
    _say({"ready": True})
    for _ in sys.stdin:
        _say({"seconds": measured()})
    _say({"peak_bytes": _memory_bytes("VmHWM") - resident_bytes})


def _repeated(forward: Forward, clock: Clock) -> float:
    """The median time of forwards that fill `_AT_LEAST_S`."""
    taken: list[float] = []
    while sum(taken) < _AT_LEAST_S:
        taken.append(_seconds(forward, clock))
    return statistics.median(taken)


def _seconds(call: Callable[[], object], clock: Clock) -> float:
    start = clock()
    call()
    return clock() - start


def _memory_bytes(field: str) -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(f"{field}:"))


def _say(message: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
