"""What all processes of a server take of the machine together, under the names that one process has for it."""

import os
from collections.abc import Iterable
from pathlib import Path

from prometheus_client import ProcessCollector
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

_SMALLEST = {"process_start_time_seconds", "process_max_fds"}


class ProcessTree(Collector):
    """Sums over a parent and its children; of when they started and what they may open, the least.

    Reads `/proc`. The processor time of children that have died stays in the sum, in their parent's account of them: a
    counter does not fall.
    """

    def __init__(self, parent: int) -> None:
        self._parent = parent

    def collect(self) -> Iterable[Metric]:
        families: dict[str, Metric] = {}
        for pid in (self._parent, *_children(self._parent)):
            for family in ProcessCollector(pid=lambda pid=pid: pid, registry=None).collect():  # type: ignore[misc]
                (sample,) = family.samples
                if family.name not in families:
                    families[family.name] = family
                    continue
                (before,) = families[family.name].samples
                least = family.name in _SMALLEST
                value = min(before.value, sample.value) if least else before.value + sample.value
                families[family.name].samples = [before._replace(value=value)]
        if cpu := families.get("process_cpu_seconds"):
            (sample,) = cpu.samples
            cpu.samples = [sample._replace(value=sample.value + _cpu_s_of_the_dead(self._parent))]
        return families.values()


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _cpu_s_of_the_dead(pid: int) -> float:
    """Of the children that the parent has waited for: fields 16 and 17 of proc(5)'s `stat`."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")
