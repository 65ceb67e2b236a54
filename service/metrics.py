"""Every metric, declared once. docs/operating.md says how to read those on padding.

Base units; labels from closed sets; no Info, no Enum and no callbacks of ours, which multi-process mode could not bear.
"""

import os
from collections.abc import Sequence
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
    values,
)
from prometheus_client.multiprocess import MultiProcessCollector

from service.limits import ModelFacts
from service.process_tree import ProcessTree

# Why requests are refused: codes of errors, or something more exact where one code has many causes.
REASONS: Final = (
    "bad_request", "bytes_in_flight", "connections", "deadline_exceeded", "headers_too_large", "invalid",
    "method_not_allowed", "never_fits", "not_found", "queue_full", "too_large", "too_many_bytes", "too_many_images",
    "unauthorized", "unavailable", "unsupported_media", "upload_timeout",
    "would_be_late",
)  # fmt: skip
STAGES: Final = ("receive", "decode", "queue", "pack", "forward", "respond")

_SECONDS = (
    0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
)  # fmt: skip
_TOKENS = tuple(float(2**power) for power in range(4, 16))
_IMAGES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 256)
_RATIOS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)


class Metrics:
    """The metrics of one process, in a registry of its own; with a folder, part of those of a server of many."""

    def __init__(self, *, folder: str | None = None) -> None:
        """folder: that of multi-process mode, from which this process answers for all."""
        self._folder = folder
        self.registry = registry = CollectorRegistry()

        def counter(name: str, text: str, labels: Sequence[str] = ()) -> Counter:
            return Counter(f"packlight_{name}", text, labels, registry=registry)

        def histogram(name: str, text: str, buckets: Sequence[float], labels: Sequence[str] = ()) -> Histogram:
            return Histogram(f"packlight_{name}", text, labels, registry=registry, buckets=buckets)

        def gauge(name: str, text: str, mode: str, labels: Sequence[str] = ()) -> Gauge:
            made = Gauge(f"packlight_{name}", text, labels, registry=registry, multiprocess_mode=mode)  # type: ignore[arg-type]
            if not labels:
                # Not what a process of the same name left behind when it died.
                made.set(0)
            return made

        self.requests = counter("requests", "Requests answered.", ["route", "status"])
        self.images = counter("images", "Images of requests that were let in, by what became of them.", ["outcome"])
        self.rejected = counter("rejected", "Requests refused before any image was decoded.", ["reason"])
        self.request_seconds = histogram(
            "request_seconds", "From a request's first byte to its answer.", _SECONDS, ["route"]
        )
        self.stage_seconds = histogram("stage_seconds", "Time in one stage of the way.", _SECONDS, ["stage"])
        self.image_tokens = histogram("image_tokens", "Tokens of an image.", _TOKENS)
        self.pack_tokens = histogram("pack_tokens", "Image tokens of a pack.", _TOKENS)
        self.pack_images = histogram("pack_images", "Images of a pack.", _IMAGES)
        self.pack_fill_ratio = histogram("pack_fill_ratio", "Image tokens of a pack over max_batch_tokens.", _RATIOS)
        self.padding_waste_ratio = histogram(
            "padding_waste_ratio", "Padding tokens of a pack over all tokens computed.", (0.0, *_RATIOS)
        )
        self.tokens = counter("tokens", "Tokens the device computed, warm-up left out.", ["kind"])
        self.charged_tokens = counter("charged_tokens", "Tokens that answers charged.")
        self.padding_avoided = counter(
            "padding_avoided_tokens", "Padding that another layout of the same packs would have computed.", ["layout"]
        )
        self.queue_tokens = gauge("queue_tokens", "Tokens admitted and not yet answered.", "livesum")
        self.queue_images = gauge("queue_images", "Images waiting for a pack.", "livesum")
        self.inflight_bytes = gauge("inflight_bytes", "Bytes of request bodies held.", "livesum")
        self.forward_faults = counter("forward_faults", "Forwards that failed, of packs and of their parts.", ["kind"])
        self.max_batch_tokens = gauge(
            "max_batch_tokens", "Most tokens of a pack: lowered where memory ran out repeatedly.", "livesum"
        )
        self.engine_restarts = counter("engine_restarts", "Engine processes that had to be replaced.", ["reason"])
        self.engine_up = gauge("engine_up", "1 while the device answers.", "min")
        self.build_info = gauge(
            "build_info", "1, labelled with what is served.", "max", ["version", "model", "dtype", "device", "layout"]
        )
        # What the process takes of the machine: memory, files, processor time, and since when it runs.
        ProcessCollector(registry=registry)
        self._make_visible()

    def exposition(self) -> bytes:
        """What `/metrics` answers: of this process, or of all that share the folder."""
        if self._folder is None:
            return generate_latest(self.registry)
        registry = CollectorRegistry()
        MultiProcessCollector(registry, path=self._folder)  # type: ignore[no-untyped-call]
        registry.register(ProcessTree(os.getppid()))
        return generate_latest(registry)

    def _make_visible(self) -> None:
        """Label sets that are known beforehand start at zero, so that rates and alerts need no first event."""
        for reason in REASONS:
            self.rejected.labels(reason)
        for stage in STAGES:
            self.stage_seconds.labels(stage)
        for kind in ("image", "padding"):
            self.tokens.labels(kind)
        for kind in ("exception", "out_of_memory"):
            self.forward_faults.labels(kind)
        for reason in ("died", "hung"):
            self.engine_restarts.labels(reason)
        for layout in ("pad_to_longest", "pad_to_cap"):
            self.padding_avoided.labels(layout)

    def refuse(self, reason: str) -> None:
        """Counts a refusal. Faults of the server are none, and count by their status alone."""
        if reason in REASONS:
            self.rejected.labels(reason).inc()

    def serve(self, facts: ModelFacts, version: str) -> None:
        """Says what is served."""
        self.build_info.labels(version, facts.name, facts.dtype, facts.device, "packed").set(1)

    def observe_pack(
        self,
        image_tokens: Sequence[int],
        token_caps: Sequence[int],
        *,
        computed_tokens: int,
        max_batch_tokens: int,
    ) -> None:
        """Counts one forward: the tokens and the caps of its images, and the rows that the device went through."""
        total = sum(image_tokens)
        self.pack_tokens.observe(total)
        self.pack_images.observe(len(image_tokens))
        self.pack_fill_ratio.observe(total / max_batch_tokens)
        self.padding_waste_ratio.observe((computed_tokens - total) / computed_tokens)
        self.tokens.labels("image").inc(total)
        self.tokens.labels("padding").inc(computed_tokens - total)
        self.padding_avoided.labels("pad_to_longest").inc(len(image_tokens) * max(image_tokens) - total)
        self.padding_avoided.labels("pad_to_cap").inc(sum(token_caps) - total)


def name_process(name: str) -> None:
    """For a process of many, before it makes its `Metrics`: its values are kept in files of this name, which the next
    process of the name goes on with. Named by pid, every restart would leave files behind, and start from zero."""
    values.ValueClass = values.MultiProcessValue(process_identifier=lambda: name)  # type: ignore[no-untyped-call]
    disable_created_metrics()  # type: ignore[no-untyped-call]
