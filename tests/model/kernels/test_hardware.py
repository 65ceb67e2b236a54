"""Native bfloat16 and usable cores, read from files as Linux writes them."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.kernels.hardware import (
    has_avx512,
    has_native_bfloat16,
    has_vnni,
    nvidia_driver,
    usable_cores,
    usable_memory_bytes,
)

EPYC = "processor\t: 0\nvendor_id\t: AuthenticAMD\nflags\t\t: fpu sse4_1 avx avx2 avx512f avx512_vnni avx512_bf16\n"
SAPPHIRE_RAPIDS = "processor\t: 0\nflags\t\t: fpu avx2 avx512f avx512_bf16 avx512_fp16 amx_tile amx_bf16 amx_int8\n"
SKYLAKE = "processor\t: 0\nflags\t\t: fpu avx2 avx512f avx512bw avx512dq avx512vl\nbugs\t\t: avx512_bf16\n"
KNIGHTS_LANDING = "processor\t: 0\nflags\t\t: fpu avx2 avx512f avx512cd\n"
ALDER_LAKE = "processor\t: 0\nflags\t\t: fpu avx2 avx_vnni\n"
GRAVITON_3 = "processor\t: 0\nFeatures\t: fp asimd sve i8mm bf16 dgh\nCPU part\t: 0xd40\n"
GRAVITON_2 = "processor\t: 0\nFeatures\t: fp asimd aes\n"

LOWER = ["SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI", "avx2"]
HIGHER = [
    "AVX512_CORE_BF16", "AVX512_CORE_FP16", "AVX10_1_512", "AVX512_CORE_AMX", "AVX10_1_512_AMX",
    "AVX512_CORE_AMX_FP16", "AVX10_2", "ALL", "DEFAULT", "no such value", "",
]  # fmt: skip


@pytest.fixture(autouse=True)
def unlimited(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"):
        monkeypatch.delenv(name, raising=False)


def machine(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("cpuinfo", "native"),
    [(EPYC, True), (SAPPHIRE_RAPIDS, True), (SKYLAKE, False), (GRAVITON_3, True), (GRAVITON_2, False), ("", False)],
)
def test_the_processor_says_whether_it_multiplies_bfloat16(tmp_path: Path, cpuinfo: str, native: bool) -> None:
    assert has_native_bfloat16(machine(tmp_path, {"proc/cpuinfo": cpuinfo})) is native


@pytest.mark.parametrize(
    ("cpuinfo", "wide"),
    [(SKYLAKE, True), (KNIGHTS_LANDING, False), (ALDER_LAKE, False), (GRAVITON_3, False), ("", False)],
)
def test_the_processor_says_whether_onednn_has_avx_512(tmp_path: Path, cpuinfo: str, wide: bool) -> None:
    assert has_avx512(machine(tmp_path, {"proc/cpuinfo": cpuinfo})) is wide


@pytest.mark.parametrize(
    ("allowed", "wide"), [("AVX2", False), ("avx2_vnni_2", False), ("AVX512_CORE", True), ("ALL", True), ("", True)]
)
def test_the_environment_can_take_avx_512_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, allowed: str, wide: bool
) -> None:
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", allowed)
    assert has_avx512(machine(tmp_path, {"proc/cpuinfo": SKYLAKE})) is wide


def test_a_system_without_proc_has_no_native_bfloat16(tmp_path: Path) -> None:
    assert not has_native_bfloat16(tmp_path)


@pytest.mark.parametrize("variable", ["ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"])
def test_the_instruction_set_that_onednn_may_use_limits_the_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    root = machine(tmp_path, {"proc/cpuinfo": SAPPHIRE_RAPIDS})
    for values, native in ((LOWER, False), (HIGHER, True)):
        for value in values:
            monkeypatch.setenv(variable, value)
            assert has_native_bfloat16(root) is native, value


def test_the_new_variable_name_goes_before_the_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = machine(tmp_path, {"proc/cpuinfo": EPYC})
    monkeypatch.setenv("DNNL_MAX_CPU_ISA", "AVX2")
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "ALL")
    assert has_native_bfloat16(root)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "")
    assert not has_native_bfloat16(root)


@pytest.mark.parametrize(
    ("cpuinfo", "vnni"),
    [(EPYC, True), (ALDER_LAKE, True), (SKYLAKE, False), (GRAVITON_3, False), ("", False)],
)
def test_the_processor_says_whether_it_adds_8_bit_products_in_32_bits(tmp_path: Path, cpuinfo: str, vnni: bool) -> None:
    assert has_vnni(machine(tmp_path, {"proc/cpuinfo": cpuinfo})) is vnni


@pytest.mark.parametrize(
    ("allowed", "epyc", "alder_lake"),
    [
        ("AVX512_CORE_VNNI", True, True), ("ALL", True, True), ("AVX512_CORE_BF16", True, True),
        ("AVX2_VNNI", False, True), ("AVX512_CORE", False, False), ("avx2", False, False), ("SSE41", False, False),
    ],
)  # fmt: skip
def test_vnni_of_a_kind_that_onednn_may_not_use_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, allowed: str, epyc: bool, alder_lake: bool
) -> None:
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", allowed)
    assert has_vnni(machine(tmp_path / "epyc", {"proc/cpuinfo": EPYC})) is epyc
    assert has_vnni(machine(tmp_path / "alder", {"proc/cpuinfo": ALDER_LAKE})) is alder_lake


def test_the_environment_never_adds_what_the_processor_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_AMX")
    assert not has_native_bfloat16(machine(tmp_path, {"proc/cpuinfo": SKYLAKE}))


@pytest.mark.parametrize(
    ("line", "version"),
    [
        ("NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024", "550.54.15"),
        ("NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build  (builder@host)", "580.65.06"),
        ("NVIDIA UNIX Open Kernel Module for aarch64  590.48  Release Build", "590.48"),
        ("no number", ""),
    ],
)
def test_the_driver_says_its_version(tmp_path: Path, line: str, version: str) -> None:
    file = f"NVRM version: {line}\nGCC version:  gcc version 12.3.0 (Ubuntu 12.3.0-1ubuntu1~22.04)\n"
    assert nvidia_driver(machine(tmp_path, {"proc/driver/nvidia/version": file})) == version
    assert nvidia_driver(tmp_path / "nowhere") == ""


V2 = {"proc/self/cgroup": "0::/pod/container\n"}
V1 = {"proc/self/cgroup": "5:memory:/docker/a\n4:cpu,cpuacct:/docker/a\n0::/\n"}


@pytest.fixture
def many_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)


@pytest.mark.usefixtures("many_cores")
@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 8),
        (V2, 8),
        (V2 | {"sys/fs/cgroup/pod/container/cpu.max": "max 100000\n"}, 8),
        (V2 | {"sys/fs/cgroup/pod/container/cpu.max": "200000 100000\n"}, 2),
        (V2 | {"sys/fs/cgroup/pod/container/cpu.max": "150000 100000\n"}, 2),
        (V2 | {"sys/fs/cgroup/pod/container/cpu.max": "5000 100000\n"}, 1),
        (V2 | {"sys/fs/cgroup/pod/container/cpu.max": "6400000 100000\n"}, 8),
        (
            V2 | {"sys/fs/cgroup/pod/container/cpu.max": "max 100000\n", "sys/fs/cgroup/pod/cpu.max": "300000 100000"},
            3,
        ),
        # A container may see the host's path and its own cgroup as the root.
        (V2 | {"sys/fs/cgroup/cpu.max": "400000 100000\n"}, 4),
        (
            V1
            | {
                "sys/fs/cgroup/cpu,cpuacct/docker/a/cpu.cfs_quota_us": "250000\n",
                "sys/fs/cgroup/cpu,cpuacct/docker/a/cpu.cfs_period_us": "100000\n",
            },
            3,
        ),
        (
            V1
            | {
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            },
            8,
        ),
    ],
)
def test_usable_cores_are_the_smaller_of_affinity_and_quota(tmp_path: Path, files: dict[str, str], cores: int) -> None:
    assert usable_cores(machine(tmp_path, files)) == cores


MEMORY_V1 = {"proc/self/cgroup": "9:memory:/docker/a\n8:cpu,cpuacct:/docker/a\n"}


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({}, None),
        (V2 | {"sys/fs/cgroup/pod/container/memory.max": "max\n"}, None),
        (V2 | {"sys/fs/cgroup/pod/container/memory.max": "536870912\n"}, 2**29),
        # The pod's limit is lower than the container's.
        (
            V2 | {"sys/fs/cgroup/pod/container/memory.max": "536870912\n", "sys/fs/cgroup/pod/memory.max": "268435456"},
            2**28,
        ),
        (V2 | {"sys/fs/cgroup/memory.max": "1073741824\n"}, 2**30),
        (MEMORY_V1 | {"sys/fs/cgroup/memory/docker/a/memory.limit_in_bytes": "268435456\n"}, 2**28),
        (MEMORY_V1 | {"sys/fs/cgroup/memory/memory.limit_in_bytes": "268435456\n"}, 2**28),
        (MEMORY_V1 | {"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"}, None),
        # Another controller's limit is none of memory.
        (V1 | {"sys/fs/cgroup/cpu,cpuacct/docker/a/memory.limit_in_bytes": "1024\n"}, None),
    ],
)
def test_usable_memory_is_the_lowest_limit_of_the_cgroups(
    tmp_path: Path, files: dict[str, str], limit: int | None
) -> None:
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert usable_memory_bytes(machine(tmp_path, files)) == (limit or whole)


def test_a_hierarchy_is_found_under_the_link_of_its_controller(tmp_path: Path) -> None:
    """Docker lists `cpuacct,cpu` where the folder is `cpu,cpuacct`, with a link for each."""
    quota = {
        "proc/self/cgroup": "4:cpuacct,cpu:/docker/a\n",
        "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "100000\n",
        "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
    }
    assert usable_cores(machine(tmp_path, quota)) == 1


@pytest.fixture
def real_group() -> Iterator[Callable[[str, dict[str, str]], Path]]:
    """Makes a control group of this machine's kernel under a controller, with values in its files."""
    made: list[Path] = []

    def make(controller: str, values: dict[str, str]) -> Path:
        hierarchies = Path("/sys/fs/cgroup")
        hierarchy = hierarchies / controller  # of version 1
        group = (hierarchy if hierarchy.is_dir() else hierarchies) / f"packlight-{os.getpid()}"
        try:
            group.mkdir()
            made.append(group)
            for name, value in values.items():
                (group / name).write_text(value)
        except OSError as error:
            pytest.skip(f"control groups cannot be made here: {error}")
        return group

    yield make
    for group in made:
        group.rmdir()


def asked_in(group: Path, expression: str) -> int:
    """What a process in the group finds."""
    program = f"open({str(group / 'cgroup.procs')!r}, 'w').write('0'); "
    program += f"from model.kernels.hardware import *; print({expression})"
    return int(subprocess.run([sys.executable, "-c", program], check=True, capture_output=True).stdout)


def test_a_real_cpu_quota_is_found(real_group: Callable[[str, dict[str, str]], Path]) -> None:
    v1 = {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "100000"}
    v2 = {"cpu.max": "100000 100000"}
    group = real_group("cpu", v1 if Path("/sys/fs/cgroup/cpu").is_dir() else v2)
    assert asked_in(group, "usable_cores()") == 1


def test_a_real_limit_of_memory_is_found(real_group: Callable[[str, dict[str, str]], Path]) -> None:
    v1 = Path("/sys/fs/cgroup/memory").is_dir()
    group = real_group("memory", {"memory.limit_in_bytes" if v1 else "memory.max": str(2**28)})
    assert asked_in(group, "usable_memory_bytes()") == 2**28


@given(quota_us=st.integers(1000, 10**9), period_us=st.integers(1000, 10**6))
def test_any_quota_leaves_one_core_and_no_more_than_exist(
    tmp_path_factory: pytest.TempPathFactory, quota_us: int, period_us: int
) -> None:
    root = machine(tmp_path_factory.mktemp("machine"), V2 | {"sys/fs/cgroup/cpu.max": f"{quota_us} {period_us}\n"})
    cores = usable_cores(root)
    assert 1 <= cores <= (os.cpu_count() or 1)
    assert cores >= min(quota_us / period_us, usable_cores(root / "nowhere"))


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores cannot be withheld here")
def test_a_process_pinned_to_one_core_has_one() -> None:
    program = "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]); "
    program += "from model.kernels.hardware import usable_cores; print(usable_cores())"
    assert subprocess.run([sys.executable, "-c", program], check=True, capture_output=True).stdout == b"1\n"
