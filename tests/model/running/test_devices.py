"""How many threads forwards use in a container with a CPU quota, and why a CUDA device is not taken."""

import logging
from collections.abc import Iterator

import pytest
import torch

from model.errors import BackendUnavailable
from model.running import devices
from model.running.devices import default_device, explained, find_device, limit_threads, too_old


@pytest.fixture(autouse=True)
def four_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    threads = torch.get_num_threads()
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize(("cores", "threads"), [(2, 2), (4, 4), (8, 4)])
def test_a_quota_lowers_the_threads_and_never_raises_them(
    monkeypatch: pytest.MonkeyPatch, cores: int, threads: int
) -> None:
    monkeypatch.setattr("model.running.devices.usable_cores", lambda: cores)
    limit_threads()
    assert torch.get_num_threads() == threads


def test_omp_num_threads_goes_before_the_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model.running.devices.usable_cores", lambda: 2)
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    limit_threads()
    assert torch.get_num_threads() == 4


# As PyTorch words them (c10/cuda/CUDAFunctions.cpp).
TOO_OLD = (
    "The NVIDIA driver on your system is too old (found version 12040). Please update your GPU driver by downloading "
    "and installing a new version from the URL: http://www.nvidia.com/Download/index.aspx"
)
NONE = "Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU and installed a driver from …"


@pytest.mark.parametrize(
    ("complaint", "driver", "told"),
    [
        (
            TOO_OLD,
            "550.54.15",
            "the NVIDIA driver 550.54.15 is too old: it runs CUDA up to 12.4, and PyTorch is built for CUDA 13.0, "
            "which needs driver 580 or later",
        ),
        (
            TOO_OLD,
            "",
            "the NVIDIA driver is too old: it runs CUDA up to 12.4, and PyTorch is built for CUDA 13.0, which needs "
            "driver 580 or later",
        ),
        (
            NONE,
            "",
            "no NVIDIA driver is in reach (in a container: was it started with its GPUs?); PyTorch is built for CUDA "
            "13.0, which needs driver 580 or later",
        ),
        (
            "No CUDA GPUs are available",
            "580.65.06",
            "CUDA does not start: No CUDA GPUs are available (driver 580.65.06; PyTorch is built for CUDA 13.0, which "
            "needs driver 580 or later)",
        ),
        ("CUDA unknown error\nmore lines", "", "CUDA does not start: CUDA unknown error"),
    ],
)
def test_what_pytorch_says_of_a_driver_is_told_with_both_versions(complaint: str, driver: str, told: str) -> None:
    assert explained(complaint, "13.0", driver) == told


def test_a_cuda_release_that_is_not_known_names_no_driver() -> None:
    assert "needs driver" not in explained(TOO_OLD, "14.1", "580.65.06")
    assert "built for CUDA 14.1" in explained(TOO_OLD, "14.1", "580.65.06")


def test_a_card_older_than_the_kernels_is_named_with_both_capabilities() -> None:
    built = ["sm_75", "sm_80", "sm_90", "sm_100", "sm_120", "compute_120"]
    told = too_old("Tesla V100 (cuda:0)", (7, 0), built)
    assert told is not None
    assert told.startswith("Tesla V100 (cuda:0) has compute capability 7.0, and PyTorch ")
    assert told.endswith("has kernels for 7.5 and later")
    for capability in ((7, 5), (8, 9), (9, 0), (12, 0), (13, 0)):
        assert too_old("a card", capability, built) is None
    assert too_old("a card", (7, 0), []) is None


@pytest.mark.skipif(torch.version.cuda is not None, reason="PyTorch is built with CUDA here")
def test_auto_says_why_it_takes_the_cpu_where_there_is_a_driver(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "model.running.devices"):
        assert default_device() == "cpu"
        assert not caplog.messages
        monkeypatch.setattr(devices, "nvidia_driver", lambda: "580.65.06")
        assert default_device() == "cpu"
    (told,) = caplog.messages
    assert told.startswith("devices=auto takes the CPU: PyTorch ")
    assert "is built without CUDA" in told


@pytest.mark.skipif(torch.version.cuda is not None, reason="PyTorch is built with CUDA here")
def test_a_cuda_device_that_is_asked_for_is_refused_with_the_reason() -> None:
    with pytest.raises(BackendUnavailable, match=r"device is 'cuda': PyTorch \S+ is built without CUDA"):
        find_device("cuda")
