"""How well the seconds of a pack are predicted before it runs.

A `PackExecutor` with a real runner warms up as a server does, runs 40 packs of random images, and then 30 more, each
predicted before it runs. `/plan` and the engine's watch get the same prediction. `by_rate` is the error of predicting
by tokens over the measured rate.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from model.checkpoint import tiny
from model.checkpoint.load import Checkpoint, load_checkpoint
from model.encoders.siglip.naflex import NaFlexConfig
from model.running.runner import Runner
from service.engine.client import ImageJob, JobResult
from service.engine.device import device_of
from service.engine.executor import PackExecutor
from service.limits import Limits
from service.loading import warm_up
from service.metrics import Metrics

_SEEN, _UNSEEN = 40, 30
_LIMITS = Limits(256, 1024, 4096, 32_768)
_THREE_BLOCKS = NaFlexConfig(width=768, depth=3, heads=12, mlp_width=3072)


@dataclass(frozen=True)
class _Image:
    job: ImageJob
    arrived_s: float = 0.0


def measure() -> list[dict[str, object]]:
    """Relative errors in percent for each model. `within_25`: how many of the 30 packs were off by 25% at most."""
    return [_case("packlight-tiny", load_checkpoint(tiny.NAME)), _case("base width, three blocks", _three_blocks())]


def _case(name: str, checkpoint: Checkpoint) -> dict[str, object]:
    runner = Runner(checkpoint, device="cpu")
    executor = PackExecutor(device_of(runner), _LIMITS, metrics=Metrics(), cost=warm_up(runner, _LIMITS))
    random = np.random.default_rng(7)
    for _ in range(_SEEN):
        _run(executor, _pack(random))
    errors, by_rate, predicted_s, measured_s = [], [], 0.0, 0.0
    for _ in range(_UNSEEN):
        images = _pack(random)
        tokens = sum(image.job.tokens for image in images)
        squares = sum((h * w) ** 2 for image in images for h, w in image.job.grids)
        assert executor.cost.fit, "40 packs are enough for a fit"
        assert executor.cost.tokens_per_s, "40 packs are enough for a rate"
        predicted, at_rate = executor.cost.fit.seconds(tokens, squares), tokens / executor.cost.tokens_per_s
        seconds = _run(executor, images)
        errors.append(abs(predicted - seconds) / seconds * 100)
        by_rate.append(abs(at_rate - seconds) / seconds * 100)
        predicted_s, measured_s = predicted_s + predicted, measured_s + seconds
    return {
        "case": name,
        "dtype": runner.dtype_name,
        "packs": _UNSEEN,
        "median_error": round(statistics.median(errors), 1),
        "p90_error": round(float(np.percentile(errors, 90)), 1),
        "within_25": sum(error <= 25 for error in errors),
        "all_together_error": round((predicted_s / measured_s - 1) * 100, 1),
        "median_error_by_rate": round(statistics.median(by_rate), 1),
    }


def _pack(random: np.random.Generator) -> list[_Image]:
    """Random images, small, large or mixed, up to a full pack."""
    smallest, largest = [(4, 16), (12, 24), (4, 32), (24, 32)][random.integers(4)]
    room = int(random.integers(64, _LIMITS.max_batch_tokens + 1))
    images: list[_Image] = []
    while room > 0:
        height, width = (int(side) for side in random.integers(smallest, largest + 1, size=2))
        if height * width > room and images:
            break
        room -= height * width
        rows = random.integers(0, 256, (height * width, 768), np.uint8)
        images.append(_Image(ImageJob(rows, ((height, width),), height * width, None, False)))
    return images


def _run(executor: PackExecutor, images: Sequence[_Image]) -> float:
    """Seconds of building the pack and of its forward."""
    (outcomes,) = executor.run(images)
    result = outcomes[0]
    assert isinstance(result, JobResult), "no pack fails here"
    return result.pack_s + result.forward_s


def _three_blocks() -> Checkpoint:
    return Checkpoint(
        name="base width, three blocks, random",
        config=_THREE_BLOCKS,
        tensors=tiny.seeded_tensors(_THREE_BLOCKS),
        preprocessing=tiny.PREPROCESSING,
        digest="",
    )
