"""What the metrics have counted so far, over all processes of the server, as plain numbers."""

from collections.abc import Iterable
from pathlib import Path

from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from service.metrics import Metrics

# By the name of a sample and the values of its labels, which are in the order of their names:
# `("packlight_stage_seconds_bucket", "0.25", "decode")`.
Totals = dict[tuple[str, ...], float]


_GAUGES = ("gauge_livesum",)
_COUNTED = ("counter", "histogram")


def read_gauges(metrics: Metrics) -> Totals:
    """What is queued and held now. A fraction of a millisecond."""
    own = (metrics.queue_tokens, metrics.queue_images, metrics.inflight_bytes)
    return _read(metrics, _GAUGES, own)


def read_totals(metrics: Metrics) -> Totals:
    """What was counted since the start: a third of a millisecond in one process, one more for each of several."""
    own = (metrics.images, metrics.texts, metrics.tokens, metrics.pack_images, metrics.stage_seconds)
    return _read(metrics, _COUNTED, own)


def _read(metrics: Metrics, kinds: Iterable[str], own: Iterable[Collector]) -> Totals:
    """kinds: of the files of several processes. own: in one process, instead of the whole registry, because what the
    system says of the process takes longer than all the rest."""
    if metrics.folder is None:
        families = [family for metric in own for family in metric.collect()]
    else:
        files = [str(path) for kind in kinds for path in Path(metrics.folder).glob(f"{kind}_*.db")]
        families = list(MultiProcessCollector.merge(files))  # type: ignore[no-untyped-call]
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }
