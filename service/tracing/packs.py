"""The spans of packs. Each is a trace of its own, which links to the images and texts of all requests that it ran.

The process that got the first traced result of a pack makes its span. Its ids follow from the pack's, so that every
process can link to it.
"""

from collections.abc import Callable, Sequence
from hashlib import blake2b

from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import Link, Span, SpanContext, TraceFlags

from service.engine.client import PackTrace

_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_NO_PARENT = Context()


class _Ids(IdGenerator):
    """Those of one pack after another. Belongs to the event loop."""

    def __init__(self) -> None:
        self.context = _context_of("")

    def generate_trace_id(self) -> int:
        return self.context.trace_id

    def generate_span_id(self) -> int:
        return self.context.span_id


class PackSpans:
    """Made only for packs with a traced image or text, and so not sampled again."""

    def __init__(self, resource: Resource, processor: SpanProcessor, scope: str, version: str) -> None:
        self._ids = _Ids()
        provider = TracerProvider(ALWAYS_ON, resource, shutdown_on_exit=False, id_generator=self._ids)
        provider.add_span_processor(processor)
        self._tracer = provider.get_tracer(scope, version)

    def links_to(self, pack_id: str) -> Sequence[Link]:
        """A link to the span of that pack."""
        return [Link(_context_of(pack_id))] if pack_id else []

    def add(self, pack_id: str, pack: PackTrace, ns: Callable[[float], int]) -> None:
        """ns: nanoseconds since 1970 of a time by `time.monotonic`."""
        self._ids.context = _context_of(pack_id)
        self._tracer.start_span(
            "run pack",
            _NO_PARENT,
            links=[Link(_context_in(trace)) for trace in pack.traces],
            start_time=ns(pack.began_s),
            attributes={
                "packlight.pack_id": pack_id,
                "packlight.images": pack.images,
                "packlight.texts": pack.texts,
                "packlight.tokens": pack.tokens,
                "packlight.computed_tokens": pack.computed_tokens,
                "packlight.traced": len(pack.traces),
            },
        ).end(ns(pack.ended_s))


def traceparent_of(span: Span) -> str:
    """The W3C `traceparent` that names a span."""
    context = span.get_span_context()
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def _context_in(traceparent: str) -> SpanContext:
    """Of one that `traceparent_of` has made."""
    _, trace_id, span_id, flags = traceparent.split("-")
    return SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16)))


def _context_of(pack_id: str) -> SpanContext:
    digest = blake2b(pack_id.encode(), digest_size=24).digest()
    ids = int.from_bytes(digest[:16], "big"), int.from_bytes(digest[16:], "big")
    return SpanContext(*ids, is_remote=True, trace_flags=_SAMPLED)
