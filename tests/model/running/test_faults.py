"""How exceptions from a forward are classified, and what they keep in memory."""

import contextlib
import gc
import weakref
from collections.abc import Iterator

import pytest
import torch

from model.checkpoint.load import load_checkpoint
from model.encoders.parts.arrangement import Arrangement
from model.encoders.parts.tower import EncoderOutput
from model.errors import DeviceOutOfMemory
from model.running.faults import blame_device
from model.running.runner import Runner
from tests.reference import random_pack

CPU = torch.device("cpu")


class Activations:
    """Stands for a tensor of a forward."""


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


def test_a_refusal_by_the_cpu_allocator_is_out_of_memory():
    with pytest.raises(RuntimeError) as refused:
        torch.empty(2**60, dtype=torch.uint8)
    with pytest.raises(DeviceOutOfMemory):
        blame_device(refused.value, CPU)


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory")])
def test_an_out_of_memory_exception_is_out_of_memory(error: Exception):
    with pytest.raises(DeviceOutOfMemory):
        blame_device(error, CPU)


def test_any_other_error_does_not_blame_the_device():
    blame_device(RuntimeError("mat1 and mat2 shapes cannot be multiplied"), CPU)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("error", [torch.OutOfMemoryError("full"), RuntimeError("a kernel failed")])
def test_a_failed_forward_keeps_nothing_alive_while_its_exception_lives(
    no_collector: None, error: Exception, threads: int
) -> None:
    runner = Runner(load_checkpoint("packlight-tiny"))
    held: list[weakref.ref[Activations]] = []

    def failing(patches: torch.Tensor, arrangement: Arrangement) -> EncoderOutput:
        activations = Activations()
        held.append(weakref.ref(activations))
        raise error

    runner.encoder.forward = failing  # type: ignore[method-assign]
    threads_before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        with pytest.raises((DeviceOutOfMemory, RuntimeError)) as raised:
            runner.run(random_pack([(4, 4)] * threads))
    finally:
        torch.set_num_threads(threads_before)
    assert raised.value is error or raised.value.__cause__ is error
    assert [activations() for activations in held] == [None] * threads


def test_an_exception_goes_with_its_last_reference(no_collector: None) -> None:
    """A cycle through a frame would keep it, and the pack, until the next collection."""
    runner = Runner(load_checkpoint("packlight-tiny"))
    raised: list[weakref.ref[MemoryError]] = []

    class Full(MemoryError):
        pass

    def failing(patches: torch.Tensor, arrangement: Arrangement) -> EncoderOutput:
        error = Full()
        raised.append(weakref.ref(error))
        raise error

    runner.encoder.forward = failing  # type: ignore[method-assign]
    with contextlib.suppress(DeviceOutOfMemory):
        runner.run(random_pack([(4, 4)]))
    assert raised[0]() is None


def test_the_device_cache_is_emptied_after_the_failed_forward_is_freed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found: list[object] = []
    held: list[weakref.ref[Activations]] = []

    def failing() -> None:
        activations = Activations()
        held.append(weakref.ref(activations))
        raise torch.OutOfMemoryError("full")

    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: found.append(held[0]()))
    try:
        failing()
    except torch.OutOfMemoryError as error:
        with pytest.raises(DeviceOutOfMemory):
            blame_device(error, torch.device("cuda"))
    assert found == [None]
