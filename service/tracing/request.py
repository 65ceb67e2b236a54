"""One traced request: its span, those of its stages, images and texts, and what packs and hosts are told of it."""

import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any, Protocol

from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, Status, StatusCode, Tracer, set_span_in_context
from opentelemetry.util.types import AttributeValue

from service.engine.client import Job, JobResult
from service.priority import Priority
from service.tracing import current
from service.tracing.packs import PackSpans, traceparent_of

# A request may have thousands of texts: the first of them get spans, so that others find room in the queue.
_MOST_ITEMS = 100

Attributes = dict[str, AttributeValue]


class Told(Protocol):
    """What is known of a request at its end: a `RequestContext`."""

    request_id: str
    started_s: float
    route: str
    dialect: str
    images: int
    texts: int
    tokens: int
    cached_tokens: int
    dimensions: int
    error_code: str | None
    refusal: str | None
    stages_s: dict[str, float]
    pack_ids: list[str]

    @property
    def priority(self) -> Priority: ...


class RequestTrace:
    """exemplar: the labels of its exemplars. headers: those of the W3C trace context, for other hosts."""

    def __init__(self, method: str, span: Span, tracer: Tracer, packs: PackSpans) -> None:
        """method: of the request, with which the name of its span begins."""
        self._method, self._span, self._tracer, self._packs = method, span, tracer, packs
        self._context = set_span_in_context(span, Context())
        # The clock of the system may be set while the server runs, so each request reads anew where it stands.
        self._epoch_ns = time.time_ns() - time.monotonic_ns()
        self._items = 0
        self._answered_s: float | None = None
        context = span.get_span_context()
        self.trace_id = f"{context.trace_id:032x}"
        self.exemplar = {"trace_id": self.trace_id, "span_id": f"{context.span_id:016x}"}
        self.headers: Sequence[tuple[str, str]] = [("traceparent", traceparent_of(span))]
        if context.trace_state:
            self.headers = [*self.headers, ("tracestate", context.trace_state.to_header())]

    def add(
        self,
        name: str,
        began_s: float,
        ended_s: float,
        *,
        within: Context | None = None,
        links: Sequence[Link] = (),
    ) -> None:
        """A stage that has ended, by `time.monotonic`. within: of the image or text that it belongs to."""
        span = self._tracer.start_span(name, within or self._context, links=links, start_time=self._ns(began_s))
        span.end(self._ns(ended_s))

    async def submit(self, job: Job, submit: Callable[[Job], Coroutine[Any, Any, JobResult]]) -> JobResult:
        """What `submit` gives for the job, which gets a span with its stages. It begins with its decoding."""
        decoded = current.decoded.get()
        current.decoded.set(None)
        self._items += 1
        if self._items > _MOST_ITEMS:
            return await submit(job)
        submitted_s = time.monotonic()
        began_ns = self._ns(decoded[0] if decoded else submitted_s)
        span = self._tracer.start_span(
            job.kind, self._context, attributes=_described(job), start_time=began_ns, record_exception=False
        )
        within = set_span_in_context(span, Context())
        if decoded:
            self.add("decode", *decoded, within=within)
        try:
            result = await submit(replace(job, trace=traceparent_of(span)))
            self._ran(result, submitted_s, within)
        except BaseException as error:
            _fail(span, str(getattr(error, "code", type(error).__name__)))
            raise
        finally:
            span.end()
        return result

    def _ran(self, result: JobResult, submitted_s: float, within: Context) -> None:
        """The last stages of an image or a text follow one another."""
        packed_s = submitted_s + result.queue_s
        forwarded_s = packed_s + result.pack_s
        self.add("queue", submitted_s, packed_s, within=within)
        self.add("pack", packed_s, forwarded_s, within=within)
        links = self._packs.links_to(result.pack_id)
        self.add("forward", forwarded_s, forwarded_s + result.forward_s, within=within, links=links)
        if result.pack_trace is not None:
            self._packs.add(result.pack_id, result.pack_trace, self._ns)

    def answered(self) -> None:
        """The answer begins to be sent."""
        self._answered_s = time.monotonic()

    def end(self, told: Told, status: int) -> None:
        """The answer has been sent, or nobody is left to take it."""
        ended_s, stages_s = time.monotonic(), told.stages_s
        if "receive" in stages_s:
            self.add("receive", told.started_s, told.started_s + stages_s["receive"])
        if self._answered_s is not None and "respond" in stages_s:
            self.add("respond", self._answered_s - stages_s["respond"], self._answered_s)
            self.add("send", self._answered_s, ended_s)
        self._span.update_name(f"{self._method} {told.route}")
        self._span.set_attributes(_answer(told, status, max(0, self._items - _MOST_ITEMS)))
        if status >= 500:
            _fail(self._span, told.error_code or str(status))
        self._span.end(self._ns(ended_s))

    def _ns(self, monotonic_s: float) -> int:
        """Nanoseconds since 1970."""
        return self._epoch_ns + int(monotonic_s * 1e9)


def _described(job: Job) -> Attributes:
    grids = [f"{height}x{width}" for height, width in getattr(job, "grids", ())]
    return {"packlight.tokens": job.tokens} | ({"packlight.grids": grids} if grids else {})


def _answer(told: Told, status: int, left_out: int) -> Attributes:
    """What a request's span says of its answer, by the conventions for HTTP and for generative AI where they have a
    name. left_out: images and texts without spans."""
    attributes: Attributes = {
        "http.route": told.route,
        "http.response.status_code": status,
        "packlight.request_id": told.request_id,
        "packlight.dialect": told.dialect,
        "packlight.priority": told.priority,
        "packlight.images": told.images,
        "packlight.texts": told.texts,
    }
    if status == 200:
        attributes["gen_ai.usage.input_tokens"] = told.tokens
        attributes["packlight.pack_ids"] = told.pack_ids
    if told.cached_tokens:
        attributes["gen_ai.usage.cache_read.input_tokens"] = told.cached_tokens
    if told.dimensions:
        attributes["gen_ai.embeddings.dimension.count"] = told.dimensions
    if told.error_code:
        attributes["packlight.error"] = told.refusal or told.error_code
    if left_out:
        attributes["packlight.items_without_spans"] = left_out
    return attributes


def _fail(span: Span, kind: str) -> None:
    span.set_attribute("error.type", kind)
    span.set_status(Status(StatusCode.ERROR))
