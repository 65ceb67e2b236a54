"""Whether requests are traced. If they are not, nothing of OpenTelemetry is loaded."""

import logging
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from service.metrics import Metrics
from service.settings.settings import Settings
from service.settings.values import tracing_is_installed
from service.tracing.stages import TracedStage

if TYPE_CHECKING:
    from service.tracing.spans import Tracing

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")

_log = logging.getLogger(__name__)


def tracing_of(settings: Settings, metrics: Metrics, *, environ: Mapping[str, str] = os.environ) -> "Tracing | None":
    """The tracing of this process, which also shows traces in its metrics; None if it is off.

    The settings ask for it, or OpenTelemetry's own variables, which many clusters give every container: they alone stop
    no server that cannot do as they say.
    """
    endpoint = settings.tracing_endpoint or next((environ[name] for name in _ENDPOINTS if environ.get(name)), None)
    disabled = environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    if endpoint is None or disabled or environ.get("OTEL_TRACES_EXPORTER", "").strip().lower() == "none":
        return None
    if settings.tracing_endpoint is None and (reason := _cannot(environ)):
        _log.warning("no traces are sent to %s, which the environment names: %s", endpoint, reason)
        return None
    from service.tracing.spans import Tracing

    tracing = Tracing.of(settings, metrics, endpoint, environ)
    metrics.stages = {name: TracedStage(name, metrics.stage_seconds.labels(name)) for name in metrics.stages}
    metrics.shows_exemplars = metrics.folder is None
    _log.info("traces are sent to %s", endpoint)
    return tracing


def _cannot(environ: Mapping[str, str]) -> str | None:
    protocol = next((environ[name] for name in _PROTOCOLS if environ.get(name)), "grpc")
    if protocol != "grpc":
        return f"they are sent by gRPC, and it asks for {protocol}; tracing_endpoint can name another endpoint"
    return None if tracing_is_installed() else "that needs packlight[tracing]"
