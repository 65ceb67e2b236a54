"""Traces of requests, as a collector gets them from a real server."""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from model.running.runner import Runner
from service.limits import ModelFacts
from tests import pictures
from tests.service.conftest import small_png
from tests.service.fetching.hosts import Host, Names, image
from tests.service.running import PATIENCE_S, Running, raw_request, serving, until
from tests.service.test_logs import Log
from tests.service.test_logs import log as log
from tests.service.tracing.collector import Collector, attributes
from tests.text_models import load_whole

PNG = small_png()
TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED, UNSAMPLED = f"00-{TRACE}-{CALLER}-01", f"00-{TRACE}-{CALLER}-00"
OPENMETRICS = {"Accept": "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"}


@pytest.fixture(autouse=True, scope="module")
def soon() -> Iterator[None]:
    """Batches are sent at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
        yield


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as made:
        yield made


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with Host({"/a.png": image(PNG)}) as made:
        yield made


@pytest.fixture(scope="module")
def text_server(tmp_path_factory: pytest.TempPathFactory, collector: Collector, soon: None) -> Iterator[Running]:
    with serving(
        load_whole(tmp_path_factory.mktemp("clip"), "clip"), tracing_endpoint=collector.endpoint, tracing_sample_ratio=1
    ) as running:
        yield running


@pytest.fixture(scope="module")
def server(loaded: tuple[Runner, ModelFacts], collector: Collector, host: Host, soon: None) -> Iterator[Running]:
    """It traces what its callers ask for, and nothing else."""
    with serving(
        loaded, tracing_endpoint=collector.endpoint, tracing_sample_ratio=0, resolver=Names(images_test=["127.0.0.1"]),
        url_allowlist=(f"private images.test:{host.port}",),
    ) as running:  # fmt: skip
        yield running


def post(
    server: Running, parent: str | None = SAMPLED, content: bytes = PNG, headers: Mapping[str, str] | None = None
) -> Any:
    named = {"traceparent": parent} if parent else {}
    sent = {"Content-Type": "image/png", **named, **(headers or {})}
    return server.http.post("/embed?max_tokens=12", content=content, headers=sent)


def children(spans: list[Any], parent: Any) -> list[str]:
    """Names, in the order of time."""
    found = [span for span in spans if span.parent_span_id == parent.span_id]
    return [span.name for span in sorted(found, key=lambda span: (span.start_time_unix_nano, span.end_time_unix_nano))]


def one(spans: list[Any], name: str) -> Any:
    (found,) = [span for span in spans if span.name == name]
    return found


def test_a_request_is_a_trace_of_its_stages(server: Running, collector: Collector) -> None:
    answer = post(server, headers={"tracestate": "vendor=1"})
    assert answer.status_code == 200
    assert not {"traceparent", "tracestate", "traceresponse"} & set(answer.headers)
    spans = collector.take("POST /embed")
    request, item = one(spans, "POST /embed"), one(spans, "image")
    assert (request.trace_id.hex(), request.parent_span_id.hex()) == (TRACE, CALLER)
    assert (request.kind, request.trace_state, request.status.code) == (request.SPAN_KIND_SERVER, "vendor=1", 0)
    assert children(spans, request) == ["receive", "image", "respond", "send"]
    assert children(spans, item) == ["decode", "queue", "pack", "forward"]
    for span in spans:
        assert span.start_time_unix_nano <= span.end_time_unix_nano
        if span.name != "run pack":
            assert request.start_time_unix_nano <= span.start_time_unix_nano
            assert span.end_time_unix_nano <= request.end_time_unix_nano


def test_a_span_says_what_the_conventions_ask_for(server: Running, collector: Collector) -> None:
    answer = post(server, headers={"X-Request-ID": "mine", "User-Agent": "a test"})
    spans = collector.take("POST /embed")
    said = attributes(one(spans, "POST /embed"))
    assert said == {
        "http.request.method": "POST",
        "http.route": "/embed",
        "http.response.status_code": 200,
        "url.path": "/embed",
        "url.scheme": "http",
        "server.address": "127.0.0.1",
        "server.port": server.port,
        "network.protocol.version": "1.1",
        "user_agent.original": "a test",
        "gen_ai.operation.name": "embeddings",
        "gen_ai.provider.name": "packlight",
        "gen_ai.request.model": server.facts.name,
        "gen_ai.response.model": server.facts.name,
        "gen_ai.usage.input_tokens": 12,
        "gen_ai.embeddings.dimension.count": server.facts.dim,
        "packlight.request_id": "mine",
        "packlight.dialect": "packlight",
        "packlight.priority": "interactive",
        "packlight.images": 1,
        "packlight.texts": 0,
        "packlight.pack_ids": [answer.headers["packlight-packs"]],
    }
    assert attributes(one(spans, "image")) == {"packlight.tokens": 12, "packlight.grids": ["3x4"]}
    resource = collector.resources[-1]
    assert (resource["service.name"], resource["service.version"]) == ("packlight", "0.1.0")


def test_a_pack_links_to_its_images_and_they_to_it(server: Running, collector: Collector) -> None:
    server.runner.hold()
    with ThreadPoolExecutor() as pool:
        first = pool.submit(post, server, None)
        assert server.runner.entered.wait(PATIENCE_S)
        second = pool.submit(post, server)
        third = pool.submit(post, server, f"00-{'1' * 32}-{CALLER}-01")
        untraced = pool.submit(post, server, UNSAMPLED)
        until(lambda: server.metric("queue_images") == 3)
        server.runner.free.set()
        answers = [sent.result() for sent in (first, second, third, untraced)]
    assert len({answer.headers["packlight-packs"] for answer in answers[1:]}) == 1
    spans = collector.take("POST /embed", 2)
    pack = one(spans, "run pack")
    images = [span for span in spans if span.name == "image"]
    assert {(link.trace_id, link.span_id) for link in pack.links} == {(span.trace_id, span.span_id) for span in images}
    assert {span.trace_id.hex() for span in images} == {TRACE, "1" * 32}
    assert not pack.parent_span_id
    told = attributes(pack)
    assert (told["packlight.images"], told["packlight.tokens"], told["packlight.traced"]) == (3, 36, 2)
    assert told["packlight.pack_id"] == answers[1].headers["packlight-packs"]
    for forward in (span for span in spans if span.name == "forward"):
        assert [(link.trace_id, link.span_id) for link in forward.links] == [(pack.trace_id, pack.span_id)]


def test_every_image_and_text_of_a_request_has_a_span(server: Running, collector: Collector) -> None:
    other = pictures.save(pictures.picture(80, 40), "PNG")
    form = [("image", ("a.png", PNG, "image/png")), ("image", ("b.png", other, "image/png"))]
    answer = server.http.post("/embed", files=form, headers={"traceparent": SAMPLED})
    assert answer.status_code == 200
    spans = collector.take("POST /embed")
    items = [span for span in spans if span.name == "image"]
    assert {attributes(item)["packlight.grids"][0] for item in items} == {
        f"{item['grid'][0]}x{item['grid'][1]}" for item in answer.json()["data"]
    }
    assert all(children(spans, item) == ["decode", "queue", "pack", "forward"] for item in items)


@pytest.mark.parametrize(
    "parent", [None, UNSAMPLED, f"00-{'0' * 32}-{CALLER}-01", "nonsense", f"ff-{TRACE}-{CALLER}-01"]
)
def test_what_is_not_sampled_is_not_traced(server: Running, collector: Collector, parent: str | None) -> None:
    assert post(server, parent).status_code == 200
    post(server, f"00-{'2' * 32}-{CALLER}-01")
    assert {span.trace_id.hex() for span in collector.take("POST /embed") if span.name != "run pack"} == {"2" * 32}


def test_a_request_behind_another_on_a_connection_is_not_in_its_trace(server: Running, collector: Collector) -> None:
    """The protocol starts its task from that of the first."""
    traced, plain = (
        raw_request(PNG, *headers, path="/embed?max_tokens=12", kind="image/png")
        for headers in ([f"traceparent: {SAMPLED}"], ["Connection: close"])
    )
    with server.connect() as connection:
        connection.sendall(traced + plain)
        answers = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answers.count(b"HTTP/1.1 200 OK") == 2
    post(server, f"00-{'2' * 32}-{CALLER}-01")
    spans = collector.take("POST /embed", 2)
    assert [span.trace_id.hex() for span in spans if span.name == "image"] == [TRACE, "2" * 32]


def test_a_refusal_is_no_fault_of_the_server_and_a_fault_is(server: Running, collector: Collector) -> None:
    assert post(server, content=b"no image").status_code == 415
    refused = one(collector.take("POST /embed"), "POST /embed")
    assert refused.status.code == 0
    assert attributes(refused)["packlight.error"] == "unsupported_media"
    server.runner.fault = RuntimeError("broken")
    try:
        assert post(server).status_code == 500
    finally:
        server.runner.fault = None
    spans = collector.take("POST /embed")
    for name in ("POST /embed", "image"):
        failed = one(spans, name)
        assert failed.status.code == failed.status.STATUS_CODE_ERROR
        assert attributes(failed)["error.type"] == "engine_fault"
    assert children(spans, one(spans, "image")) == ["decode"]


def test_what_watches_the_server_is_not_traced(server: Running, collector: Collector) -> None:
    for path in ("/livez", "/metrics", "/info"):
        server.http.get(path, headers={"traceparent": SAMPLED})
    post(server)
    assert {span.name for span in collector.take("POST /embed") if not span.parent_span_id} == {"run pack"}


@pytest.mark.parametrize("parent", [SAMPLED, UNSAMPLED, None])
def test_lines_of_the_log_name_the_trace(server: Running, log: Log, collector: Collector, parent: str | None) -> None:
    log.configure("json")
    post(server, parent)
    until(lambda: log.lines)
    (event,) = log.events
    assert event.get("trace_id") == (TRACE if parent else None)
    if parent == SAMPLED:
        collector.take("POST /embed")


def test_histograms_show_traces_in_openmetrics(server: Running, collector: Collector) -> None:
    post(server)
    collector.take("POST /embed")
    answer = server.http.get("/metrics", headers=OPENMETRICS)
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(answer.text):  # type: ignore[no-untyped-call]
        for sample in family.samples:
            if sample.exemplar and sample.exemplar.labels["trace_id"] == TRACE:
                found.setdefault(family.name, set()).add(sample.labels.get("stage", ""))
    assert found["packlight_request_seconds"] == {""}
    assert found["packlight_stage_seconds"] >= {"receive", "decode", "queue", "respond"}
    plain = server.http.get("/metrics")
    assert plain.headers["content-type"].startswith("text/plain")
    assert TRACE not in plain.text


@pytest.mark.parametrize("flags", ["01", "00"])
def test_a_host_of_the_allowlist_is_told_of_the_trace(
    server: Running, host: Host, collector: Collector, flags: str
) -> None:
    host.heads.clear()
    headers = {"traceparent": f"00-{TRACE}-{CALLER}-{flags}", "tracestate": "vendor=1"}
    answer = server.http.post("/embed", json={"image": host.url("/a.png")}, headers=headers)
    assert answer.status_code == 200, answer.text
    (head,) = host.heads
    assert "\r\ntracestate: vendor=1\r\n" in head
    caller = CALLER
    if flags == "01":
        spans = collector.take("POST /embed")
        caller = one(spans, "POST /embed").span_id.hex()
        assert children(spans, one(spans, "POST /embed")) == ["receive", "fetch", "image", "respond", "send"]
    assert f"\r\ntraceparent: 00-{TRACE}-{caller}-{flags}\r\n" in head


def test_a_request_of_very_many_texts_has_a_bounded_trace(text_server: Running, collector: Collector) -> None:
    texts = ["a"] * 200
    answer = text_server.http.post("/embed", json={"texts": texts})
    assert answer.status_code == 200, answer.text
    spans = collector.take("POST /embed")
    items = [span for span in spans if span.name == "text"]
    request = one(spans, "POST /embed")
    assert len(items) == attributes(request)["packlight.items_without_spans"] == 100
    assert sum(attributes(pack)["packlight.traced"] for pack in spans if pack.name == "run pack") == 100
    assert children(spans, request)[:2] == ["receive", "tokenize"]
    assert children(spans, items[0]) == ["queue", "pack", "forward"]
