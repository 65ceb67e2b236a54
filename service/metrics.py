"""Every metric, declared once.

Base units, and labels from closed sets. Prometheus' multi-process mode allows no Info, no Enum and no callbacks.
"""

import os
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Final, Literal, NamedTuple, Protocol, TypeVar, get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
    values,
)
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.openmetrics import exposition as openmetrics

from service.fetching.failures import FetchOutcome
from service.gpus import Gpus
from service.limits import ModelFacts
from service.priority import PRIORITIES
from service.process_usage import ProcessTree

# Why requests are refused: error codes, or something more exact if one code has several causes.
REASONS: Final = (
    "bad_request", "bytes_in_flight", "connections", "deadline_exceeded", "fetch_failed", "fingerprint_mismatch",
    "headers_too_large", "invalid", "method_not_allowed", "never_fits", "not_found", "queue_full", "too_large",
    "too_many_bytes", "too_many_images", "too_many_texts", "unauthorized", "unavailable", "unsupported_media",
    "upload_timeout", "would_be_late",
)  # fmt: skip
# Those that overload is the reason for.
OVERLOAD: Final = ("bytes_in_flight", "queue_full", "would_be_late")
STAGES: Final = ("receive", "fetch", "decode", "tokenize", "queue", "pack", "forward", "respond")

MetricT = TypeVar("MetricT", Counter, Histogram)

ItemKind = Literal["image", "text", "canary"]
# Those of a kind would be padded to the longest of them.
_PADDED: Final[tuple[ItemKind, ...]] = ("image", "text")
CacheOutcome = Literal["hit", "shared", "joined", "miss"]
"""hit: this process remembered it; shared: the store that replicas share did; joined: another request was embedding it;
miss: it was embedded."""
StoreOutcome = Literal["found", "missing", "failed", "skipped", "written", "not_written"]
"""skipped: the store had just failed, or too many keys waited for it."""

_SECONDS = (
    0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
)  # fmt: skip
_TOKENS = tuple(float(2**power) for power in range(4, 16))
_IMAGES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 256)
_RATIOS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)


class _Declare:
    """Declares metrics in one registry, with our prefix."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def counter(self, name: str, text: str, labels: Sequence[str] = ()) -> Counter:
        return _quick(Counter(f"packlight_{name}", text, labels, registry=self._registry))

    def histogram(self, name: str, text: str, buckets: Sequence[float], labels: Sequence[str] = ()) -> Histogram:
        return _quick(Histogram(f"packlight_{name}", text, labels, registry=self._registry, buckets=buckets))

    def gauge(self, name: str, text: str, mode: str, labels: Sequence[str] = ()) -> Gauge:
        """mode: how the values of several processes become one."""
        made = Gauge(f"packlight_{name}", text, labels, registry=self._registry, multiprocess_mode=mode)  # type: ignore[arg-type]
        if not labels:
            # Forgets the value that a dead process of the same name left behind.
            made.set(0)
        return made


def _quick(metric: MetricT) -> MetricT:
    """Looking labels up takes longer than counting. They come from closed sets, and none is ever removed."""
    metric.labels = cache(metric.labels)  # type: ignore[method-assign]
    return metric


class Observes(Protocol):
    """Is told how long each request was in a stage."""

    def observe(self, amount: float) -> None:
        """amount: seconds."""


class PackItem(NamedTuple):
    """An image or a text of a pack. token_cap: the most tokens it could have had."""

    kind: ItemKind
    tokens: int
    token_cap: int


class Metrics:
    """The metrics of one process, in a registry of its own."""

    def __init__(self, *, folder: str | None = None) -> None:
        """folder: where the processes of one server keep their values; `exposition` then answers for all of them."""
        self.folder = folder
        self.registry = CollectorRegistry()
        self._build_info: tuple[str, ...] | None = None
        self._declare_requests(declare := _Declare(self.registry))
        self._declare_priorities(declare)
        self._declare_device(declare)
        # Memory, open files, processor time and start of this process and those that decode images for it.
        self.registry.register(ProcessTree(os.getpid()))
        self._gpus = Gpus()
        self.registry.register(self._gpus)
        self._make_visible()
        # Whether histograms say which traces their values come from.
        self.shows_exemplars = False

    def _declare_requests(self, declare: _Declare) -> None:
        self.requests = declare.counter("requests", "Requests answered.", ["route", "status", "dialect"])
        self.images = declare.counter(
            "images", "Images of requests that were let in, by what became of them.", ["outcome"]
        )
        self.spans = declare.counter("spans", "Spans of traces, by what became of them.", ["outcome"])
        self.images_repaired = declare.counter(
            "images_repaired", "Images embedded although their files lacked the end marker of a JPEG."
        )
        self.texts = declare.counter(
            "texts", "Texts of requests that were let in, by what became of them.", ["outcome"]
        )
        self.truncated_texts = declare.counter("truncated_texts", "Texts whose end was cut off.")
        self.url_fetches = declare.counter(
            "url_fetches", "Images to be fetched from URLs, by what became of them.", ["outcome"]
        )
        self._declare_cache(declare)
        self.rejected = declare.counter("rejected", "Requests refused before any image was decoded.", ["reason"])
        self.request_seconds = declare.histogram(
            "request_seconds", "From a request's first byte to its answer.", _SECONDS, ["route", "dialect"]
        )
        self.stage_seconds = declare.histogram(
            "stage_seconds", "Time of a request, an item or a pack in one stage.", _SECONDS, ["stage"]
        )
        # Looking a label up takes longer than observing.
        self.stages: Mapping[str, Observes] = {stage: self.stage_seconds.labels(stage) for stage in STAGES}
        self.image_tokens = declare.histogram("image_tokens", "Tokens of an image.", _TOKENS)
        self.charged_tokens = declare.counter("charged_tokens", "Tokens that answers charged.")
        self.queue_tokens = declare.gauge("queue_tokens", "Tokens admitted and not yet answered.", "livesum")
        self.queue_images = declare.gauge("queue_images", "Images and texts waiting for a pack.", "livesum")
        self.inflight_bytes = declare.gauge(
            "inflight_bytes", "Bytes held of request bodies and of answers not yet sent.", "livesum"
        )

    def _declare_priorities(self, declare: _Declare) -> None:
        """What is told of interactive and of bulk requests apart."""
        label = ["priority"]
        queue_tokens = declare.gauge(
            "priority_queue_tokens", "Tokens admitted and not yet answered, by the class of request.", "livesum", label
        )
        self.priority_tokens = declare.counter(
            "priority_tokens", "Tokens of images and texts that ran, by the class of their requests.", label
        )
        self.priority_refused = declare.counter(
            "priority_refused", "Requests refused for overload, by class.", [*label, "reason"]
        )
        request_seconds = declare.histogram(
            "priority_request_seconds", "From a request's first byte to its answer, by class.", _SECONDS, label
        )
        queue_seconds = declare.histogram(
            "priority_queue_seconds", "Wait of an image or text for its pack and the device, by class.", _SECONDS, label
        )
        # By whether it is bulk: looking a label up takes longer than setting and observing.
        self.priority_queue_tokens = [queue_tokens.labels(each) for each in PRIORITIES]
        self.priority_requests: list[Observes] = [request_seconds.labels(each) for each in PRIORITIES]
        self._priority_queue: list[Observes] = [queue_seconds.labels(each) for each in PRIORITIES]
        for gauge in self.priority_queue_tokens:
            # Forgets the value that a dead process of the same name left behind.
            gauge.set(0)

    def _declare_cache(self, declare: _Declare) -> None:
        self.cache_images = declare.counter(
            "cache_images", "Images that the memory of pictures seen was asked for, by what it had.", ["outcome"]
        )
        self.cache_saved_tokens = declare.counter(
            "cache_saved_tokens", "Tokens that were charged and not computed: their images were embedded before."
        )
        self.cache_bytes = declare.gauge("cache_bytes", "Bytes held of pictures seen.", "livesum")
        self.cache_store = declare.counter(
            "cache_store", "Pictures that the shared store was asked for or given, by what became of them.", ["outcome"]
        )

    def _declare_device(self, declare: _Declare) -> None:
        self.pack_tokens = declare.histogram("pack_tokens", "Tokens of a pack.", _TOKENS)
        self.pack_images = declare.histogram("pack_images", "Images and texts of a pack.", _IMAGES)
        self.pack_fill_ratio = declare.histogram("pack_fill_ratio", "Tokens of a pack over max_batch_tokens.", _RATIOS)
        self.padding_waste_ratio = declare.histogram(
            "padding_waste_ratio", "Padding tokens of a pack over all tokens computed.", (0.0, *_RATIOS)
        )
        self.tokens = declare.counter("tokens", "Tokens the device computed, warm-up left out.", ["kind"])
        self.padding_avoided = declare.counter(
            "padding_avoided_tokens", "Padding that another layout of the same packs would have computed.", ["layout"]
        )
        self.device_busy_seconds = declare.counter(
            "device_busy_seconds", "How long devices worked on packs. Its rate says whether the host keeps up."
        )
        self.devices = declare.gauge("devices", "Devices that packs are run on.", "livesum")
        self.forward_faults = declare.counter(
            "forward_faults", "Forwards that failed, of packs and of their parts.", ["kind"]
        )
        self.max_batch_tokens = declare.gauge(
            "max_batch_tokens", "Most tokens of a pack now; lowered after packs ran out of memory.", "livesum"
        )
        self.engine_restarts = declare.counter(
            "engine_restarts", "Engine processes that had to be replaced.", ["reason"]
        )
        self.canaries = declare.counter(
            "canaries", "Rounds of pictures with known vectors, by what their vectors were.", ["outcome"]
        )
        self.canary_drift = declare.gauge(
            "canary_drift_ratio", "How far the canary's last vectors were from those recorded, over what is allowed.",
            "max",
        )  # fmt: skip
        self.http_restarts = declare.counter("http_restarts", "HTTP processes that had to be replaced.", ["reason"])
        self.reloads = declare.counter(
            "reloads", "Times that the model was to be loaded again beside the served one.", ["outcome"]
        )
        self.log_lines_lost = declare.counter("log_lines_lost", "Lines of the log that nothing took.")
        self.engine_up = declare.gauge("engine_up", "1 while the device answers.", "min")
        self.build_info = declare.gauge(
            "build_info", "1, labelled with what is served.", "max", ["version", "model", "dtype", "device", "layout"]
        )

    def _make_visible(self) -> None:
        """Starts the label sets that are known beforehand at zero, so that rates and alerts need no first event."""
        for metric, labels in (
            (self.images, ("embedded",)),
            (self.texts, ("embedded",)),
            (self.rejected, REASONS),
            (self.url_fetches, get_args(FetchOutcome)),
            (self.cache_images, get_args(CacheOutcome)),
            (self.cache_store, get_args(StoreOutcome)),
            (self.tokens, (*get_args(ItemKind), "padding")),
            (self.forward_faults, ("exception", "out_of_memory")),
            (self.engine_restarts, ("died", "hung", "untrue")),
            (self.canaries, ("passed", "unrecorded", "interrupted", "failed")),
            (self.http_restarts, ("died", "hung")),
            (self.reloads, ("done", "failed")),
            (self.padding_avoided, ("pad_to_longest", "pad_to_cap")),
            (self.spans, ("sent", "dropped")),
            (self.priority_tokens, PRIORITIES),
        ):
            for label in labels:
                metric.labels(label)
        for priority in PRIORITIES:
            for reason in OVERLOAD:
                self.priority_refused.labels(priority, reason)

    def exposition(self) -> bytes:
        """The body of `/metrics`: of this process, or of all processes that keep their values in the folder."""
        if self.folder is None:
            return generate_latest(self.registry)
        registry = CollectorRegistry()
        MultiProcessCollector(registry, path=self.folder)  # type: ignore[no-untyped-call]
        registry.register(ProcessTree(os.getppid()))
        registry.register(self._gpus)
        return generate_latest(registry)

    def exposition_with_exemplars(self) -> bytes:
        """The same as OpenMetrics, which alone can show exemplars; of one process, since several keep none."""
        return openmetrics.generate_latest(self.registry)  # type: ignore[no-untyped-call,no-any-return]

    def refuse(self, reason: str, *, bulk: bool = False) -> None:
        """Counts a refusal. A fault of the server is not one, and counts by its status alone."""
        if reason in REASONS:
            self.rejected.labels(reason).inc()
        if reason in OVERLOAD:
            self.priority_refused.labels(PRIORITIES[bulk], reason).inc()

    def observe_queue(self, seconds: float, *, bulk: bool) -> None:
        """An image or a text has waited so long for its pack and the device."""
        self.stages["queue"].observe(seconds)
        self._priority_queue[bulk].observe(seconds)

    def set_build_info(self, facts: ModelFacts, version: str) -> None:
        labels = version, facts.name, facts.dtype, facts.device, "packed"
        if self._build_info and self._build_info != labels:
            # The model was loaded again. What has a label stays in the file of a process.
            self.build_info.labels(*self._build_info).set(0)
        self._build_info = labels
        self.build_info.labels(*labels).set(1)

    def observe_pack(self, items: Sequence[PackItem], *, computed_tokens: int, max_batch_tokens: int) -> None:
        """Counts one pack: its items, and the rows that the device computed. Padding would be up to the longest or the
        cap of all items of a kind, since each kind has a batch of its own. A pack of the canary alone counts as its
        tokens: the filler of a server at rest is no padding waste."""
        tokens: dict[ItemKind, list[int]] = {kind: [] for kind in get_args(ItemKind)}
        caps: dict[ItemKind, int] = dict.fromkeys(tokens, 0)
        for kind, count, cap in items:
            tokens[kind].append(count)
            caps[kind] += cap
        sent = len(items) - len(tokens["canary"])
        if not sent:
            self.tokens.labels("canary").inc(computed_tokens)
            return
        sums = {kind: sum(counts) for kind, counts in tokens.items()}
        total = sum(sums.values())
        # A CLIP tower computes nothing behind the end token, which an old checkpoint may find before a text's end.
        padding = max(0, computed_tokens - total)
        self.tokens.labels("padding").inc(padding)
        for kind, count in sums.items():
            self.tokens.labels(kind).inc(count)
        self.pack_tokens.observe(total)
        self.pack_images.observe(sent)
        self.pack_fill_ratio.observe(total / max_batch_tokens)
        self.padding_waste_ratio.observe(padding / computed_tokens)
        of_longest = sum(len(tokens[kind]) * max(tokens[kind], default=0) - sums[kind] for kind in _PADDED)
        self.padding_avoided.labels("pad_to_longest").inc(of_longest)
        self.padding_avoided.labels("pad_to_cap").inc(sum(caps[kind] - sums[kind] for kind in _PADDED))


def name_process(name: str) -> None:
    """For one of several processes, before it makes its `Metrics`: its values are kept in files of this name.

    The next process of the name goes on with them. Named by pid, every restart would leave files behind and count from
    zero.
    """
    values.ValueClass = values.MultiProcessValue(process_identifier=lambda: name)  # type: ignore[no-untyped-call]
    disable_created_metrics()  # type: ignore[no-untyped-call]
