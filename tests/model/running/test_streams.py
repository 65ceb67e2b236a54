"""Forwards on three streams. Real encoders, and streams that keep the order of what they were given."""

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model.checkpoint.load import load_checkpoint
from model.errors import DeviceOutOfMemory
from model.pack import PackedBatch, pack, pack_texts
from model.running.runner import Runner
from model.running.staging import Staging
from model.running.streams import Begun, DeviceOutput, Streams
from tests.gemma import random_documents, save_model
from tests.model.running.cuda import RecordedCuda
from tests.reference import random_pack
from tests.text_models import load_whole

CPU = torch.device("cpu")


@pytest.fixture
def cuda() -> RecordedCuda:
    return RecordedCuda()


def by_itself(runner: Runner, cuda: RecordedCuda) -> Runner:
    """The runner as on a CUDA device."""
    runner._streams = Streams(CPU, cuda)
    if runner.texts is not None and hasattr(runner.texts, "_streams"):
        runner.texts._streams = runner._streams
    cuda.log.clear()
    return runner


@pytest.fixture
def tiny() -> Runner:
    return Runner(load_checkpoint("packlight-tiny"), dtype="float32")


def batch() -> PackedBatch:
    return random_pack([(4, 4), (2, 8), (3, 5)])


def test_images_have_the_vectors_of_a_plain_forward(tiny: Runner, cuda: RecordedCuda) -> None:
    plain = tiny.run(batch(), tokens=True)
    found = by_itself(tiny, cuda).run(batch(), tokens=True)
    np.testing.assert_allclose(found.pooled, plain.pooled, atol=1e-5)
    assert found.tokens is not None
    assert plain.tokens is not None
    np.testing.assert_allclose(found.tokens, plain.tokens, atol=1e-5)
    assert found.computed_tokens >= batch().tokens
    assert tiny.run(batch()).tokens is None


def test_texts_have_their_vectors_in_their_order(tmp_path: Path, cuda: RecordedCuda) -> None:
    runner, facts = load_whole(tmp_path, "clip")
    assert runner.texts is not None
    assert facts.text is not None
    ids = [np.array([5] * length + [facts.text.vocabulary - 1], np.int32) for length in (7, 2, 12, 2)]
    plain = runner.run_texts(pack_texts(ids))
    found = by_itself(runner, cuda).run_texts(pack_texts(ids))
    np.testing.assert_allclose(found.pooled, plain.pooled, atol=1e-5)
    assert len(np.unique(found.pooled.round(4), axis=0)) == 3


def test_documents_have_the_vectors_of_a_plain_forward(tmp_path: Path, cuda: RecordedCuda) -> None:
    documents = random_documents(save_model(tmp_path), [[5, (3, 6), 2], [4], [(6, 3)]])
    runner = Runner(load_checkpoint(str(tmp_path)), dtype="float32")
    plain = runner.run_documents(documents)
    np.testing.assert_allclose(by_itself(runner, cuda).run_documents(documents).pooled, plain.pooled, atol=1e-5)


def noting(what: str, do: Callable[..., Any], cuda: RecordedCuda) -> Callable[..., Any]:
    def done(*given: Any) -> Any:
        cuda.note(cuda.current, what)
        return do(*given)

    return done


def test_a_forward_begins_after_its_copies_and_the_host_waits_only_for_the_result(
    tiny: Runner, cuda: RecordedCuda
) -> None:
    runner = by_itself(tiny, cuda)
    runner.encoder.arrange = noting("arranges", runner.encoder.arrange, cuda)  # type: ignore[method-assign]
    runner.encoder.forward = noting("forward", runner.encoder.forward, cuda)  # type: ignore[method-assign]
    first, second = runner.begin(batch()), runner.begin(batch())
    one = [
        ("inward", "arranges"), ("inward", "event"),
        ("compute", "waits for inward"), ("compute", "event"), ("compute", "forward"), ("compute", "event"),
        ("outward", "waits for compute"), ("outward", "event"),
    ]  # fmt: skip
    assert cuda.log == [*one, *one]
    cuda.log.clear()
    assert first.busy_s == 0.0
    first.result()
    assert first.busy_s == 0.0025
    assert cuda.log == [("host", "waits for outward")]
    second.result()


def test_what_the_device_reads_is_kept_until_the_result_is_there(cuda: RecordedCuda) -> None:
    streams = Streams(CPU, cuda)
    made: list[weakref.ref[torch.Tensor]] = []

    def arrange() -> torch.Tensor:
        arranged = torch.ones(3, 4)
        made.append(weakref.ref(arranged))
        return arranged

    begun = streams.begin(arrange, lambda arranged: DeviceOutput(arranged * 2, None, 3))
    assert made[0]() is not None
    assert begun.result().pooled.tolist() == [[2.0] * 4] * 3
    assert made[0]() is None


@pytest.mark.parametrize("error", [RuntimeError("a kernel failed"), torch.OutOfMemoryError("full")])
def test_a_forward_that_cannot_be_launched_is_waited_for_before_its_memory_is_freed(
    cuda: RecordedCuda, error: Exception
) -> None:
    streams = Streams(CPU, cuda)
    cuda.log.clear()

    def fails(arranged: None) -> DeviceOutput:
        raise error

    with pytest.raises((RuntimeError, DeviceOutOfMemory)) as raised:
        streams.begin(lambda: None, fails)
    assert (raised.type is DeviceOutOfMemory) == isinstance(error, torch.OutOfMemoryError)
    assert cuda.log[-1] == ("host", "waits for all")


def test_staging_gives_memory_of_its_own_to_each_batch_of_a_pack_and_the_same_to_the_next_pack(
    cuda: RecordedCuda,
) -> None:
    staging, streams = Staging(), Streams(CPU, cuda)
    staging.rows(1000, 48)
    staging.reuse()
    first, second = staging.rows(3, 48), staging.rows(5, 48)
    first[:], second[:] = 1, 2
    assert (first == 1).all()
    assert (first.shape, second.shape) == ((3, 48), (5, 48))
    begun: Begun = streams.begin(lambda: None, lambda _: DeviceOutput(torch.ones(1, 4), None, 1))
    staging.read_by(begun)
    cuda.log.clear()
    staging.reuse()
    assert cuda.log == [("host", "waits for inward")]
    assert np.shares_memory(staging.rows(4, 48), first)
    staging.reuse()
    assert len(cuda.log) == 1


def test_staging_grows_and_leaves_what_it_gave_before_as_it_was() -> None:
    staging = Staging()
    small = staging.rows(2, 48)
    small[:] = 7
    large = staging.rows(10_000, 48)
    large[:] = 9
    assert (small == 7).all()


def test_the_staging_of_a_warm_runner_has_room_for_what_it_was_warmed_up_with(tiny: Runner) -> None:
    tiny.warm_up([16, 16])
    staging = tiny.staging()
    first = staging.rows(4, 768)
    assert np.shares_memory(staging._memory.numpy(), first)
    assert len(staging._memory) == 32 * 768


def test_a_pack_can_be_gathered_in_given_memory() -> None:
    staging = Staging()
    rows = [np.full((4, 48), value, np.uint8) for value in (1, 2)]
    made = pack(rows, [(2, 2), (4, 1)], memory=staging.rows)
    assert np.array_equal(made.rows, np.concatenate(rows))
    staging.reuse()
    assert np.shares_memory(made.rows, staging.rows(8, 48))
