"""What packing saves: the same packs of real pictures as they are, and padded as a server without packing pads them.

| layout | what the device computes |
|---|---|
| packed | the images of a pack end to end, as the server runs them |
| to the longest | the same images as one batch, each padded to the longest of the pack |
| to the cap | the same images as one batch, each padded to the largest budget |

Pictures get budgets at random, and the server's scheduler makes the packs. In every round each pack runs in every
layout, one after the other. Figures are medians over the rounds: of the seconds of all packs, and of the ratio to the
packed seconds of the same round. Decoding is not in them. All layouts share weights, dtype and linear kernels; padded
attention is one call of PyTorch's `scaled_dot_product_attention` with a mask. On a CPU a packed forward is cut into
parts, a thread each; a padded one runs on all threads. Nothing is reported if the layouts give different vectors.
"""

import argparse
import itertools
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.errors import ImageError, ModelError
from model.images.decode import decode_rgb
from model.images.image_files import image_files
from model.images.patches import patch_rows
from model.pack import PackedBatch, pack
from model.sizing.plan import plan_image
from service.engine.queue.room import QueuedItem
from service.engine.scheduler import Scheduler
from service.limits import Limits, ModelFacts
from service.settings.names import SettingsError
from service.settings.settings import Settings

# `load_runner` imports torch, after it has set what torch's libraries read from the environment.
if TYPE_CHECKING:
    from model.running.output import RunnerOutput

_BUDGETS = (64, 128, 256, 256, 256, 576, 576, 1024)
_PICTURES = {
    "skimage": (
        "data/astronaut.png", "data/brick.png", "data/camera.png", "data/chelsea.png", "data/coffee.png",
        "data/coins.png", "data/hubble_deep_field.jpg", "data/motorcycle_left.png", "data/page.png",
        "data/retina.jpg", "data/rocket.jpg", "data/text.png",
    ),
    "sklearn": ("datasets/images/china.jpg", "datasets/images/flower.jpg"),
}  # fmt: skip
# Cosines: padded attention sums in another order.
_LEAST_COSINE = {"float32": 0.999999, "bfloat16": 0.999, "float16": 0.999, "int8": 0.998}

Row = dict[str, object]


class PackRunner(Protocol):
    def run(self, batch: PackedBatch, *, tokens: bool = False) -> "RunnerOutput": ...


@dataclass(slots=True, eq=False)
class Decoded(QueuedItem):
    """rows: uint8 `[N, 3*P*P]`. grids: of its segments."""

    rows: NDArray[np.uint8]
    grids: list[tuple[int, int]]


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--folder", type=Path, metavar="DIR", help="your own pictures (default: those in scikit-image and scikit-learn)"
    )
    parser.add_argument(
        "--model", default="packlight-tiny", help="checkpoint folder or hub id (default: packlight-tiny)"
    )
    parser.add_argument("--devices", default="auto", metavar="DEVICE", help="cpu, cuda or cuda:N (default: auto)")
    parser.add_argument("--dtype", default="auto", choices=("auto", "float32", "bfloat16", "float16", "int8"))
    parser.add_argument(
        "--budgets", type=int, nargs="+", default=_BUDGETS, metavar="TOKENS",
        help=f"token caps, drawn with equal chance (default: {' '.join(map(str, _BUDGETS))})",
    )  # fmt: skip
    parser.add_argument("--images", type=int, default=96, metavar="N", help="pictures repeat up to N (default: 96)")
    parser.add_argument("--max-batch-tokens", type=int, metavar="N", help="tokens of a pack (default: the server's)")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="measurements of each layout (default: 5)")


def measure(options: argparse.Namespace) -> list[Row]:
    """A row for each layout. Raises `SystemExit` if there is nothing to compare, or if the vectors differ."""
    cap = max(options.budgets)
    try:
        settings = Settings(
            model=options.model, devices=options.devices, dtype=options.dtype, default_max_tokens=cap,
            max_image_tokens=cap, max_batch_tokens=options.max_batch_tokens,
        )  # fmt: skip
        runners, facts = load_runners(settings, cap=cap)
        limits = Limits.of(settings, facts)
        budgets = np.random.default_rng(0).choice(options.budgets, options.images).tolist()
        found = readable(pictures(options.folder), settings.max_decode_pixels)
        batches = packs(decoded(found, budgets, facts, limits), limits)
        outputs = {layout: [runner.run(batch) for batch in batches] for layout, runner in runners.items()}
    except (ModelError, SettingsError) as error:
        raise SystemExit(f"layouts: {error}") from None
    check_agreement(outputs, _LEAST_COSINE[facts.dtype])
    same: Row = {"model": facts.name, "dtype": facts.dtype, "images": options.images, "packs": len(batches)}
    return list(rows(same, batches, outputs, timed(runners, batches, options.rounds)))


def load_runners(settings: Settings, *, cap: int) -> tuple[dict[str, PackRunner], ModelFacts]:
    """A runner for each layout, with weights of its own. Raises `SystemExit` for a model of one grid."""
    from service.loading import load_runner

    loaded = [load_runner(settings) for _ in range(3)]
    packed, facts = loaded[0]
    if facts.geometry.fixed:
        raise SystemExit(f"layouts: {facts.name} takes one size of picture, so there is no padding to compare with")
    from loadtest.bench.forwards.wrapped import WrappedRunner

    return {
        "packed": packed,
        "to the longest": WrappedRunner.padded(loaded[1][0]),
        "to the cap": WrappedRunner.padded(loaded[2][0], length=cap),
    }, facts


def pictures(folder: Path | None) -> list[bytes]:
    """Files of the folder, or those that scikit-image and scikit-learn carry (development dependencies)."""
    if folder:
        return [path.read_bytes() for path in image_files(folder)]
    return [files(package).joinpath(name).read_bytes() for package, names in _PICTURES.items() for name in names]


def readable(found: Sequence[bytes], max_decode_pixels: int) -> list[Image.Image]:
    """Decoded pictures; what cannot be decoded is left out. Raises `SystemExit` if nothing is left."""
    images = []
    for data in found:
        with suppress(ImageError):
            images.append(decode_rgb(data, max_decode_pixels=max_decode_pixels))
    if not images:
        raise SystemExit("layouts: there is no picture that can be decoded")
    return images


def decoded(found: Sequence[Image.Image], budgets: Sequence[int], facts: ModelFacts, limits: Limits) -> list[Decoded]:
    """An image for each budget, by the model's own strategy. Pictures repeat."""
    strategy = facts.geometry.default_strategy
    images = []
    for picture, budget in zip(itertools.cycle(found), budgets, strict=False):
        bounds = limits.budget(facts.geometry, strategy, max_tokens=budget)
        size = picture.height, picture.width
        plan = plan_image(size, geometry=facts.geometry, budget=bounds, strategy=strategy)
        patches = patch_rows(picture, plan, facts.geometry)
        grids = [segment.grid for segment in plan.segments]
        images.append(Decoded(plan.tokens, arrived_s=0.0, deadline_s=None, rows=patches, grids=grids))
    return images


def packs(images: Sequence[Decoded], limits: Limits) -> list[PackedBatch]:
    """The packs that the server's scheduler makes if all images wait at once."""
    scheduler = Scheduler[Decoded](max_batch_tokens=limits.max_batch_tokens)
    for image in images:
        scheduler.add(image)
    batches = []
    while chosen := scheduler.next_pack(0.0).pack:
        batches.append(pack([image.rows for image in chosen], [grid for image in chosen for grid in image.grids]))
    return batches


def check_agreement(outputs: Mapping[str, Sequence["RunnerOutput"]], least_cosine: float) -> None:
    """Raises `SystemExit` if a layout gives other vectors than the packed one."""
    pooled = {layout: np.concatenate([output.pooled for output in each]) for layout, each in outputs.items()}
    expected = pooled["packed"]
    for layout, found in pooled.items():
        norms = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
        cosine = float(((found * expected).sum(axis=1) / norms).min())
        if not cosine >= least_cosine:
            raise SystemExit(f"layouts: packed and padded {layout} give different vectors, cosine {cosine:.6f}")


def timed(runners: Mapping[str, PackRunner], batches: Sequence[PackedBatch], rounds: int) -> dict[str, list[float]]:
    """Seconds of all packs in each layout, a value a round. Their order is reversed every round."""
    seconds = {layout: [0.0] * rounds for layout in runners}
    for number, batch in itertools.product(range(rounds), batches):
        for layout in reversed(list(runners)) if number % 2 else list(runners):
            began_s = time.perf_counter()
            runners[layout].run(batch)
            seconds[layout][number] += time.perf_counter() - began_s
    return seconds


def rows(
    same: Row,
    batches: Sequence[PackedBatch],
    outputs: Mapping[str, Sequence["RunnerOutput"]],
    seconds: Mapping[str, Sequence[float]],
) -> Iterator[Row]:
    tokens, images = sum(batch.tokens for batch in batches), sum(len(batch.grids) for batch in batches)
    for layout, taken in seconds.items():
        computed = sum(output.computed_tokens for output in outputs[layout])
        ratios = [own / packed for own, packed in zip(taken, seconds["packed"], strict=True)]
        median_s = statistics.median(taken)
        yield {
            "layout": layout,
            **same,
            "tokens": tokens,
            "padding": f"{1 - tokens / computed:.1%}",
            "images_per_s": round(images / median_s, 1),
            "s_of_1000_images": round(1000 * median_s / images, 2),
            "over_packed": round(statistics.median(ratios), 2),
        }
