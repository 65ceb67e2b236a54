"""Which device, dtype and number of threads a model runs with, by name or by what the machine has."""

import logging
import os
from typing import Literal, get_args

import torch

from model.errors import BackendUnavailable
from model.kernels.hardware import has_native_bfloat16, has_vnni, usable_cores

DtypeName = Literal["auto", "float32", "bfloat16", "float16", "int8"]

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

_log = logging.getLogger(__name__)


def default_device() -> str:
    """The first CUDA device if there is one, otherwise the CPU."""
    return "cuda:0" if torch.cuda.is_available() else "cpu"


def find_device(name: str) -> torch.device:
    """Raises `BackendUnavailable` for a device that this machine lacks."""
    try:
        device = torch.device(name)
    except RuntimeError:
        raise BackendUnavailable(f"device is {name!r}; it is cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise BackendUnavailable(f"device is {name!r}; it is cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise BackendUnavailable(f"device is {name!r}; this machine shows {torch.cuda.device_count()} CUDA devices")
    return device


def choose_dtype(name: DtypeName, device: torch.device) -> torch.dtype:
    """`auto` is bfloat16 where the device multiplies it in hardware, otherwise float32.

    With `int8` the linear layers of blocks multiply 8-bit integers, and all else has the dtype of `auto`. Raises
    `BackendUnavailable` for an unknown name, and for `int8` on a device without VNNI.
    """
    if name == "int8":
        _refuse_int8_without_vnni(device)
    elif name != "auto":
        if name not in _DTYPES:
            raise BackendUnavailable(f"dtype is {name!r}; it is one of {', '.join(get_args(DtypeName))}")
        return _DTYPES[name]
    return torch.bfloat16 if _has_fast_bfloat16(device) else torch.float32


def _refuse_int8_without_vnni(device: torch.device) -> None:
    if device.type != "cpu":
        raise BackendUnavailable(f"dtype=int8 needs a CPU with VNNI, and device is {device}; dtype=auto fits any")
    if not has_vnni() or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        raise BackendUnavailable(
            "dtype=int8 needs a CPU with VNNI (avx512_vnni or avx_vnni in /proc/cpuinfo, not ruled out by "
            "ONEDNN_MAX_CPU_ISA): without it sums of 8-bit products saturate, and vectors would be wrong. dtype=auto "
            "takes what this CPU has"
        )


def _has_fast_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    return has_native_bfloat16()


def limit_threads() -> None:
    """Lowers PyTorch's threads to the cores that a container's quota leaves, unless OMP_NUM_THREADS sets them.

    OpenMP counts the cores that the process may run on and ignores the quota. More threads than that are stopped for
    part of every period, while the others wait for them.
    """
    threads, cores = torch.get_num_threads(), usable_cores()
    if threads > cores and "OMP_NUM_THREADS" not in os.environ:
        _log.info("forwards use %d threads, not %d: the CPU quota leaves no more", cores, threads)
        torch.set_num_threads(cores)
