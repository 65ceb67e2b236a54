"""Which device, dtype and number of threads a model runs with, by name or by what the machine has."""

import logging
import os
import re
import warnings
from collections.abc import Sequence
from typing import Literal, get_args

import torch

from model.errors import BackendUnavailable
from model.kernels.hardware import has_native_bfloat16, has_vnni, nvidia_driver, usable_cores

DtypeName = Literal["auto", "float32", "bfloat16", "float16", "int8"]

# The first driver that runs a CUDA release and those after it that have the same first number.
_FIRST_DRIVERS = {"12": "525", "13": "580"}

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

_log = logging.getLogger(__name__)


def default_device() -> str:
    """The first CUDA device if there is one that works, otherwise the CPU.

    The log says why no device was taken, on a machine or in an installation that is meant for one.
    """
    why_not = why_no_cuda()
    if why_not is None:
        return "cuda:0"
    if torch.version.cuda is not None or nvidia_driver():
        _log.warning("devices=auto takes the CPU: %s; devices=cuda refuses to start then", why_not)
    return "cpu"


def find_device(name: str) -> torch.device:
    """Raises `BackendUnavailable` for a device that this machine lacks, with what keeps CUDA from it."""
    try:
        device = torch.device(name)
    except RuntimeError:
        raise BackendUnavailable(f"device is {name!r}; it is cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise BackendUnavailable(f"device is {name!r}; it is cpu, cuda or cuda:N")
    if device.type == "cuda" and (why_not := why_no_cuda(device.index or 0)):
        raise BackendUnavailable(f"device is {name!r}: {why_not}")
    return device


def why_no_cuda(index: int = 0) -> str | None:
    """Why a CUDA device cannot be used; None if it can. Asks PyTorch, which starts CUDA."""
    built_for, driver = torch.version.cuda, nvidia_driver()
    if built_for is None:
        return f"PyTorch {torch.__version__} is built without CUDA"
    try:
        with warnings.catch_warnings():
            # What it warns of is told here.
            warnings.simplefilter("ignore")
            torch.cuda.init()  # type: ignore[no-untyped-call]
    except (RuntimeError, AssertionError) as error:
        return explained(str(error), built_for, driver)
    if index >= (found := torch.cuda.device_count()):
        return f"this machine shows {found} CUDA devices"
    card = f"{torch.cuda.get_device_name(index)} (cuda:{index})"
    return too_old(card, torch.cuda.get_device_capability(index), torch.cuda.get_arch_list())


def explained(complaint: str, built_for: str, driver: str) -> str:
    """What PyTorch said when it could not start CUDA, in words for an operator.

    built_for: the CUDA release that PyTorch was built for. driver: the version of NVIDIA's, "" if it is not known.
    """
    needed = _FIRST_DRIVERS.get(built_for.partition(".")[0])
    needs = f"PyTorch is built for CUDA {built_for}" + (f", which needs driver {needed} or later" if needed else "")
    if supported := re.search(r"driver.*too old \(found version (\d+)\)", complaint):
        # CUDA 12.4 is 12040.
        release = "{}.{}".format(*divmod(int(supported[1]) // 10, 100))
        return f"the NVIDIA driver {driver}".rstrip() + f" is too old: it runs CUDA up to {release}, and {needs}"
    if "no NVIDIA driver" in complaint:
        return f"no NVIDIA driver is in reach (in a container: was it started with its GPUs?); {needs}"
    first = complaint.strip().partition("\n")[0]
    return f"CUDA does not start: {first}" + (f" (driver {driver}; {needs})" if driver else "")


def too_old(card: str, capability: tuple[int, int], architectures: Sequence[str]) -> str | None:
    """Why PyTorch has no kernels for a card; None if it has. architectures: those of its build, such as `sm_75`."""
    built = [divmod(int(digits), 10) for name in architectures if (digits := re.sub(r"\D", "", name))]
    if not built or capability >= min(built):
        return None
    (major, minor), (least_major, least_minor) = capability, min(built)
    return (
        f"{card} has compute capability {major}.{minor}, and PyTorch {torch.__version__} has kernels for "
        f"{least_major}.{least_minor} and later"
    )


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
