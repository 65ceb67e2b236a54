"""An answer charges what was planned, under every strategy and for hundreds of sizes. No picture is decoded."""

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from model.errors import BudgetError, TextError, UndecodableImage
from model.images.decode import DecodeMode, ImageHeader
from model.sizing.geometry import FixedInput, Geometry, Strategy
from model.sizing.plan import ImagePlan, plan_image
from model.texts.tokens import TextTokens
from service.engine.client import EngineClient, ImageJob, JobResult, Trust
from service.engine.cost.fit import CostFit
from service.errors import Invalid
from service.http.answers import write_answer
from service.limits import Limits, ModelFacts
from service.metrics import Metrics
from service.requests.admission.admission import Admission
from service.requests.admission.hold import Hold
from service.requests.decoder import Decoder
from service.requests.embedder import Embedder
from service.requests.parameters import EmbedParameters
from service.requests.results import EmbeddedImage, Outcome
from service.requests.text_reader import TextReader
from service.settings.settings import Settings
from tests.examples import PART

NAFLEX = Geometry.for_naflex(16, 256)
MODELS = {
    "naflex": NAFLEX,
    "naflex, other tiles": replace(NAFLEX, tile_side=192, pinpoints=((192, 192), (192, 576), (384, 384))),
    "siglip": Geometry.for_fixed(14, FixedInput(384, "squash", 384, "bicubic")),
    "clip": Geometry.for_fixed(14, FixedInput(336, "shortest_edge", 336, "bicubic")),
    "merging": Geometry(14, ("native", "square"), native_factor=2, native_max_pixels=2000 * 14**2),
}
CASES = [(name, strategy) for name, geometry in MODELS.items() for strategy in geometry.strategies]


def facts_of(geometry: Geometry) -> ModelFacts:
    default = (geometry.fixed.side // geometry.patch_size) ** 2 if geometry.fixed else 256
    return ModelFacts(
        name="m", dim=4, token_dim=4, geometry=geometry, default_max_tokens=default, parameters=1, fingerprint="f",
        fast_fingerprint="g", device="cpu", dtype="float32", attention="segmentwise",
    )  # fmt: skip


class BlankEngine:
    """An engine that keeps its jobs, and answers the same vector to each."""

    alive = ready = whole = True
    tokens_per_s = None
    trust = Trust()

    def __init__(self, model: ModelFacts) -> None:
        """cost: None until a device is known."""
        self.model = model
        self.cost: CostFit | None = None
        self.jobs: list[ImageJob] = []

    async def submit(self, job: ImageJob) -> JobResult:
        self.jobs.append(job)
        return JobResult(np.ones((len(job.grids), 4), np.float32), None, 0.0, 0.0, 0.0)

    def close(self, *, timeout_s: float) -> bool:
        return True


class BlankDecoder(Decoder):
    """Reads an image's size from its text, "height width", and decodes every picture as black."""

    async def header(self, data: bytes) -> ImageHeader:
        height, width = map(int, data.split())
        return ImageHeader("PNG", (height, width))

    async def patches(self, data: bytes, plan: ImagePlan, decode: DecodeMode) -> tuple[ImagePlan, NDArray[np.uint8]]:
        return plan, np.zeros((plan.tokens, 3), np.uint8)


class Bench:
    """An embedder of one model, between a decoder and an engine that do nothing."""

    def __init__(self, geometry: Geometry, *, text_reader: TextReader | None = None) -> None:
        self.facts = facts_of(geometry)
        chosen = Settings(max_queue_tokens=10**5 if text_reader else 10**9)
        self.limits, self.metrics = Limits.of(chosen, self.facts), Metrics()
        self.engine = BlankEngine(self.facts)
        client = cast(EngineClient, self.engine)
        self.admission = Admission(
            self.limits, max_inflight_bytes=10**9, upload_timeout_s=1, client=client, metrics=self.metrics
        )
        self._decoder = BlankDecoder(threads=1, max_decode_pixels=10**9, geometry=geometry)
        self.embedder = Embedder(
            client=client, decoder=self._decoder, limits=self.limits, metrics=self.metrics, text_reader=text_reader
        )

    def embed(self, sizes: Sequence[tuple[int, int]], parameters: EmbedParameters) -> list[Outcome]:
        with Hold(self.admission) as hold:
            hold.keep([b"%d %d" % size for size in sizes])
            work = self.embedder.embed(hold, parameters, deadline_s=time.monotonic() + 60)
            return asyncio.run(work)

    def answer(self, outcomes: list[Outcome], parameters: EmbedParameters) -> dict[str, object]:
        pieces = write_answer(outcomes, parameters, self.facts, "json").pieces
        return cast(dict[str, object], json.loads(b"".join(pieces)))


SIDES = st.one_of(st.integers(1, 400), st.integers(1, 5000), st.integers(1, 65_535))
SIZES = st.lists(st.tuples(SIDES, SIDES), min_size=200, max_size=300)


@pytest.mark.parametrize(("name", "strategy"), CASES)
@settings(max_examples=max(1, 3 // PART), deadline=None)
@given(sizes=SIZES, data=st.data())
def test_an_answer_charges_the_planned_tokens(
    name: str, strategy: Strategy, sizes: list[tuple[int, int]], data: st.DataObject
) -> None:
    bench = Bench(MODELS[name])
    least = 5 * bench.facts.default_max_tokens if strategy == "anyres" else bench.facts.default_max_tokens
    max_tokens = data.draw(st.none() | st.integers(least, 4 * least), label="max_tokens")
    named = None if strategy == MODELS[name].default_strategy else strategy
    parameters = EmbedParameters(strategy=named, max_tokens=max_tokens, partial=True)
    outcomes = bench.embed(sizes, parameters)
    charged = 0
    for size, outcome in zip(sizes, outcomes, strict=True):
        budget = bench.limits.budget(MODELS[name], strategy, max_tokens=max_tokens)
        if not isinstance(outcome, EmbeddedImage):
            with pytest.raises(BudgetError):
                plan_image(size, geometry=MODELS[name], budget=budget, strategy=strategy)
            continue
        plan = plan_image(size, geometry=MODELS[name], budget=budget, strategy=strategy)
        assert outcome.plan == plan
        assert plan.tokens <= budget.token_cap <= bench.limits.max_image_tokens
        charged += plan.tokens
    answered = len(bench.engine.jobs)
    assert answered > len(sizes) // 3
    assert bench.answer(outcomes, parameters)["usage"] == {"images": answered, "tokens": charged}
    assert sum(job.tokens for job in bench.engine.jobs) == charged
    assert sum(height * width for job in bench.engine.jobs for height, width in job.grids) == charged
    assert bench.admission.tokens == 0


@pytest.mark.parametrize(("name", "strategy"), CASES)
def test_the_tokens_of_a_request_are_split_under_every_strategy(name: str, strategy: Strategy) -> None:
    bench = Bench(MODELS[name])
    sizes = [(1500, 1500), (700, 2000), (90, 60), (1500, 1500)]
    full = bench.embed(sizes, EmbedParameters(strategy=strategy))
    plans = [outcome.plan for outcome in full if isinstance(outcome, EmbeddedImage)]
    spent = sum(plan.tokens for plan in plans)
    again = bench.embed(sizes, EmbedParameters(strategy=strategy, max_request_tokens=spent))
    assert [outcome.plan for outcome in again if isinstance(outcome, EmbeddedImage)] == plans
    if MODELS[name].fixed and strategy == "square":
        with pytest.raises(Invalid, match="cannot lower these images"):
            bench.embed(sizes, EmbedParameters(strategy=strategy, max_request_tokens=spent - 1))
        return
    fewer = bench.embed(sizes, EmbedParameters(strategy=strategy, max_request_tokens=spent - 1))
    assert sum(outcome.plan.tokens for outcome in fewer if isinstance(outcome, EmbeddedImage)) < spent


def test_min_pixels_reach_the_plan() -> None:
    bench = Bench(NAFLEX)
    (outcome,) = bench.embed([(40, 50)], EmbedParameters(strategy="native", min_pixels=100 * 100))
    assert isinstance(outcome, EmbeddedImage)
    assert outcome.plan.resized == (96, 112)


class LongRows(TextReader):
    """Reads every text as 1,000 ids."""

    def __init__(self) -> None:
        pass

    async def read(
        self, texts: Sequence[str | list[int]], *, truncate: bool, prompt: str = ""
    ) -> list[TextTokens | TextError]:
        return [TextTokens(np.zeros(1000, np.int32), 1000, False) for _ in texts]


@pytest.mark.parametrize(("images", "param"), [([], "texts"), ([b"64 64"], "max_request_tokens")])
def test_texts_that_never_fit_the_queue_are_named(images: list[bytes], param: str) -> None:
    bench = Bench(NAFLEX, text_reader=LongRows())
    with Hold(bench.admission) as hold:
        hold.keep(images, ["a"] * (bench.limits.max_queue_tokens // 1000 + 1))
        work = bench.embedder.embed(hold, EmbedParameters(), deadline_s=time.monotonic() + 60)
        with pytest.raises(Invalid, match="max_queue_tokens") as caught:
            asyncio.run(work)
    assert caught.value.param == param


class SlowDecoder(BlankDecoder):
    """Decodes one image after another, and notes for each how many had been handed to the engine by then."""

    def __init__(self, engine: BlankEngine) -> None:
        super().__init__(threads=1, max_decode_pixels=10**9, geometry=NAFLEX)
        self._engine, self._one_by_one = engine, asyncio.Lock()
        self.handed_over: list[int] = []

    async def patches(self, data: bytes, plan: ImagePlan, decode: DecodeMode) -> tuple[ImagePlan, NDArray[np.uint8]]:
        async with self._one_by_one:
            for _ in range(10):  # whoever has an image by now hands it over
                await asyncio.sleep(0)
            self.handed_over.append(len(self._engine.jobs))
            if data == b"9 9":
                raise UndecodableImage("broken")
            return await super().patches(data, plan, decode)


@pytest.mark.parametrize(
    ("cost", "handed_over"),
    [
        # A fast device gets them together, of which one is broken.
        (CostFit(1e-7, 0, 1e-3, None, 100), [0, 0, 0, 0]),
        # One for which an image is work enough gets each at once, as does one that nobody knows yet.
        (CostFit(1e-3, 0, 0, None, 100), [0, 1, 1, 2]),
        (None, [0, 1, 1, 2]),
    ],
)
def test_a_fast_device_gets_the_images_of_a_request_together(cost: CostFit | None, handed_over: list[int]) -> None:
    bench = Bench(NAFLEX)
    bench.engine.cost = cost
    decoder = SlowDecoder(bench.engine)
    embedder = Embedder(
        client=cast(EngineClient, bench.engine), decoder=decoder, limits=bench.limits, metrics=bench.metrics
    )

    async def run() -> list[Outcome]:
        work = embedder.embed(hold, EmbedParameters(partial=True), deadline_s=time.monotonic() + 60)
        return await asyncio.wait_for(work, 60)

    with Hold(bench.admission) as hold:
        hold.keep([b"64 64", b"9 9", b"64 64", b"64 64"])
        outcomes = asyncio.run(run())
    assert decoder.handed_over == handed_over
    assert len(bench.engine.jobs) == 3
    assert [isinstance(outcome, EmbeddedImage) for outcome in outcomes] == [True, False, True, True]
