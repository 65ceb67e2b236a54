"""What this machine can do: the one place that asks the processor and the container.

Does not import torch, so that every process may ask. Nothing is read until a function is called.
"""

import math
import os
import re
from collections.abc import Iterator
from pathlib import Path

# Values of ONEDNN_MAX_CPU_ISA that leave oneDNN without native bfloat16 products. It ignores values it does not know.
# AVX2_VNNI_2 converts bfloat16 and does not multiply it.
_WITHOUT_BFLOAT16 = {"sse41", "avx", "avx2", "avx2_vnni", "avx2_vnni_2", "avx512_core", "avx512_core_vnni"}
# x86 lists AVX-512 BF16 and AMX under `flags`, aarch64 lists `bf16` under `Features`.
_BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
# What oneDNN needs for vectors of 512 bits.
_AVX512_FLAGS = {"avx512f", "avx512bw", "avx512vl", "avx512dq"}
_WITHOUT_AVX512 = {"sse41", "avx", "avx2", "avx2_vnni", "avx2_vnni_2"}
# VNNI adds four products of 8-bit integers to a 32-bit sum. The instruction before it adds pairs in 16 bits, which
# saturates.
_VNNI_FLAGS = {"avx512_vnni", "avx_vnni"}
_WITHOUT_VNNI = {"sse41", "avx", "avx2", "avx512_core"}
# Values of ONEDNN_MAX_CPU_ISA that leave it AVX-VNNI alone, which many CPUs with AVX-512 VNNI lack.
_AVX_VNNI_ALONE = {"avx2_vnni", "avx2_vnni_2"}
# The limit of a cgroup, by its version.
_MEMORY_FILES = {1: "memory.limit_in_bytes", 2: "memory.max"}
_DRIVER_VERSION = re.compile(r"^NVRM version:.*?\s(\d+(?:\.\d+)+)\s", re.MULTILINE)
_FLAGS_LINE = re.compile(r"^(?:flags|Features)\s*:(.*)$", re.MULTILINE)


def has_native_bfloat16(root: Path = Path("/")) -> bool:
    """Whether bfloat16 matrix products run in hardware here.

    This is the lower of what the processor has and what `ONEDNN_MAX_CPU_ISA` allows: oneDNN obeys the variable, and
    torch's own probe ignores it. root: where `proc` lies. Without a /proc/cpuinfo the answer is no.
    """
    return _onednn_may_use() not in _WITHOUT_BFLOAT16 and not _BFLOAT16_FLAGS.isdisjoint(_flags(root))


def has_avx512(root: Path = Path("/")) -> bool:
    """Whether oneDNN multiplies with AVX-512 here: the lower of what the processor has and what the environment allows,
    as for bfloat16. root: as above."""
    return _onednn_may_use() not in _WITHOUT_AVX512 and _AVX512_FLAGS.issubset(_flags(root))


def has_vnni(root: Path = Path("/")) -> bool:
    """Whether sums of 8-bit products run in 32 bits in hardware here (AVX-512 VNNI or AVX-VNNI). root: as above.

    The lower of what the processor has and what `ONEDNN_MAX_CPU_ISA` allows, as for bfloat16.
    """
    allowed = _onednn_may_use()
    wanted = {"avx_vnni"} if allowed in _AVX_VNNI_ALONE else _VNNI_FLAGS
    return allowed not in _WITHOUT_VNNI and not wanted.isdisjoint(_flags(root))


def _onednn_may_use() -> str:
    """The instruction set that the environment names, in lower case."""
    return (os.environ.get("ONEDNN_MAX_CPU_ISA") or os.environ.get("DNNL_MAX_CPU_ISA") or "all").lower()


def _flags(root: Path) -> list[str]:
    flags = _FLAGS_LINE.search(_text(root / "proc/cpuinfo"))
    return flags[1].split() if flags else []


def nvidia_driver(root: Path = Path("/")) -> str:
    """The version of NVIDIA's driver, such as `580.65.06`; empty if there is none. root: where `proc` lies."""
    version = _DRIVER_VERSION.search(_text(root / "proc/driver/nvidia/version"))
    return version[1] if version else ""


def usable_cores(root: Path = Path("/")) -> int:
    """How many cores this process may use, at least 1.

    This is the smaller of the cores it may run on and its cgroup's CPU quota. A quota of 1.5 cores counts as 2, since
    one thread cannot use it up. root: where `proc` and `sys` lie.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([cores, *map(math.ceil, _cpu_quotas(root))]))


def usable_memory_bytes(root: Path = Path("/")) -> int:
    """How much memory this process may use: that of the machine, or the lowest limit of its cgroups.

    root: where `proc` and `sys` lie.
    """
    limits = (_text(group / _MEMORY_FILES[version]).strip() for version, group in _groups(root, "memory"))
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    # Version 2 says `max` for no limit, and version 1 a number beyond any machine.
    return min([machine, *(int(limit) for limit in limits if limit.isdigit())])


def _cpu_quotas(root: Path) -> Iterator[float]:
    """The quota in cores of every cgroup above this process that has one. Each level can set a lower one."""
    for version, group in _groups(root, "cpu"):
        yield from _quota_v1(group) if version == 1 else _quota_v2(group)


def _groups(root: Path, controller: str) -> Iterator[tuple[int, Path]]:
    """The version and folder of every cgroup above this process that may bound what the controller is for.

    A container may see the host's path and its own group as the root, so both are looked at.
    """
    hierarchies = root / "sys/fs/cgroup"
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        group = Path(path.strip("/"))
        for level in (group, *group.parents):
            if controllers:
                # Controllers that share a hierarchy are named in either order, and each has a link of its own name.
                for name in {controllers, controller}:
                    yield 1, hierarchies / name / level
            else:
                yield 2, hierarchies / level


def _quota_v1(folder: Path) -> Iterator[float]:
    quota_us, period_us = (_text(folder / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period"))
    if quota_us.isdigit() and period_us.isdigit():  # -1: no quota
        yield int(quota_us) / int(period_us)


def _quota_v2(folder: Path) -> Iterator[float]:
    match _text(folder / "cpu.max").split():
        case [quota_us, period_us] if quota_us.isdigit():  # "max": no quota
            yield int(quota_us) / int(period_us)


def _text(path: Path) -> str:
    """The file's text; empty where it cannot be read, as on a system that has no such file."""
    try:
        return path.read_text()
    except OSError:
        return ""
