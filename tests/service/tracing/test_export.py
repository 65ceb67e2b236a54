"""What becomes of spans and requests while the collector is away, slow or unwilling."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from model.running.runner import Runner
from service.limits import ModelFacts
from service.metrics import Metrics
from service.settings.loading import load_settings
from service.settings.names import SettingsError
from service.settings.settings import Settings
from service.tracing.export import Exporting
from service.tracing.spans import Tracing
from service.tracing.switch import tracing_of
from tests.service.conftest import small_png
from tests.service.running import PATIENCE_S, serving, until
from tests.service.test_logs import Log
from tests.service.test_logs import log as log
from tests.service.tracing.collector import Collector

PNG = small_png()
SCOPE: dict[str, Any] = {
    "method": "POST", "path": "/embed", "scheme": "http", "http_version": "1.1", "headers": [], "server": None
}  # fmt: skip


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches are sent at once."""
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")


class Stuck(SpanExporter):
    """Takes the first batch and goes on with it until it is let go."""

    def __init__(self) -> None:
        self.entered, self.free = threading.Event(), threading.Event()

    def export(self, spans: Any) -> SpanExportResult:
        self.entered.set()
        assert self.free.wait(PATIENCE_S)
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        self.free.set()


def test_a_collector_that_refuses_costs_one_line_and_no_request(loaded: tuple[Runner, ModelFacts], log: Log) -> None:
    log.configure("json")
    with (
        Collector() as collector,
        serving(loaded, tracing_endpoint=collector.endpoint, tracing_sample_ratio=1) as server,
    ):
        collector.refuses = True
        for _ in range(3):
            assert server.embed(PNG, max_tokens=12).status_code == 200
        # A request of one image is nine spans, and ten with that of its pack.
        until(lambda: server.metric("spans_total", outcome="dropped") == 30)
        (warning,) = [event for event in log.events if event["level"] == "warning"]
        assert warning["message"].startswith(f"the collector at {collector.endpoint} takes no spans")
        assert "not today" in warning["message"]
        collector.refuses = False
        server.embed(PNG, max_tokens=12)
        until(lambda: server.metric("spans_total", outcome="sent") == 10)
        again = f"the collector at {collector.endpoint} takes spans again"
        # The line of the request may come behind it.
        until(lambda: again in [event["message"] for event in log.events])


def test_spans_beyond_the_queue_are_dropped_and_counted() -> None:
    metrics, exporter = Metrics(), Stuck()
    exporting = Exporting(exporter, "nowhere", metrics, most_spans=4)
    tracing = Tracing(None, exporting)
    for _ in range(6):
        trace = tracing.begin(SCOPE, "a model")
        assert trace is not None
        trace.add("receive", 0.0, 1.0)
    assert exporter.entered.wait(PATIENCE_S)
    assert metrics.registry.get_sample_value("packlight_spans_total", {"outcome": "dropped"}) == 2
    exporter.free.set()
    until(lambda: metrics.registry.get_sample_value("packlight_spans_total", {"outcome": "sent"}) == 4)
    tracing.close()


def test_closing_waits_for_no_collector_that_is_stuck() -> None:
    exporter = Stuck()
    tracing = Tracing(None, Exporting(exporter, "nowhere", Metrics(), most_spans=4, close_s=0.1))
    trace = tracing.begin(SCOPE, "a model")
    assert trace is not None
    trace.add("receive", 0.0, 1.0)
    assert exporter.entered.wait(PATIENCE_S)
    tracing.close()
    assert exporter.free.is_set()


@pytest.fixture
def named() -> Iterator[list[Any]]:
    """Tracing that a test has begun."""
    begun: list[Any] = []
    yield begun
    for tracing in begun:
        if tracing:
            tracing.close()


@pytest.mark.parametrize(
    ("environ", "on"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:1"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "true"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_TRACES_EXPORTER": "none"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a:4318", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, False),
    ],
)
def test_opentelemetrys_own_variables_are_heeded(named: list[Any], environ: dict[str, str], on: bool) -> None:
    named.append(tracing_of(Settings(), Metrics(), environ=environ))
    assert (named[0] is not None) == on


@pytest.mark.parametrize(
    ("ratio", "environ", "sampled"),
    [
        (1.0, {"OTEL_TRACES_SAMPLER": "always_off"}, True),
        (None, {"OTEL_TRACES_SAMPLER": "always_on"}, True),
        (None, {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0"}, False),
        (0.0, {}, False),
    ],
)
def test_our_own_ratio_comes_before_the_sampler_of_the_environment(
    named: list[Any], monkeypatch: pytest.MonkeyPatch, ratio: float | None, environ: dict[str, str], sampled: bool
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    settings = Settings(tracing_endpoint="http://127.0.0.1:1", tracing_sample_ratio=ratio)
    tracing = tracing_of(settings, Metrics(), environ=environ)
    named.append(tracing)
    assert tracing is not None
    assert (tracing.begin(SCOPE, "a model") is not None) == sampled


@pytest.mark.parametrize("endpoint", ["localhost:4317", "grpc://collector:4317", "http://a/v1/traces"])
def test_an_endpoint_that_is_none_refuses_to_start(endpoint: str) -> None:
    with pytest.raises(SettingsError, match="tracing_endpoint .* is http://host:port or https://host:port"):
        load_settings({"tracing_endpoint": endpoint}, names=())
