"""Whether the forward is right on a device, and how fast: checks, the cost of buckets, and a table of times.

| check | passes if |
|---|---|
| parity | vectors equal those of float32 on a CPU, segment by segment |
| attention | a backend's outputs equal those of the dense mask in float32 |
| within a bucket | an image has the same bits alone and in a pack, filled up to one bucket |
| across buckets | its vector is the same in small buckets, large ones and none; on a CPU bit for bit |
| graphs | a recorded forward has the same bits as an eager one; CUDA only |

It needs only PyTorch, NumPy, Pillow and safetensors; weights are random. The exit status is 1 if a verdict is `failed`;
`skipped` says why. The rows of buckets are computed, not measured: which part of a bucket is its tail, for random packs
of the mixed workload. The times of the table run from uint8 rows on the host to vectors on the host.
"""

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from loadtest.bench.forwards.buckets import ladder, smallest
from loadtest.bench.forwards.cases import WORKLOADS
from loadtest.bench.forwards.contender import SHAPES, batch_of, runner_of
from loadtest.bench.forwards.dense import dense_attention
from loadtest.bench.forwards.recorded import RecordedForward
from loadtest.bench.forwards.wrapped import WrappedRunner
from model.errors import BackendUnavailable
from model.kernels.attention import Segments, choose_attention
from model.pack import PackedBatch, pack
from model.running.devices import default_device
from model.running.runner import Runner

Row = dict[str, object]

_OK = {True: "ok", False: "failed"}
_NEEDS_CUDA = "skipped: needs CUDA"
# Relative to the largest value in float32; a cosine if every layer rounds; a cosine if only the order of sums differs.
_PARITY_ERROR = 1e-4
_PARITY_COSINE = 0.999
_ACROSS_COSINE = 0.9999
_ATTENTION_ERROR = {"float32": 1e-5, "bfloat16": 2e-2}
_LENGTHS = (1, 30, 256, 7, 576, 1024, 64)
_LONGEST = 1024
_PER_DOUBLING = (1, 2, 4, 8)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--device", default=default_device(), help="cpu, cuda or cuda:N (default: CUDA if there is any)"
    )
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, help="(default: tiny on a CPU, else base and so400m)")
    parser.add_argument(
        "--workloads", nargs="+", choices=WORKLOADS, default=["mixed", "thumbnails"], help="of the table"
    )
    parser.add_argument("--dtypes", nargs="+", choices=("float32", "bfloat16"), default=["float32", "bfloat16"])
    parser.add_argument("--rounds", type=int, default=5, help="forwards of each row of the table (default: 5)")


def measure(options: argparse.Namespace) -> list[Row]:
    device = torch.device(options.device)
    shapes = options.shapes or (["tiny"] if device.type == "cpu" else ["base", "so400m"])
    rows = list(buckets(WORKLOADS["mixed"]))
    for dtype in options.dtypes:
        rows += attention(device, dtype)
        for shape in shapes:
            rows += checks(shape, dtype, device, WORKLOADS["mixed"])
            rows += [speed(shape, dtype, device, workload, options.rounds) for workload in options.workloads]
    return rows


def checks(shape: str, dtype: str, device: torch.device, grids: Sequence[tuple[int, int]]) -> Iterator[Row]:
    """All checks of one encoder on one device, with packs of these grids."""
    batch, same = batch_of(list(grids)), {"shape": shape, "dtype": dtype}
    yield {"check": "parity"} | same | parity(shape, dtype, device, batch)
    yield {"check": "within a bucket"} | same | invariance(shape, dtype, device, batch, within=True)
    yield {"check": "across buckets"} | same | invariance(shape, dtype, device, batch, within=False)
    yield {"check": "graphs"} | same | graphs(shape, dtype, device, batch)


def parity(shape: str, dtype: str, device: torch.device, batch: PackedBatch) -> Row:
    expected = runner_of(SHAPES[shape], "float32", device="cpu", attention="segmentwise").run(batch).pooled
    found = runner_of(SHAPES[shape], dtype, device=str(device)).run(batch).pooled
    error, cosine = float(abs(found - expected).max()), least_cosine(found, expected)
    holds = error <= _PARITY_ERROR * max(1.0, float(abs(expected).max()))
    if dtype != "float32":
        holds = cosine >= _PARITY_COSINE
    return {"error": f"{error:.1e}", "cosine": f"{cosine:.6f}", "verdict": _OK[holds]}


def attention(device: torch.device, dtype: str) -> Iterator[Row]:
    """Each backend against the dense mask: with the tokens as queries, causal and not, and with one query a segment."""
    generator = torch.Generator().manual_seed(0)
    segments, singles = _segments(_LENGTHS, device), Segments.singles(len(_LENGTHS), device)
    causal = replace(segments, causal=True)
    q, k, v = (torch.randn(sum(_LENGTHS), 4, 64, generator=generator).to(device) for _ in range(3))
    for name in ("varlen", "products", "segmentwise"):
        row: Row = {"check": "attention", "dtype": dtype, "backend": name}
        if name == "varlen" and device.type != "cuda":
            yield row | {"verdict": _NEEDS_CUDA}
            continue
        try:
            _, backend = choose_attention(name, device, getattr(torch, dtype), 64)
        except BackendUnavailable as lacking:
            yield row | {"verdict": f"skipped: {lacking}"}
            continue
        error = 0.0
        for queries, keys, q_ in (
            (segments, segments, q),
            (causal, causal, q),
            (singles, segments, q[: singles.count]),
        ):
            # Both get the values rounded to the dtype.
            qd, kd, vd = (x.to(getattr(torch, dtype)) for x in (q_, k, v))
            expected = dense_attention(qd.float(), kd.float(), vd.float(), queries, keys)
            error = max(error, float((backend(qd, kd, vd, queries, keys).float() - expected).abs().max()))
        yield row | {"error": f"{error:.1e}", "verdict": _OK[error <= _ATTENTION_ERROR[dtype]]}


def invariance(shape: str, dtype: str, device: torch.device, batch: PackedBatch, *, within: bool) -> Row:
    """Some images alone and in the whole pack: all in one bucket, or each in the smallest bucket and in none."""
    steps = ladder(batch.tokens, longest=_LONGEST)
    bucketed = runner_of(SHAPES[shape], dtype, device=str(device))
    runner = WrappedRunner.bucketed(bucketed, steps[-1:] if within else steps)
    together = runner.run(batch).pooled
    some = sorted({0, 1, len(batch.grids) // 2, len(batch.grids) - 1})
    alone = [runner.run(one) for one in (image_of(batch, number) for number in some)]
    found, expected = np.concatenate([output.pooled for output in alone]), together[some]
    if not within:
        plain = runner_of(SHAPES[shape], dtype, device=str(device)).run(batch).pooled
        found, expected = np.concatenate([found, plain]), np.concatenate([expected, together])
    bits, cosine = bool(np.array_equal(found, expected)), least_cosine(found, expected)
    holds = bits if within or device.type == "cpu" else cosine >= _ACROSS_COSINE
    shapes = sorted({output.computed_tokens for output in alone} | {steps[-1].tokens})
    return {"rows": "/".join(map(str, shapes)), "bits": bits, "cosine": f"{cosine:.7f}", "verdict": _OK[holds]}


@torch.inference_mode()
def graphs(shape: str, dtype: str, device: torch.device, batch: PackedBatch) -> Row:
    if device.type != "cuda":
        return {"verdict": _NEEDS_CUDA}
    bucket = ladder(batch.tokens, longest=_LONGEST)[-1:]
    runner = runner_of(SHAPES[shape], dtype, device=str(device))
    if runner.attention != "varlen":
        return {"verdict": f"skipped: attention={runner.attention} reads offsets on the host"}
    bucketed = WrappedRunner.bucketed(runner, bucket).encoder
    # Recorded with one image and a long tail, then replayed with the whole pack: offsets, positions and rows change.
    arranged = [bucketed.arrange(each) for each in (image_of(batch, 0), batch)]
    patches = torch.randn(arranged[0].rows, SHAPES[shape].patch_width, device=device).to(runner.dtype)
    recorded, forward = RecordedForward(runner.encoder, patches, arranged[0]), runner.encoder
    equal = all(torch.equal(recorded(patches, each), forward(patches, each).pooled) for each in arranged)
    return {
        "bits": equal,
        "recorded_ms": _median_ms(lambda: _waited(recorded(patches, arranged[1]))),
        "eager_ms": _median_ms(lambda: _waited(forward(patches, arranged[1]).pooled)),
        "verdict": _OK[equal],
    }


def buckets(grids: Sequence[tuple[int, int]]) -> Iterator[Row]:
    """The waste of a ladder on random packs up to full ones, for ladders of coarse and fine steps."""
    most, random = 16_384, np.random.default_rng(0)
    lengths = [height * width for height, width in grids]
    packs: list[list[int]] = []
    while len(packs) < 500:
        images = random.choice(lengths, size=random.integers(1, 64)).tolist()
        full = next((end for end in range(1, len(images) + 1) if sum(images[:end]) > most), len(images) + 1)
        packs.append(images[: full - 1])
    for per_doubling in _PER_DOUBLING:
        steps = ladder(most, longest=_LONGEST, per_doubling=per_doubling)
        held = [(sum(each), bucket.tokens) for each in packs if (bucket := smallest(steps, each))]
        tokens, rows = (sum(column) for column in zip(*held, strict=True))
        yield {
            "buckets": len(steps),
            "per_doubling": per_doubling,
            "held": f"{len(held) / len(packs):.1%}",
            "padding_waste": f"{1 - tokens / rows:.1%}",
            "worst": f"{max(1 - used / filled for used, filled in held):.1%}",
        }


def speed(shape: str, dtype: str, device: torch.device, workload: str, rounds: int) -> Row:
    """Times of a pack as it is, filled up to a bucket, and padded to its longest segment, in turn."""
    batch = batch_of(WORKLOADS[workload])
    plain, filled, padded = (runner_of(SHAPES[shape], dtype, device=str(device)) for _ in range(3))
    runners: dict[str, Runner | WrappedRunner] = {
        "packed": plain,
        "bucketed": WrappedRunner.bucketed(filled, ladder(batch.tokens, longest=_LONGEST)),
        "rectangle": WrappedRunner.padded(padded),
    }
    computed = {name: runner.run(batch).computed_tokens for name, runner in runners.items()}
    seconds: dict[str, list[float]] = {name: [] for name in runners}
    for _, (name, runner) in itertools.product(range(rounds), runners.items()):
        seconds[name].append(_seconds(runner, batch))
    packed_s = statistics.median(seconds["packed"])
    row: Row = {"table": workload, "shape": shape, "dtype": dtype, "attention": plain.attention}
    row |= {"images": len(batch.grids), "tokens": batch.tokens, "tokens_per_s": round(batch.tokens / packed_s)}
    for name, taken in seconds.items():
        row |= {f"{name}_ms": round(statistics.median(taken) * 1e3, 1), f"{name}_rows": computed[name]}
    return row


def image_of(batch: PackedBatch, number: int) -> PackedBatch:
    """One segment of a pack, as a pack."""
    start, end = batch.cu_seqlens[number], batch.cu_seqlens[number + 1]
    return pack([batch.rows[start:end]], [batch.grids[number]])


def least_cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    wide = [x.astype(np.float64) for x in (a, b)]
    norms = [np.linalg.norm(x, axis=1) for x in wide]
    return float(((wide[0] * wide[1]).sum(axis=1) / (norms[0] * norms[1])).min())


def _segments(lengths: Sequence[int], device: torch.device) -> Segments:
    return Segments.at(np.cumsum([0, *lengths], dtype=np.int32), max(lengths), device)


def _seconds(runner: Runner | WrappedRunner, batch: PackedBatch) -> float:
    start_s = time.perf_counter()
    runner.run(batch)
    return time.perf_counter() - start_s


def _median_ms(call: Callable[[], object]) -> float:
    taken = []
    for _ in range(20):
        start_s = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start_s)
    return round(statistics.median(taken) * 1e3, 3)


def _waited(x: Tensor) -> Tensor:
    torch.cuda.synchronize(x.device)
    return x
