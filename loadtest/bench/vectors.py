"""What smaller types and fewer dimensions cost: how many of a picture's nearest neighbours are found with them.

The truth is the neighbours by cosine of whole float32 vectors. Each picture looks for its own among all others; recall
is the mean share of the true nearest that are among as many nearest by what is stored. How near:

| stored | by |
|---|---|
| float, float16, int8 | cosine |
| uint8 | Euclidean distance, which the shift by 128 leaves as it is, and by cosine, which it does not |
| ubinary | Hamming distance |

Calibrated scales come from every second picture, fixed ones from nowhere. `int8 by dimension` is what the integers of
sentence-transformers' `quantize_embeddings` are, with ranges from the same pictures: a scale and an offset for each
dimension. Pictures are scenes cut from those that scikit-image and scikit-learn carry, or a folder's files, cut alike.
"""

import argparse
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from loadtest.bench.layouts import Row, decoded, pictures, readable
from model.errors import ModelError
from model.pack import pack
from service.int8_scale import Int8Scale, best_clip
from service.limits import Limits
from service.requests.results import normalized
from service.requests.vectors import Element, VectorFormat
from service.settings.names import SettingsError
from service.settings.settings import Settings

_NEAREST = (1, 10)
_LEAST_SIDE = 80  # pixels of a scene
_LEAST_DEVIATION = 8.0  # of gray, of 255: sky looks alike everywhere

Vectors = NDArray[np.float32]
Nearness = Callable[[NDArray[np.float64]], NDArray[np.float64]]


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--folder", type=Path, metavar="DIR", help="your own pictures (default: those in scikit-image and scikit-learn)"
    )
    parser.add_argument(
        "--model", default="packlight-tiny", help="checkpoint folder or hub id (default: packlight-tiny)"
    )
    parser.add_argument("--scenes", type=int, default=24, metavar="N", help="scenes of a picture, about (default: 24)")
    parser.add_argument(
        "--dimensions", type=int, nargs="+", default=[128, 64], metavar="N",
        help="widths beside the model's own (default: 128 64)",
    )  # fmt: skip


def measure(options: argparse.Namespace) -> list[Row]:
    """A row for each type and width. Raises `SystemExit` if there is too little to compare."""
    try:
        name, vectors = _embedded(options)
    except (ModelError, SettingsError) as error:
        raise SystemExit(f"vectors: {error}") from None
    if len(vectors) <= max(_NEAREST):
        raise SystemExit(f"vectors: scenes: {len(vectors)}; {max(_NEAREST)} neighbours are looked for among more")

    if most := [width for width in options.dimensions if not 0 < width <= vectors.shape[1]]:
        raise SystemExit(f"vectors: {name} has {vectors.shape[1]} dimensions, and not {most[0]}")
    return list(rows(name, vectors, [vectors.shape[1], *options.dimensions]))


def _embedded(options: argparse.Namespace) -> tuple[str, Vectors]:
    """Float32 `[B, E]` of length 1, a row for each scene, at the model's own budget."""
    from service.loading import load_runner

    settings = Settings(model=options.model, dtype="float32")
    runner, facts = load_runner(settings)
    limits = Limits.of(settings, facts)
    found = [
        scene
        for picture in readable(pictures(options.folder), settings.max_decode_pixels)
        for scene in scenes(picture, options.scenes)
    ]
    images = decoded(found, [limits.default_max_tokens] * len(found), facts, limits)
    several = max(1, limits.max_batch_tokens // limits.default_max_tokens)
    pooled = []
    for start in range(0, len(images), several):
        part = images[start : start + several]
        pooled.append(runner.run(pack([one.rows for one in part], [grid for one in part for grid in one.grids])).pooled)
    return facts.name, normalized(np.concatenate(pooled))


def scenes(picture: Image.Image, count: int) -> Iterator[Image.Image]:
    """About `count` nearly square cells of a grid over the picture, without nearly uniform ones."""
    width, height = picture.size
    side = max(_LEAST_SIDE, math.sqrt(width * height / count))
    columns, lines = max(1, round(width / side)), max(1, round(height / side))
    for line in range(lines):
        for column in range(columns):
            scene = picture.crop((
                width * column // columns, height * line // lines,
                width * (column + 1) // columns, height * (line + 1) // lines,
            ))  # fmt: skip
            if np.asarray(scene.convert("L"), np.float32).std() >= _LEAST_DEVIATION:
                yield scene


def rows(name: str, vectors: Vectors, widths: Sequence[int]) -> Iterator[Row]:
    truth = cosines(vectors.astype(np.float64))
    calibrated = Int8Scale(best_clip(vectors[::2]), calibrated=True)
    same: Row = {"model": name, "scenes": len(vectors)}
    for width in widths:
        for label, stored, near in _stored(vectors, width, calibrated):
            yield {
                "type": label,
                "dimensions": width,
                "bytes": stored[0].nbytes,
                **{f"recall@{k}": round(recall(truth, near(stored.astype(np.float64)), k), 3) for k in _NEAREST},
                **same,
            }


def _stored(vectors: Vectors, width: int, calibrated: Int8Scale) -> Iterator[tuple[str, NDArray[np.generic], Nearness]]:
    """What a store would hold, `[B, N]`, with its name and how it tells near from far."""

    def array(element: Element, scale: Int8Scale) -> NDArray[np.generic]:
        return VectorFormat(element, width).array(vectors, scale)

    fixed = Int8Scale()
    yield "float", array("float", fixed), cosines
    yield "float16", array("float16", fixed), cosines
    yield f"int8, fixed clip {fixed.clip:g}", array("int8", fixed), cosines
    yield f"int8, calibrated clip {calibrated.clip:.2f}", array("int8", calibrated), cosines
    yield "uint8, by distance", array("uint8", fixed), distances
    yield "uint8, by cosine", array("uint8", fixed), cosines
    yield "int8 by dimension", by_dimension(VectorFormat("float", width).array(vectors, fixed)), cosines
    yield "ubinary", array("ubinary", fixed), differing_bits


def by_dimension(vectors: Vectors) -> NDArray[np.int8]:
    """The least and greatest number of each dimension, over every second vector, become -128 and 127."""
    least, greatest = vectors[::2].min(axis=0), vectors[::2].max(axis=0)
    steps = (greatest - least) / 255
    integers: NDArray[np.int8] = (np.clip(np.floor((vectors - least) / steps), 0, 255) - 128).astype(np.int8)
    return integers


def cosines(stored: NDArray[np.float64]) -> NDArray[np.float64]:
    unit = stored / np.linalg.norm(stored, axis=1, keepdims=True)
    nearness: NDArray[np.float64] = unit @ unit.T
    return nearness


def distances(stored: NDArray[np.float64]) -> NDArray[np.float64]:
    """Squared Euclidean distances, negated."""
    squares = (stored**2).sum(axis=1)
    nearness: NDArray[np.float64] = 2 * stored @ stored.T - squares[:, None] - squares[None, :]
    return nearness


def differing_bits(stored: NDArray[np.float64]) -> NDArray[np.float64]:
    """Hamming distances of packed bits, negated."""
    bits = np.unpackbits(stored.astype(np.uint8), axis=1).astype(np.float64)
    return distances(bits)


def recall(truth: NDArray[np.float64], nearness: NDArray[np.float64], k: int) -> float:
    """The mean share of each row's `k` nearest others by `truth` that are among its `k` nearest by `nearness`.

    Others that are equally near count in the order of their rows.
    """
    wanted, found = _nearest(truth, k), _nearest(nearness, k)
    return float(np.mean([len({*own} & {*other}) / k for own, other in zip(wanted, found, strict=True)]))


def _nearest(nearness: NDArray[np.float64], k: int) -> list[list[int]]:
    others = nearness.copy()
    np.fill_diagonal(others, -np.inf)
    nearest: list[list[int]] = np.argsort(-others, axis=1, kind="stable")[:, :k].tolist()
    return nearest
