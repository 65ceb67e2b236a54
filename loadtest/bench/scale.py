"""What admission, queueing, packing and answering cost an image, with 10 to 10,000 queued images: a flat line.

The service's own `Admission`, `Embedder`, `Engine`, `Scheduler`, `pack` and answers run with a decoder and a runner
that do nothing: the decoder returns the same rows for every file, and the runner returns zeros once all images are
queued. Each image is a request of its own.

    us_an_image        processor time of the process from the first request to the last answer, median of the rounds
    without_collector  the same with Python's garbage collector off, whose cost grows with all live objects
    slope              of log(time of all) over log(images), from 100 images on: 1 is linear
"""

import asyncio
import gc
import statistics
import threading
import time
from dataclasses import dataclass

import numpy as np
import uvloop
from numpy.typing import NDArray

from model.images.decode import DecodeMode, ImageHeader
from model.memory import settle
from model.pack import PackedBatch, PackedDocuments, PackedTexts
from model.running.output import RunnerOutput
from model.sizing.geometry import Geometry
from model.sizing.plan import ImagePlan
from service.engine.device import HostDevice
from service.engine.engine import Engine
from service.http.answers import write_answer
from service.limits import Limits, ModelFacts
from service.metrics import Metrics
from service.requests.admission.admission import Admission
from service.requests.admission.hold import Hold
from service.requests.embedder import Embedder
from service.requests.parameters import EmbedParameters

_SIZES = (10, 30, 100, 300, 1_000, 3_000, 10_000)
_ROUNDS = 5
# 4 × 4 patches of 4 × 4 pixels: copying such small rows costs next to nothing.
_SIZE, _TOKENS, _PATCH, _DIM = (16, 16), 16, 4, 8
_FEWEST_IN_SLOPE = 100
_LINEAR_SLOPE = 1.1
_MODEL = ModelFacts(
    name="nothing", dim=_DIM, token_dim=_DIM, geometry=Geometry.for_naflex(_PATCH, _TOKENS),
    default_max_tokens=_TOKENS, parameters=0, fingerprint="", fast_fingerprint="",
    device="cpu", dtype="float32", attention="none",
)  # fmt: skip


class _Decoder:
    """Decodes every file to the same picture."""

    def __init__(self) -> None:
        self._rows = np.zeros((_TOKENS, 3 * _PATCH**2), np.uint8)

    def plain_header(self, data: bytes) -> ImageHeader:
        return ImageHeader("JPEG", _SIZE)

    async def patches(self, data: bytes, plan: ImagePlan, decode: DecodeMode) -> tuple[ImagePlan, NDArray[np.uint8]]:
        return plan, self._rows


class _Runner:
    """Returns zeros once the gate is open."""

    def __init__(self) -> None:
        self.gate = threading.Event()

    def run(self, batch: PackedBatch, *, tokens: bool = False) -> RunnerOutput:
        self.gate.wait()
        return RunnerOutput(np.zeros((len(batch.grids), _DIM), np.float32), None, batch.tokens)

    def run_texts(self, batch: PackedTexts) -> RunnerOutput:
        raise AssertionError("this benchmark sends no texts")

    def run_documents(self, documents: PackedDocuments) -> RunnerOutput:
        raise AssertionError("this benchmark sends no documents")


@dataclass(frozen=True, slots=True)
class _Service:
    admission: Admission
    embedder: Embedder
    engine: Engine
    runner: _Runner


def measure() -> list[dict[str, object]]:
    """Microseconds an image for each queue length, and whether the total is linear."""
    service = _build()
    costs: dict[tuple[int, bool], list[float]] = {}
    settle()  # as when a server has started
    try:
        for _ in range(_ROUNDS + 1):
            for size in _SIZES:
                for collecting in (True, False):
                    (gc.enable if collecting else gc.disable)()
                    costs.setdefault((size, collecting), []).append(uvloop.run(_all_at_once(service, size)))
    finally:
        gc.enable()
        service.engine.close(timeout_s=10)
    # The first round pays one-time costs.
    spent_s = {key: statistics.median(values[1:]) for key, values in costs.items()}
    rows: list[dict[str, object]] = [
        {
            "waiting": size,
            "us_an_image": round(spent_s[size, True] / size * 1e6, 1),
            "without_collector": round(spent_s[size, False] / size * 1e6, 1),
        }
        for size in _SIZES
    ]
    slopes = {collecting: _slope({size: spent_s[size, collecting] for size in _SIZES}) for collecting in (True, False)}
    verdicts = {collecting: "linear" if slope <= _LINEAR_SLOPE else "worse" for collecting, slope in slopes.items()}
    return [
        *rows,
        {"slope": round(slopes[True], 2), "verdict": verdicts[True]},
        {"slope_without_collector": round(slopes[False], 2), "verdict": verdicts[False]},
    ]


def _slope(spent_s: dict[int, float]) -> float:
    sizes = [size for size in _SIZES if size >= _FEWEST_IN_SLOPE]
    return float(np.polyfit(np.log(sizes), np.log([spent_s[size] for size in sizes]), 1)[0])


def _build() -> _Service:
    limits = Limits(
        default_max_tokens=_TOKENS, max_image_tokens=_TOKENS, max_batch_tokens=64 * _TOKENS,
        max_queue_tokens=2 * max(_SIZES) * _TOKENS,
    )  # fmt: skip
    metrics, runner = Metrics(), _Runner()
    engine = Engine(HostDevice(runner), _MODEL, limits, metrics=metrics)
    admission = Admission(limits, max_inflight_bytes=2**30, upload_timeout_s=20.0, client=engine, metrics=metrics)
    embedder = Embedder(client=engine, decoder=_Decoder(), limits=limits, metrics=metrics)  # type: ignore[arg-type]
    return _Service(admission, embedder, engine, runner)


async def _all_at_once(service: _Service, count: int) -> float:
    """Processor seconds for `count` requests that are queued together."""
    service.runner.gate.clear()
    began_s = time.process_time()
    tasks = [asyncio.ensure_future(_request(service)) for _ in range(count)]
    while service.admission.tokens < count * _TOKENS:  # noqa: ASYNC110 - the queue has no event for being full
        await asyncio.sleep(0)
    service.runner.gate.set()
    await asyncio.gather(*tasks)
    return time.process_time() - began_s


async def _request(service: _Service) -> None:
    parameters = EmbedParameters.model_construct()
    with Hold(service.admission) as hold:
        hold.keep([b"."])
        outcomes = await service.embedder.embed(hold, parameters, deadline_s=time.monotonic() + 600)
        hold.hand_over(write_answer(outcomes, parameters, _MODEL, "json").size)
