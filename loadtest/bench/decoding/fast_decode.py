"""What `decode=fast` changes: pixels after resizing, and vectors.

The encoder has the base shape and random weights, so its cosines say little about a trained one's. The pixels matter
more. For scale, the cosine between different pictures stands beside that of one picture's two vectors.
"""

import argparse
import statistics
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadtest.bench.decoding import jpegs
from loadtest.bench.preprocess import MAX_DECODE_PIXELS, NAFLEX, TOKENS
from model.checkpoint import tiny
from model.checkpoint.load import Checkpoint
from model.encoders.siglip.naflex import NaFlexConfig
from model.images.decode import DecodeMode, decode_patches, read_header
from model.pack import pack
from model.running.runner import Runner
from model.sizing.budget import Budget
from model.sizing.plan import ImagePlan, plan_image

_BASE = NaFlexConfig(width=768, depth=12, heads=12, mlp_width=3072)


add_options = jpegs.add_options


def measure(options: argparse.Namespace) -> list[dict[str, object]]:
    """A row for each kind of picture: differences of pixels, of 255, and cosines."""
    kinds = jpegs.chosen(options)
    runner = Runner(
        Checkpoint("base, random", _BASE, tiny.seeded_tensors(_BASE), tiny.PREPROCESSING, digest=""), dtype="float32"
    )
    return [_measure(kind, runner) for kind in kinds]


def _measure(kind: jpegs.Jpegs, runner: Runner) -> dict[str, object]:
    means, largest, cosines, exact_vectors = [], [], [], []
    for data in kind.pictures:
        size = read_header(data, max_decode_pixels=MAX_DECODE_PIXELS).size
        plan = plan_image(size, geometry=NAFLEX, budget=Budget.of_tokens(TOKENS, 16), strategy="naflex")
        exact, fast = _rows(data, plan, "exact"), _rows(data, plan, "fast")
        difference = np.abs(exact.astype(np.int16) - fast)
        means.append(float(difference.mean()))
        largest.append(int(difference.max()))
        vectors = [_vector(runner, rows, plan) for rows in (exact, fast)]
        cosines.append(float(vectors[0] @ vectors[1]))
        exact_vectors.append(vectors[0])
    others = [float(one @ other) for one, other in pairwise(exact_vectors)]
    return {
        "pictures": kind.kind,
        "count": len(kind.pictures),
        "unchanged": largest.count(0),
        "mean_difference": round(statistics.mean(means), 3),
        "mean_difference_worst": round(max(means), 3),
        "largest_difference": max(largest),
        "cosine_worst": round(min(cosines), 6),
        "cosine_of_different_pictures": round(statistics.median(others), 4) if others else None,
    }


def _rows(data: bytes, plan: ImagePlan, decode: DecodeMode) -> NDArray[np.uint8]:
    _, rows = decode_patches(data, plan, geometry=NAFLEX, max_decode_pixels=MAX_DECODE_PIXELS, decode=decode)
    return rows


def _vector(runner: Runner, rows: NDArray[np.uint8], plan: ImagePlan) -> NDArray[Any]:
    """float64 `[D]`, of length 1."""
    pooled = runner.run(pack([rows], [plan.segments[0].grid])).pooled[0].astype(np.float64)
    vector: NDArray[Any] = pooled / np.linalg.norm(pooled)
    return vector
