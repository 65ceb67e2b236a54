"""What the processes of a server take of the machine together, under the names that Prometheus has for one process."""

import os
from collections.abc import Iterable
from pathlib import Path

from prometheus_client import ProcessCollector
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from model.child_process import process_tree

# A sum of these over processes would say nothing; the smallest does.
_SMALLEST = {"process_start_time_seconds", "process_max_fds"}
# So often, a process may end while its time moves into its parent's numbers.
_MOST_READS = 5


class ProcessTree(Collector):
    """What a process and its descendants take of the machine together, under the names that one process has for it.

    Reads `/proc`. The processor time of dead ones stays in the sum, because a counter must not fall: their parents'
    numbers have it. Only that of a process whose parent died before it is lost.
    """

    def __init__(self, root: int) -> None:
        self._root = root

    def collect(self) -> Iterable[Metric]:
        for _ in range(_MOST_READS):
            dead_cpu_s = self._dead_cpu_s()
            families = _sum_over(dead_cpu_s)
            # Otherwise the time of one that has ended meanwhile may be missing, or counted twice.
            if self._dead_cpu_s() == dead_cpu_s:
                break
        if cpu := families.get("process_cpu_seconds"):
            _merge(cpu, sum(dead_cpu_s.values()))
        return families.values()

    def _dead_cpu_s(self) -> dict[int, float]:
        """Processor time of the dead children of each process, by its pid."""
        return {pid: _dead_children_cpu_s(pid) for pid in process_tree(self._root)}


def _sum_over(pids: Iterable[int]) -> dict[str, Metric]:
    families: dict[str, Metric] = {}
    for pid in pids:
        for family in ProcessCollector(pid=lambda pid=pid: pid, registry=None).collect():  # type: ignore[misc]
            known = families.setdefault(family.name, family)
            if known is not family:
                _merge(known, family.samples[0].value)
    return families


def _merge(family: Metric, value: float) -> None:
    (sample,) = family.samples
    merged = min(sample.value, value) if family.name in _SMALLEST else sample.value + value
    family.samples = [sample._replace(value=merged)]


def _dead_children_cpu_s(pid: int) -> float:
    """Processor time of the children that have ended: fields 16 and 17 of proc(5)'s `stat`."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")
