"""What an exception from a forward says about the device: too little memory, lost to this process, or neither."""

import logging
import traceback

import torch

from model.errors import DeviceLost, DeviceOutOfMemory

# The CPU's allocator has no exception of its own. This is what it says.
_CPU_ALLOCATOR = "DefaultCPUAllocator"

_log = logging.getLogger(__name__)


def blame_device(error: Exception, device: torch.device) -> None:
    """Raises `DeviceOutOfMemory` or `DeviceLost` if that is what `error` amounts to; returns if it is neither.

    First frees what the failed forward held, so that its parts can be tried while the exception lives. After running
    out of memory, empties the cache of a CUDA device, so that a smaller pack finds free memory in one piece. After
    anything else, asks the device whether it still answers: an illegal access or a failed assertion on the device
    breaks every later call, and only a new process helps.
    """
    _free_frames(error)
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)) or _CPU_ALLOCATOR in str(error):
        if device.type == "cuda":
            torch.cuda.empty_cache()
        raise DeviceOutOfMemory(f"no memory for this pack on {device}") from error
    if device.type == "cuda" and not _answers(device):
        raise DeviceLost(f"{device} does not answer any more") from error


def _free_frames(error: BaseException | None) -> None:
    """Clears the local variables of the frames that raised: an exception keeps them, and they hold activations."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _answers(device: torch.device) -> bool:
    try:
        torch.zeros(1, device=device).sum().item()
    except Exception:
        _log.exception("%s does not answer", device)
        return False
    return True
