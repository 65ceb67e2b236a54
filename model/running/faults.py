"""What an exception out of a forward says of the device: too little memory, lost to this process, or neither."""

import logging

import torch

from model.errors import DeviceLost, DeviceOutOfMemory

# What the allocator of the CPU says; it has no exception of its own.
_CPU_ALLOCATOR = "DefaultCPUAllocator"

_log = logging.getLogger(__name__)


def device_error(error: Exception, device: torch.device) -> Exception:
    """The `DeviceError` that `error` amounts to, or `error` itself where the device is not to blame.

    After running out of memory the cache of a CUDA device is emptied, so that a smaller pack finds what is free in one
    piece. After anything else it is asked whether it still answers: an illegal access or a failed assertion on the
    device poisons every call that follows, and nothing but a new process helps.
    """
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)) or _CPU_ALLOCATOR in str(error):
        if device.type == "cuda":
            torch.cuda.empty_cache()
        return DeviceOutOfMemory(f"no memory for this pack on {device}")
    if device.type == "cuda" and not _answers(device):
        return DeviceLost(f"{device} does not answer any more")
    return error


def _answers(device: torch.device) -> bool:
    try:
        torch.zeros(1, device=device).sum().item()
    except Exception:
        _log.exception("%s does not answer", device)
        return False
    return True
