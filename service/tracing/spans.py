"""The tracing of one process: which requests are traced, and where their spans go."""

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any, Self

from opentelemetry.context import Context
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio, Sampler
from opentelemetry.trace import SpanKind, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from service import logs
from service.metrics import Metrics
from service.settings.settings import Settings
from service.tracing import current
from service.tracing.export import Exporting
from service.tracing.packs import PackSpans
from service.tracing.request import Attributes, RequestTrace

_SCOPE = "packlight"
_SAMPLE_RATIO = 0.01
_NO_PARENT = Context()
_PROPAGATOR = TraceContextTextMapPropagator()


class Tracing:
    """Belongs to the event loop."""

    def __init__(self, sampler: Sampler | None, exporting: Exporting) -> None:
        """sampler: None for that of `OTEL_TRACES_SAMPLER`."""
        resource, release = _resource(), version("packlight")
        provider = TracerProvider(sampler, resource, shutdown_on_exit=False)
        provider.add_span_processor(exporting.processor)
        self._exporting = exporting
        self._tracer = provider.get_tracer(_SCOPE, release)
        self._packs = PackSpans(resource, exporting.processor, _SCOPE, release)

    @classmethod
    def of(cls, settings: Settings, metrics: Metrics, endpoint: str, environ: Mapping[str, str]) -> Self:
        ratio = settings.tracing_sample_ratio
        if ratio is None and not environ.get("OTEL_TRACES_SAMPLER"):
            ratio = _SAMPLE_RATIO
        sampler = None if ratio is None else ParentBasedTraceIdRatio(ratio)
        return cls(sampler, Exporting.of(settings.tracing_endpoint, endpoint, metrics, environ))

    def begin(self, scope: Mapping[str, Any], model: str) -> RequestTrace | None:
        """The trace of a request whose head has come; None if it is not sampled. Either way its task knows the trace
        that it belongs to, if there is one."""
        carrier = _carrier(scope)
        parent = _PROPAGATOR.extract(carrier, _NO_PARENT) if carrier else _NO_PARENT
        span = self._tracer.start_span(scope["method"], parent, SpanKind.SERVER, record_exception=False)
        if not span.is_recording():
            caller = get_current_span(parent).get_span_context()
            if caller.is_valid:
                logs.trace_id.set(f"{caller.trace_id:032x}")
                current.outgoing.set([(name, ",".join(values)) for name, values in carrier.items()])
            return None
        span.set_attributes(_request(scope, model))
        trace = RequestTrace(scope["method"], span, self._tracer, self._packs)
        logs.trace_id.set(trace.trace_id)
        current.outgoing.set(trace.headers)
        current.recorded.set(trace)
        return trace

    def close(self) -> None:
        """Sends what is left, for two seconds at most."""
        self._exporting.close()


def _resource() -> Resource:
    """With the name that the environment gives, or ours."""
    made = Resource.create({SERVICE_VERSION: version("packlight")})
    named = not str(made.attributes[SERVICE_NAME]).startswith("unknown_service")
    return made if named else made.merge(Resource({SERVICE_NAME: "packlight"}))


def _carrier(scope: Mapping[str, Any]) -> dict[str, list[str]]:
    """The headers of the W3C trace context, if there is one `traceparent`, as that asks."""
    parents = [value for name, value in scope["headers"] if name == b"traceparent"]
    if len(parents) != 1:
        return {}
    states = [value.decode("latin-1") for name, value in scope["headers"] if name == b"tracestate"]
    return {"traceparent": [parents[0].decode("latin-1")]} | ({"tracestate": states} if states else {})


def _request(scope: Mapping[str, Any], model: str) -> Attributes:
    """By the semantic conventions for HTTP servers and for embeddings. The latter are in development and know no
    servers; what they say of clients' spans is said here too."""
    attributes: Attributes = {
        "http.request.method": scope["method"],
        "url.path": scope["path"],
        "url.scheme": scope["scheme"],
        "network.protocol.version": scope["http_version"],
        "gen_ai.operation.name": "embeddings",
        "gen_ai.provider.name": "packlight",
        "gen_ai.request.model": model,
        "gen_ai.response.model": model,
    }
    if server := scope.get("server"):
        attributes |= {"server.address": server[0], "server.port": server[1] or 0}
    for name, value in scope["headers"]:
        if name == b"user-agent":
            attributes["user_agent.original"] = value.decode("latin-1")
    return attributes
