"""Memory and use of this machine's NVIDIA GPUs, as the driver's own library (NVML) tells them.

Unlike the CUDA runtime it takes no memory of a device and starts nothing on it, so any process may ask.
"""

import importlib
import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

_log = logging.getLogger(__name__)

_LABELS = ("gpu", "name")


class Gpus(Collector):
    """A sample for each GPU that the driver shows to this process, numbered as `nvidia-smi` numbers them.

    Without a driver, without NVML, or without the package `nvidia-ml-py` there are none. NVML is started when it is
    first asked.
    """

    def __init__(self, load: Callable[[], Any] = lambda: importlib.import_module("pynvml")) -> None:
        """load: gives the module `pynvml`. Raises `ImportError` if it is not installed."""
        self._load = load
        self._nvml: Any = None
        self._tried = False

    def collect(self) -> Iterable[Metric]:
        nvml = self._started()
        if nvml is None:
            return ()
        try:
            count = nvml.nvmlDeviceGetCount()
        except nvml.NVMLError as error:
            _log.warning("the driver tells nothing of its GPUs: %s", error)
            return ()
        used = _gauge("memory_used_bytes", "Memory of a GPU in use, by this server and by others.")
        memory = _gauge("memory_bytes", "Memory of a GPU.")
        busy = _gauge("utilization_ratio", "Share of the driver's last sample period in which a kernel ran on a GPU.")
        for index in range(count):
            try:
                handle = nvml.nvmlDeviceGetHandleByIndex(index)
                labels = (str(index), nvml.nvmlDeviceGetName(handle))
                found = nvml.nvmlDeviceGetMemoryInfo(handle)
                used.add_metric(labels, found.used)
                memory.add_metric(labels, found.total)
                # A part of a GPU that is divided (MIG) has memory of its own, and no utilization.
                with suppress(nvml.NVMLError_NotSupported):
                    busy.add_metric(labels, nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100)
            except nvml.NVMLError as error:
                # Such as one that has fallen off the bus.
                _log.warning("the driver tells nothing of GPU %d: %s", index, error)
        return used, memory, busy

    def _started(self) -> Any:
        """The module, ready to be asked; None if there is nothing to ask."""
        if not self._tried:
            self._tried = True
            try:
                nvml = self._load()
            except ImportError:
                return None
            try:
                nvml.nvmlInit()
                self._nvml = nvml
            except nvml.NVMLError as error:
                _log.debug("no metrics of GPUs: %s", error)
        return self._nvml


def _gauge(name: str, help: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"packlight_gpu_{name}", help, labels=_LABELS)
