"""What is read quickly is what Prometheus' own reader says."""

import subprocess
import sys
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector

from service.http.stats.totals import Totals, read_gauges, read_totals
from service.metrics import Metrics, PackItem

# Metrics are kept in files by a process that says so before it makes them.
_PROGRAM = """
import os, sys
from service.metrics import Metrics, PackItem, name_process
name_process(sys.argv[1])
metrics = Metrics(folder=os.environ["PROMETHEUS_MULTIPROC_DIR"])
metrics.observe_pack([PackItem("image", 100, 256), PackItem("text", 9, 64)], computed_tokens=128, max_batch_tokens=4096)
for seconds in (0.0001, 0.02, 0.02, 70.0):
    metrics.stage_seconds.labels("decode").observe(seconds)
metrics.request_seconds.labels("/embed", "packlight").observe(0.3)
metrics.images.labels("embedded").inc(3)
metrics.queue_tokens.set(int(sys.argv[2]))
"""


def bound_first(labels: dict[str, str]) -> list[str]:
    rest = dict(labels)
    bound = [rest.pop("le")] if "le" in rest else []
    return bound + [rest[label] for label in sorted(rest)]


def expected(folder: Path, *kinds: str) -> Totals:
    registry = CollectorRegistry()
    registry.register(MultiProcessCollector(None, path=str(folder)))  # type: ignore[no-untyped-call]
    return {
        (sample.name, *bound_first(sample.labels)): sample.value
        for family in registry.collect()
        for sample in family.samples
        if family.type in kinds
    }


def test_the_values_of_several_processes_are_added_up(tmp_path: Path) -> None:
    for name, tokens in (("http-0", "7"), ("engine-0", "5")):
        environment = {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path), "PATH": ""}
        subprocess.run([sys.executable, "-c", _PROGRAM, name, tokens], env=environment, check=True)
    metrics = Metrics(folder=str(tmp_path))
    totals = read_totals(metrics)
    assert dict(totals) == expected(tmp_path, "counter", "histogram")
    assert totals["packlight_stage_seconds_bucket", "0.025", "decode"] == 6
    assert totals["packlight_stage_seconds_count", "decode"] == 8
    gauges = read_gauges(metrics)
    assert gauges["packlight_queue_tokens",] == 12
    assert gauges.items() <= expected(tmp_path, "gauge").items()


def test_one_process_has_the_same_names() -> None:
    metrics = Metrics()
    metrics.observe_pack([PackItem("image", 100, 256)], computed_tokens=128, max_batch_tokens=4096)
    metrics.stage_seconds.labels("queue").observe(0.02)
    metrics.images.labels("embedded").inc()
    metrics.queue_tokens.set(3)
    totals = read_totals(metrics)
    assert totals["packlight_tokens_total", "image"] == 100
    assert totals["packlight_tokens_total", "padding"] == 28
    assert totals["packlight_images_total", "embedded"] == 1
    assert totals["packlight_pack_images_count",] == 1
    assert totals["packlight_stage_seconds_bucket", "0.025", "queue"] == 1
    assert totals["packlight_stage_seconds_bucket", "+Inf", "queue"] == 1
    assert read_gauges(metrics)["packlight_queue_tokens",] == 3
