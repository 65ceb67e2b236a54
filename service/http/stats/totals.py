"""What the metrics have counted so far, over all processes of the server, as plain numbers.

Several processes keep their metrics in files. `MultiProcessCollector`, which `/metrics` uses, takes five times as long
to read them as it takes to add up their values, and `/stats` reads them again and again.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.registry import Collector

from service.metrics import Metrics

# By the name of a sample, the bound of its bucket if it is one, and the values of its labels in the order of their
# names: `("packlight_stage_seconds_bucket", "0.25", "decode")`. Here the buckets of a histogram are cumulative.
Totals = Mapping[tuple[str, ...], float]

# More than there are metrics with their labels, which are from closed sets.
_KNOWN_KEYS = 4096


def read_gauges(metrics: Metrics) -> Totals:
    """What is queued and held now. Takes about 10 µs for each process."""
    if metrics.folder is not None:
        return _sum_of_files(Path(metrics.folder).glob("gauge_livesum_*.db"))
    return _values_of((metrics.queue_tokens, metrics.queue_images, metrics.inflight_bytes))


def read_totals(metrics: Metrics) -> Totals:
    """What was counted since the start. Takes about 0.3 ms for each process."""
    if metrics.folder is not None:
        folder = Path(metrics.folder)
        return _cumulative(_sum_of_files([*folder.glob("counter_*.db"), *folder.glob("histogram_*.db")]))
    return _values_of((metrics.images, metrics.texts, metrics.tokens, metrics.pack_images, metrics.stage_seconds))


def _values_of(collectors: Sequence[Collector]) -> Totals:
    """Not of the whole registry: what the system says of the process takes longer than all the rest."""
    return {
        _key(sample.name, sample.labels): sample.value
        for collector in collectors
        for family in collector.collect()
        for sample in family.samples
    }


def _sum_of_files(paths: Iterable[Path]) -> Totals:
    totals: defaultdict[tuple[str, ...], float] = defaultdict(float)
    for path in paths:
        for key, value, _, _ in MmapedDict.read_all_values_from_file(path):  # type: ignore[no-untyped-call]
            totals[_parsed(key)] += value
    return totals


@lru_cache(_KNOWN_KEYS)
def _parsed(key: str) -> tuple[str, ...]:
    _, name, labels, _ = json.loads(key)
    return _key(name, labels)


def _key(name: str, labels: Mapping[str, str]) -> tuple[str, ...]:
    return (name, *(labels[label] for label in sorted(labels, key=lambda label: (label != "le", label))))


def _cumulative(totals: Totals) -> Totals:
    """In a file each bucket has its own count, and a histogram has no count of all."""
    made = dict(totals)
    buckets: defaultdict[tuple[str, ...], list[tuple[float, tuple[str, ...]]]] = defaultdict(list)
    for key in totals:
        if key[0].endswith("_bucket"):
            buckets[(key[0].removesuffix("_bucket"), *key[2:])].append((float(key[1]), key))
    for (name, *labels), bounds in buckets.items():
        count = 0.0
        for _, key in sorted(bounds):
            count += totals[key]
            made[key] = count
        made[(f"{name}_count", *labels)] = count
    return made
