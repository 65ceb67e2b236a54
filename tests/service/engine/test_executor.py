"""The executor: a failing pack is taken apart until the image at fault is found; the others have their vectors."""

import gc
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from model.checkpoint.load import load_checkpoint
from model.encoders.parts.arrangement import Arrangement
from model.encoders.parts.tower import EncoderOutput
from model.errors import DeviceLost, DeviceOutOfMemory
from model.pack import PackedBatch, PackedDocuments, PackedTexts
from model.running.output import RunnerOutput
from model.running.runner import Runner
from service.engine.client import DocumentJob, ImageJob, Job, JobResult, TextJob
from service.engine.cost.fit import CostModel
from service.engine.device import HostDevice
from service.engine.executor import PackExecutor
from service.engine.outcomes import Outcome
from service.engine.pack_bound import RECOVERY_S
from service.engine.under_way import EngineWatch
from service.errors import EngineFault
from service.limits import Limits
from service.metrics import Metrics, PackItem

LIMITS = Limits(default_max_tokens=16, max_image_tokens=32, max_batch_tokens=320, max_queue_tokens=1000)
POISON = 255


@dataclass(frozen=True)
class Item:
    job: Job
    arrived_s: float = 0.0


@dataclass
class Sick:
    """A segment's vector is the sum of its rows; a poisoned one, or too many tokens, are answered with an exception."""

    most_tokens: int = 1000
    poisoned: Exception = field(default_factory=RuntimeError)
    packs: list[list[int]] = field(default_factory=list)

    def run(self, batch: PackedBatch, *, tokens: bool = False) -> RunnerOutput:
        self.packs.append(np.diff(batch.cu_seqlens).tolist())
        if batch.tokens > self.most_tokens:
            raise DeviceOutOfMemory("full")
        if (batch.rows == POISON).any():
            raise self.poisoned
        return RunnerOutput(
            np.add.reduceat(batch.rows[:, :1].astype(np.float32), batch.cu_seqlens[:-1]), None, batch.tokens
        )

    def run_texts(self, batch: PackedTexts) -> RunnerOutput:
        return self.run(PackedBatch(batch.ids[:, None].astype(np.uint8), batch.cu_seqlens, (), batch.max_seqlen))

    def run_documents(self, documents: PackedDocuments) -> RunnerOutput:
        """A document's vector is the sum of its ids and of its rows' first values."""
        sums = [part.sum() for part in np.split(documents.ids, documents.cu_seqlens[1:-1])]
        if documents.pictures is not None:
            for number, (first, last) in enumerate(pairwise(documents.cu_pictures.tolist())):
                start, end = documents.pictures.cu_seqlens[[first, last]]
                sums[number] += documents.pictures.rows[start:end, 0].sum()
        return RunnerOutput(np.array(sums, np.float32)[:, None], None, documents.tokens)


def document(text: int, *grids: tuple[int, int], value: int = 1) -> Item:
    """A document of a text and gray pictures, whose vector is `value` with so many rows."""
    patches = sum(height * width for height, width in grids)
    ids = np.full(text, value, np.int32)
    rows = np.full((patches, 3), value, np.uint8)
    return Item(DocumentJob(ids, rows, grids, text, (100,) * len(grids), 64, None))


def image(tokens: int, value: int = 1) -> Item:
    return Item(ImageJob(np.full((tokens, 3), value, np.uint8), ((tokens, 1),), tokens, None, False))


def text(tokens: int, value: int = 1) -> Item:
    return Item(TextJob(np.full(tokens, value, np.int32), token_cap=8, deadline_s=None))


class Watch(EngineWatch):
    def __init__(self) -> None:
        self.events: list[Sequence[str] | None] = []
        self.predicted_s: list[float | None] = []

    def begins(self, number: int, names: Sequence[str], predicted_s: float | None) -> None:
        self.events.append(names)
        self.predicted_s.append(predicted_s)

    def ends(self, number: int, *, succeeded: bool) -> None:
        self.events.append(None)


class Clock:
    """Stands still until a test moves it."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def executor(runner: Sick, watch: Watch | None = None, clock: Clock | None = None) -> tuple[PackExecutor, Metrics]:
    metrics = Metrics()
    return PackExecutor(HostDevice(runner), LIMITS, metrics=metrics, watch=watch, clock=clock or Clock()), metrics


def outcomes(made: PackExecutor, images: Sequence[Item]) -> list[Outcome]:
    return [outcome for part in made.run(images) for outcome in part]


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_exactly_the_poisoned_images_of_any_pack_fail(poisoned: list[bool]):
    made, _ = executor(Sick())
    images = [image(2, POISON if bad else 3) for bad in poisoned]
    found = outcomes(made, images)
    assert [isinstance(outcome, EngineFault) for outcome in found] == poisoned
    assert all(outcome.pooled[0, 0] == 6 for outcome in found if isinstance(outcome, JobResult))


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 8), st.integers(1, 9)), min_size=1, max_size=20))
def test_texts_and_images_of_one_pack_each_get_their_own_vectors(drawn: list[tuple[bool, int, int]]):
    runner = Sick()
    made, metrics = executor(runner)
    items = [(text if is_text else image)(tokens, value) for is_text, tokens, value in drawn]
    found = outcomes(made, items)
    sums = [outcome.pooled.tolist() for outcome in found if isinstance(outcome, JobResult)]
    assert sums == [[[tokens * value]] for _, tokens, value in drawn]
    kinds = [[tokens for is_text, tokens, _ in drawn if is_text is wanted] for wanted in (False, True)]
    assert runner.packs == [tokens for tokens in kinds if tokens]
    for kind, tokens in zip(("image", "text"), kinds, strict=True):
        assert metrics.registry.get_sample_value("packlight_tokens_total", {"kind": kind}) == sum(tokens)


def test_documents_images_and_texts_of_one_pack_each_get_their_own_vectors() -> None:
    items = [document(3), image(4, 2), document(2, (3, 3), (6, 3), value=5), text(7), document(1, (3, 3))]
    run, metrics = executor(Sick())
    (outcomes,) = run.run(items)
    pooled = [outcome.pooled.sum() for outcome in outcomes if isinstance(outcome, JobResult)]
    assert pooled == [3, 8, 5 * 29, 7, 10]
    for kind, tokens in (("image", 4 + 27 + 9), ("text", 3 + 2 + 7 + 1)):
        assert metrics.registry.get_sample_value("packlight_tokens_total", {"kind": kind}) == tokens


def test_a_poisoned_text_fails_alone():
    made, _ = executor(Sick())
    found = outcomes(made, [image(2), text(3), text(3, POISON), image(4)])
    assert [type(outcome) for outcome in found] == [JobResult, JobResult, EngineFault, JobResult]
    assert "this text" in str(found[2])


def test_a_device_that_failed_on_texts_is_probed_with_a_text():
    runner = Sick(most_tokens=0)
    made, _ = executor(runner)
    for _ in range(8):
        outcomes(made, [text(3)])
    runner.most_tokens = 100
    made.probe()
    assert runner.packs[-1] == [3]
    assert not made.failing


def test_one_poisoned_image_among_many_costs_the_logarithm_of_their_number():
    runner = Sick()
    outcomes(executor(runner)[0], [image(1, POISON if place == 37 else 1) for place in range(64)])
    assert len(runner.packs) == 1 + 2 * 6


def test_a_pack_too_large_for_the_memory_runs_in_parts():
    made, metrics = executor(Sick(most_tokens=100))
    assert all(isinstance(outcome, JobResult) for outcome in outcomes(made, [image(30) for _ in range(8)]))
    assert made.max_batch_tokens == 320
    assert metrics.registry.get_sample_value("packlight_forward_faults_total", {"kind": "out_of_memory"}) == 3


def test_packs_get_smaller_when_memory_runs_out_repeatedly():
    runner = Sick(most_tokens=200)
    made, metrics = executor(runner)
    for _ in range(2):
        outcomes(made, [image(30) for _ in range(10)])
    assert made.max_batch_tokens == 225
    assert metrics.registry.get_sample_value("packlight_max_batch_tokens") == 225
    outcomes(made, [image(30) for _ in range(7)])
    assert made.max_batch_tokens == 157


def test_packs_grow_again_after_a_while_without_faults():
    runner, clock = Sick(most_tokens=200), Clock()
    made, metrics = executor(runner, clock=clock)
    for _ in range(2):
        outcomes(made, [image(30) for _ in range(10)])
    clock.now_s += RECOVERY_S
    assert made.max_batch_tokens == 300
    outcomes(made, [image(30)])
    assert metrics.registry.get_sample_value("packlight_max_batch_tokens") == 300
    clock.now_s += RECOVERY_S
    assert made.max_batch_tokens == 320


def test_packs_never_get_too_small_for_the_largest_image():
    made, _ = executor(Sick(most_tokens=5))
    for _ in range(20):
        outcomes(made, [image(10) for _ in range(4)])
    assert made.max_batch_tokens == LIMITS.max_image_tokens


def test_the_error_of_an_image_too_large_for_the_memory_names_max_tokens():
    (outcome,) = outcomes(executor(Sick(most_tokens=5))[0], [image(10)])
    assert isinstance(outcome, EngineFault)
    assert "max_tokens" in outcome.message


def test_a_lost_device_is_not_tried_again():
    runner = Sick(poisoned=DeviceLost("gone"))
    made, _ = executor(runner)
    with pytest.raises(DeviceLost):
        outcomes(made, [image(1), image(1, POISON)])
    assert len(runner.packs) == 1


def test_the_device_is_failing_after_eight_packs_without_success_until_one_succeeds():
    made, _ = executor(Sick())
    for _ in range(8):
        assert not made.failing
        outcomes(made, [image(1, POISON), image(2, POISON)])
    assert made.failing
    outcomes(made, [image(1, POISON), image(1)])
    assert not made.failing


def test_the_watch_is_told_of_the_start_and_end_of_every_forward():
    watch = Watch()
    named = [
        Item(ImageJob(np.full((1, 3), value, np.uint8), ((1, 1),), 1, None, False, name=str(value)))
        for value in (1, POISON)
    ]
    outcomes(executor(Sick(), watch)[0], named)
    assert watch.events == [["1", "255"], None, ["1"], None, ["255"], None]


def test_a_pack_is_predicted_by_the_rate_until_there_is_a_fit():
    clock, watch = Clock(), Watch()

    class Timed(Sick):
        """Takes a millisecond a token and ten a pack."""

        def run(self, batch: PackedBatch, *, tokens: bool = False) -> RunnerOutput:
            clock.now_s += 0.001 * batch.tokens + 0.01
            return super().run(batch, tokens=tokens)

    made, _ = executor(Timed(), watch, clock)
    for tokens in (1, 5, 9, 20, 30, 3, 14, 25):
        assert made.cost.fit is None
        outcomes(made, [image(tokens)])
    assert watch.predicted_s[0] is None
    assert watch.predicted_s[1] == pytest.approx(5 * 0.011)
    assert made.cost.fit is not None
    outcomes(made, [image(10), image(6)])
    assert watch.predicted_s[-1] == pytest.approx(made.cost.fit.seconds(16, 136), rel=0.01)
    assert watch.predicted_s[-1] == pytest.approx(0.026, rel=0.2)
    assert made.cost.fit.packs == 9


def test_a_failed_forward_has_left_memory_when_its_halves_are_tried() -> None:
    runner = Runner(load_checkpoint("packlight-tiny"), dtype="float32")
    forward = runner.encoder.forward
    held: list[weakref.ref[Tensor]] = []
    alive: list[Tensor | None] = []

    def full(patches: Tensor, arrangement: Arrangement) -> EncoderOutput:
        alive.extend(activations() for activations in held)
        if arrangement.segments.count > 1:
            activations = patches.clone()
            held.append(weakref.ref(activations))
            raise MemoryError
        return forward(patches, arrangement)

    runner.encoder.forward = full  # type: ignore[method-assign]
    gray = ImageJob(np.zeros((16, 768), np.uint8), ((4, 4),), 16, None, False)
    found = outcomes(PackExecutor(HostDevice(runner), LIMITS, metrics=Metrics()), [Item(gray)] * 5)
    assert all(isinstance(outcome, JobResult) for outcome in found)
    assert len(held) > 1
    assert set(alive) == {None}


class SickAnew(Sick):
    """Keeps no exception that it has raised."""

    def run(self, batch: PackedBatch, *, tokens: bool = False) -> RunnerOutput:
        self.poisoned = RuntimeError()
        try:
            return super().run(batch)
        finally:
            del self.poisoned


@pytest.mark.parametrize("at_fault", [{0}, {3}, {1, 3}, {0, 1, 2, 3}])
def test_a_failed_pack_is_let_go_of_without_collecting_garbage(
    at_fault: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its rows may be memory that other processes wait for."""
    # A record of the log would keep the error, whose frames keep the pack.
    monkeypatch.setattr("service.engine.executor._log.disabled", True)
    made, _ = executor(SickAnew())
    items = [image(2, POISON if place in at_fault else 1) for place in range(4)]
    rows = [weakref.ref(item.job.rows) for item in items if isinstance(item.job, ImageJob)]
    gc.disable()
    try:
        found = outcomes(made, items)
        del items
        assert {place for place, outcome in enumerate(found) if isinstance(outcome, EngineFault)} == at_fault
        assert [kept() for kept in rows] == [None] * 4
    finally:
        gc.enable()


def breaks(*given: object, **named: object) -> None:
    raise OSError("no space left on device")


def test_a_fault_of_the_metrics_is_no_fault_of_the_pack(caplog: pytest.LogCaptureFixture):
    runner = Sick()
    made, metrics = executor(runner)
    metrics.observe_pack = breaks  # type: ignore[method-assign]
    found = outcomes(made, [image(2), image(3)])
    assert [outcome.pooled[0, 0] for outcome in found if isinstance(outcome, JobResult)] == [2, 3]
    assert runner.packs == [[2, 3]]
    assert not made.failing
    assert "no space left on device" in caplog.text


def test_a_fault_of_the_metrics_does_not_hide_a_fault_of_the_pack():
    made, metrics = executor(Sick())
    metrics.forward_faults.labels = breaks  # type: ignore[method-assign, assignment]
    found = outcomes(made, [image(2), image(3, POISON)])
    assert [type(outcome) for outcome in found] == [JobResult, EngineFault]


def test_a_fault_of_the_cost_fit_is_no_fault_of_the_pack():
    class Unfit(CostModel):
        def observe(self, sum_n: int, sum_n2: int, seconds: float, *, taken_s: float | None = None) -> None:
            raise np.linalg.LinAlgError

    runner, metrics = Sick(), Metrics()
    made = PackExecutor(HostDevice(runner), LIMITS, metrics=metrics, cost=Unfit())
    (found,) = outcomes(made, [image(2)])
    assert isinstance(found, JobResult)
    assert runner.packs == [[2]]
    assert metrics.registry.get_sample_value("packlight_pack_tokens_count") == 1


def test_packs_that_fail_cost_nothing():
    made, _ = executor(Sick())
    outcomes(made, [image(3, POISON)] * 9)
    assert made.cost.fit is None


def test_a_device_that_runs_the_probe_is_not_failing():
    made, _ = executor(Sick())
    for _ in range(8):
        outcomes(made, [image(2, POISON)])
    assert made.failing
    made.probe()
    assert not made.failing


def test_the_watch_is_told_of_a_probe_as_well():
    watch = Watch()
    made, _ = executor(Sick(), watch)
    outcomes(made, [image(2, POISON)])
    del watch.events[:]
    made.probe()
    assert watch.events == [[], None]


def test_a_device_that_fails_on_the_probe_goes_on_failing():
    runner = Sick(most_tokens=0)
    made, _ = executor(runner)
    for _ in range(8):
        outcomes(made, [image(2)])
    made.probe()
    assert made.failing
    runner.most_tokens = 100
    made.probe()
    assert not made.failing


def test_a_text_of_which_the_device_computes_less_is_counted_and_has_no_padding():
    metrics = Metrics()
    metrics.observe_pack([PackItem("text", 10, 77)], computed_tokens=3, max_batch_tokens=100)
    found = {
        kind: metrics.registry.get_sample_value("packlight_tokens_total", {"kind": kind})
        for kind in ("text", "padding")
    }
    assert found == {"text": 10, "padding": 0}


def test_a_pack_of_the_canary_alone_counts_in_no_figure_of_packs_or_padding():
    metrics = Metrics()
    metrics.observe_pack([PackItem("canary", 10, 10)], computed_tokens=16, max_batch_tokens=100)
    sample = metrics.registry.get_sample_value
    assert sample("packlight_tokens_total", {"kind": "canary"}) == 16
    assert sample("packlight_tokens_total", {"kind": "padding"}) == 0
    assert sample("packlight_pack_tokens_count") == sample("packlight_padding_waste_ratio_count") == 0
    # Beside others its tokens are computed, and nothing would have padded them.
    items = [PackItem("image", 20, 30), PackItem("canary", 10, 10)]
    metrics.observe_pack(items, computed_tokens=32, max_batch_tokens=100)
    assert sample("packlight_tokens_total", {"kind": "padding"}) == 2
    assert sample("packlight_pack_images_sum") == 1
    assert sample("packlight_padding_avoided_tokens_total", {"layout": "pad_to_cap"}) == 10


def test_packs_with_texts_count_for_the_rate_and_not_for_the_fit():
    class Slow(Sick):
        """A token of text takes a quarter of the time of one of an image."""

        def run(self, batch: PackedBatch, *, tokens: bool = False) -> RunnerOutput:
            clock.now_s += batch.tokens / (1 if batch.grids else 4)
            return super().run(batch, tokens=tokens)

    clock = Clock()
    made, _ = executor(Slow(), clock=clock)
    for count in range(1, 20):
        outcomes(made, [image(4)] * count)
    fit = made.cost.fit
    assert fit is not None
    assert made.cost.tokens_per_s == pytest.approx(1)
    for count in range(1, 40):
        outcomes(made, [text(4)] * count)
        outcomes(made, [text(4)] * count + [image(3)])
    assert made.cost.fit is fit
    assert made.cost.tokens_per_s is not None
    assert made.cost.tokens_per_s > 2


@pytest.mark.parametrize("kind", [image, text])
def test_nothing_of_an_item_at_fault_is_kept_for_a_probe(
    kind: Callable[[int, int], Item], monkeypatch: pytest.MonkeyPatch
) -> None:
    # A record of the log would keep the error, and so does the runner, which raises it again.
    monkeypatch.setattr("service.engine.executor._log.disabled", True)
    runner = Sick()
    made, _ = executor(runner)
    at_fault = kind(3, POISON)
    job = at_fault.job
    kept = weakref.ref(job.ids if isinstance(job, TextJob) else job.rows)
    assert isinstance(outcomes(made, [at_fault])[0], EngineFault)
    runner.poisoned.__traceback__ = None
    del at_fault, job
    assert kept() is None
