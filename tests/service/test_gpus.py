"""The metrics of GPUs, from a stand-in for the driver's library where there is none, and from the real package."""

import importlib
import logging
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from service.gpus import Gpus
from service.metrics import Metrics


class NVMLError(Exception):
    pass


class NVMLError_NotSupported(NVMLError):
    pass


class Nvml:
    """Two GPUs: the second is divided, and tells no utilization. gone: one that has fallen off the bus. silent: the
    driver has answered before, and does no more."""

    NVMLError, NVMLError_NotSupported = NVMLError, NVMLError_NotSupported

    def __init__(self, *, fails: bool = False, gone: int | None = None) -> None:
        self.fails, self.gone, self.starts = fails, gone, 0
        self.silent = False

    def nvmlInit(self) -> None:
        self.starts += 1
        if self.fails:
            raise NVMLError("Driver Not Loaded")

    def nvmlDeviceGetCount(self) -> int:
        if self.silent:
            raise NVMLError("Unknown Error")
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        if index == self.gone:
            raise NVMLError("GPU is lost")
        return index

    def nvmlDeviceGetName(self, handle: int) -> str:
        return ("NVIDIA H200", "NVIDIA A100")[handle]

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:
        return SimpleNamespace(used=(handle + 1) * 10**9, total=(handle + 1) * 10**11)

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> Any:
        if handle == 1:
            raise NVMLError_NotSupported("Not Supported")
        return SimpleNamespace(gpu=37, memory=5)


def shown(gpus: Gpus) -> dict[str, float]:
    registry = CollectorRegistry()
    registry.register(gpus)
    lines = [line for line in generate_latest(registry).decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def test_each_gpu_has_its_memory_and_its_utilization_if_it_tells() -> None:
    nvml = Nvml()
    gpus = Gpus(lambda: nvml)
    assert shown(gpus) == {
        'packlight_gpu_memory_used_bytes{gpu="0",name="NVIDIA H200"}': 1e9,
        'packlight_gpu_memory_used_bytes{gpu="1",name="NVIDIA A100"}': 2e9,
        'packlight_gpu_memory_bytes{gpu="0",name="NVIDIA H200"}': 1e11,
        'packlight_gpu_memory_bytes{gpu="1",name="NVIDIA A100"}': 2e11,
        'packlight_gpu_utilization_ratio{gpu="0",name="NVIDIA H200"}': 0.37,
    }
    shown(gpus)
    assert nvml.starts == 1


def test_a_lost_gpu_takes_no_metric_of_the_others_with_it(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "service.gpus"):
        assert len(shown(Gpus(lambda: Nvml(gone=0)))) == 2
    assert caplog.messages == ["the driver tells nothing of GPU 0: GPU is lost"]


def test_a_driver_that_answers_no_more_takes_its_own_metrics_alone(caplog: pytest.LogCaptureFixture) -> None:
    nvml = Nvml()
    gpus = Gpus(lambda: nvml)
    assert shown(gpus)
    nvml.silent = True
    with caplog.at_level(logging.WARNING, "service.gpus"):
        assert shown(gpus) == {}
    assert caplog.messages == ["the driver tells nothing of its GPUs: Unknown Error"]


def test_without_a_driver_there_are_no_metrics_and_it_is_not_asked_again() -> None:
    nvml = Nvml(fails=True)
    gpus = Gpus(lambda: nvml)
    assert shown(gpus) == shown(gpus) == {}
    assert nvml.starts == 1


def test_without_the_package_there_are_no_metrics() -> None:
    assert shown(Gpus(lambda: importlib.import_module("no_such_package"))) == {}


def test_metrics_have_those_of_the_driver_or_none() -> None:
    """With whatever this machine has."""
    assert (b"packlight_gpu_memory_bytes{" in Metrics().exposition()) == bool(shown(Gpus()))
