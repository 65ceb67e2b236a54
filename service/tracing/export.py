"""Where spans go: to a collector by OTLP over gRPC, from a thread, in batches. What it does not take is dropped.

Nothing here waits for it but that thread. Spans that are sent and dropped are counted, and the log says once that they
are dropped.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Self

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from model import threads
from service.metrics import Metrics

# Most spans that wait for the exporter, some 8 MB.
_QUEUE_SPANS = 2048
# Where the exporter logs each try.
_EXPORTER_LOG = "opentelemetry.exporter.otlp.proto.grpc.exporter"

_log = logging.getLogger(__name__)


class Exporting:
    """processor: what the providers of spans give them to."""

    def __init__(
        self, exporter: SpanExporter, endpoint: str, metrics: Metrics, *, most_spans: int, close_s: float = 2.0
    ) -> None:
        """endpoint: what the log calls the collector. most_spans: that wait for the exporter. close_s: how long the
        last of them may take."""
        self._close_s = close_s
        self._counted = _Counted(exporter, endpoint, metrics)
        with threads.keeping("traces") as self._threads:
            self.processor = _Bounded(self._counted, most_spans)

    @classmethod
    def of(cls, given: str | None, endpoint: str, metrics: Metrics, environ: Mapping[str, str]) -> Self:
        """given: the endpoint of our own setting. The exporter reads that of the environment by itself, with
        everything else that OpenTelemetry's variables say."""
        most = environ.get("OTEL_BSP_MAX_QUEUE_SIZE", "")
        exporter = OTLPSpanExporter(endpoint=given)
        return cls(exporter, endpoint, metrics, most_spans=int(most) if most.isdigit() else _QUEUE_SPANS)

    def close(self) -> None:
        threads.let_go(*self._threads)
        threads.passing(self.processor.shutdown, "last traces").join(self._close_s)
        self._counted.shutdown()


class _Reason(logging.Filter):
    """Keeps the last line of a log, and lets none through: each try would be one."""

    last = ""

    def filter(self, record: logging.LogRecord) -> bool:
        self.last = record.getMessage()
        return False


class _Counted(SpanExporter):
    """taken: spans that it has been given. Called by one thread."""

    def __init__(self, exporter: SpanExporter, endpoint: str, metrics: Metrics) -> None:
        self._exporter, self._endpoint = exporter, endpoint
        self._spans = metrics.spans
        self._reason = _Reason()
        logging.getLogger(_EXPORTER_LOG).addFilter(self._reason)
        self._failing = self._closed = False
        self.taken = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        try:
            result = self._exporter.export(spans)
        except Exception as error:
            result, self._reason.last = SpanExportResult.FAILURE, str(error)
        self.taken += len(spans)
        if result is SpanExportResult.SUCCESS:
            self._spans.labels("sent").inc(len(spans))
            self._note(failing=False)
        else:
            self.drop(len(spans))
        return result

    def drop(self, count: int) -> None:
        self._spans.labels("dropped").inc(count)
        self._note(failing=True)

    def _note(self, *, failing: bool) -> None:
        if failing and not self._failing:
            _log.warning(
                "the collector at %s takes no spans, or not as fast as they come: they are dropped, and requests are "
                "served as before. %s", self._endpoint, self._reason.last,
            )  # fmt: skip
        elif self._failing and not failing:
            _log.info("the collector at %s takes spans again", self._endpoint)
        self._failing = failing

    def shutdown(self) -> None:
        if not self._closed:
            self._closed = True
            self._exporter.shutdown()
            logging.getLogger(_EXPORTER_LOG).removeFilter(self._reason)


class _Bounded(BatchSpanProcessor):
    """Counts what it drops, which the one that it is made from does not. Spans end in the event loop alone."""

    def __init__(self, exporter: _Counted, most_spans: int) -> None:
        super().__init__(exporter, max_queue_size=most_spans, max_export_batch_size=min(512, most_spans))
        self._exporter, self._most_spans = exporter, most_spans
        self._ended = 0

    def on_end(self, span: ReadableSpan) -> None:
        if self._ended - self._exporter.taken >= self._most_spans:
            self._exporter.drop(1)
        else:
            self._ended += 1
            super().on_end(span)
