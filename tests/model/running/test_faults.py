"""What an exception out of a forward is taken for."""

import pytest
import torch

from model.errors import DeviceOutOfMemory
from model.running.faults import device_error

CPU = torch.device("cpu")


def test_what_the_allocator_of_the_cpu_refuses_is_out_of_memory():
    with pytest.raises(RuntimeError) as refused:
        torch.empty(2**60, dtype=torch.uint8)
    assert isinstance(device_error(refused.value, CPU), DeviceOutOfMemory)


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory")])
def test_what_says_so_itself_is_out_of_memory(error: Exception):
    assert isinstance(device_error(error, CPU), DeviceOutOfMemory)


def test_any_other_error_stays_what_it_is():
    error = RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    assert device_error(error, CPU) is error
