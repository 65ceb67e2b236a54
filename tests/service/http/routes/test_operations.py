"""What operators see: health, keys, metrics and descriptions, without loading torch."""

import base64
import logging
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from model.running.runner import Runner
from service.limits import ModelFacts
from tests import pictures
from tests.service.running import Running, error_of, serving, until

ROOT = Path(__file__).parents[4]
PNG = pictures.save(pictures.picture(48, 64), "PNG")
KEY = {"Authorization": "Bearer second-key"}


def basic(credentials: str) -> str:
    """What a client makes of the user and the password of a URL."""
    return f"Basic {base64.b64encode(credentials.encode('latin-1')).decode()}"


# Section 8 of the design.
METRICS = {
    "packlight_requests": ("counter", {"route", "status", "dialect"}),
    "packlight_images": ("counter", {"outcome"}),
    "packlight_images_repaired": ("counter", set()),
    "packlight_texts": ("counter", {"outcome"}),
    "packlight_truncated_texts": ("counter", set()),
    "packlight_rejected": ("counter", {"reason"}),
    "packlight_request_seconds": ("histogram", {"route", "dialect"}),
    "packlight_stage_seconds": ("histogram", {"stage"}),
    "packlight_image_tokens": ("histogram", set()),
    "packlight_pack_tokens": ("histogram", set()),
    "packlight_pack_images": ("histogram", set()),
    "packlight_pack_fill_ratio": ("histogram", set()),
    "packlight_padding_waste_ratio": ("histogram", set()),
    "packlight_tokens": ("counter", {"kind"}),
    "packlight_charged_tokens": ("counter", set()),
    "packlight_padding_avoided_tokens": ("counter", {"layout"}),
    "packlight_forward_faults": ("counter", {"kind"}),
    "packlight_max_batch_tokens": ("gauge", set()),
    "packlight_engine_restarts": ("counter", {"reason"}),
    "packlight_http_restarts": ("counter", {"reason"}),
    "packlight_device_busy_seconds": ("counter", set()),
    "packlight_devices": ("gauge", set()),
    "packlight_log_lines_lost": ("counter", set()),
    "packlight_reloads": ("counter", {"outcome"}),
    "packlight_canaries": ("counter", {"outcome"}),
    "packlight_canary_drift_ratio": ("gauge", set()),
    "packlight_spans": ("counter", {"outcome"}),
    "packlight_url_fetches": ("counter", {"outcome"}),
    "packlight_cache_images": ("counter", {"outcome"}),
    "packlight_cache_saved_tokens": ("counter", set()),
    "packlight_cache_bytes": ("gauge", set()),
    "packlight_cache_store": ("counter", {"outcome"}),
    "packlight_queue_tokens": ("gauge", set()),
    "packlight_priority_queue_seconds": ("histogram", {"priority"}),
    "packlight_priority_queue_tokens": ("gauge", {"priority"}),
    "packlight_priority_refused": ("counter", {"priority", "reason"}),
    "packlight_priority_request_seconds": ("histogram", {"priority"}),
    "packlight_priority_tokens": ("counter", {"priority"}),
    "packlight_queue_images": ("gauge", set()),
    "packlight_inflight_bytes": ("gauge", set()),
    "packlight_engine_up": ("gauge", set()),
    "packlight_build_info": ("gauge", {"version", "model", "dtype", "device", "layout"}),
}


def scraped(server: Running) -> dict[str, Any]:
    families = text_string_to_metric_families(server.http.get("/metrics").text)
    return {family.name: family for family in families if not family.name.endswith("_created")}


# Metrics


def test_the_metrics_are_those_of_the_design(server: Running) -> None:
    server.embed(PNG)
    server.embed(b"text")
    server.embed(b"", strategy="best")
    with server.connect() as connection:
        connection.sendall(b"POST /embed HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\n")
        connection.recv(1)
    families = {name: family for name, family in scraped(server).items() if not name.startswith("process_")}
    assert {name: family.type for name, family in families.items()} == {
        name: kind for name, (kind, _) in METRICS.items()
    }
    for name, (_, labels) in METRICS.items():
        assert {label for sample in families[name].samples for label in sample.labels} - {"le"} == labels, name


def test_the_stages_are_those_of_the_design(server: Running) -> None:
    stages = {sample.labels["stage"] for sample in scraped(server)["packlight_stage_seconds"].samples}
    assert stages == {"receive", "fetch", "decode", "tokenize", "queue", "pack", "forward", "respond"}


def test_times_are_counted_from_a_quarter_of_a_millisecond_to_30_seconds(server: Running) -> None:
    bounds = {float(sample.labels.get("le", "inf")) for sample in scraped(server)["packlight_request_seconds"].samples}
    assert min(bounds) == 0.00025
    assert max(bounds - {float("inf")}) == 30.0


def test_the_metrics_say_what_is_served(server: Running) -> None:
    (build,) = scraped(server)["packlight_build_info"].samples
    assert (build.value, build.labels["model"], build.labels["dtype"]) == (1, "packlight-tiny", "float32")


def test_an_unknown_path_makes_no_label_of_its_own(server: Running) -> None:
    for path in ("/a", "/b/c", "/embed/x"):
        server.http.get(path)
    routes = {sample.labels["route"] for sample in scraped(server)["packlight_requests"].samples}
    assert routes <= {
        "/embed", "/v1/embeddings", "/v1/models", "/livez", "/readyz", "/metrics", "/info", "/docs", "/openapi.json",
        "other",
    }  # fmt: skip
    assert "other" in routes


def test_an_unknown_method_makes_no_label_of_its_own(server: Running) -> None:
    before = server.counted("requests_total", route="/embed", status="405")
    assert server.http.request("PROPFIND", "/embed").status_code == 405
    assert server.counted("requests_total", route="/embed", status="405") == before + 1


@pytest.mark.parametrize(
    ("image", "outcome"), [(b"text", "unsupported_media"), (PNG[:200], "invalid"), (PNG, "embedded")]
)
def test_an_image_counts_under_its_outcome(server: Running, image: bytes, outcome: str) -> None:
    before = server.metric("images_total", outcome=outcome)
    server.embed(image)
    assert server.metric("images_total", outcome=outcome) == before + 1


def test_a_refused_request_charges_nothing(server: Running) -> None:
    before = server.counted("charged_tokens_total")
    answer = server.embed_form([PNG, PNG[:200]])
    assert answer.status_code == 422
    assert server.counted("charged_tokens_total") == before


def test_a_partial_answer_charges_its_good_images(server: Running) -> None:
    before = server.counted("charged_tokens_total")
    answer = server.embed_form([PNG, PNG[:200]], partial=True)
    assert answer.json()["usage"] == {"images": 1, "tokens": answer.json()["data"][0]["tokens"]}
    assert server.counted("charged_tokens_total") == before + answer.json()["usage"]["tokens"]


def test_the_good_image_beside_a_bad_one_counts_as_abandoned(server: Running) -> None:
    before = {name: server.metric("images_total", outcome=name) for name in ("unsupported_media", "abandoned")}
    assert server.embed_form([PNG, b"text"]).status_code == 415
    for name, count in before.items():
        assert server.metric("images_total", outcome=name) == count + 1


class Watch(Collector):
    """Notes which threads write metrics."""

    def __init__(self) -> None:
        self.threads: set[str] = set()

    def collect(self) -> Iterator[Metric]:
        self.threads.add(threading.current_thread().name)
        yield from ()


def test_metrics_are_written_off_the_event_loop(server: Running) -> None:
    server.metrics.registry.register(watch := Watch())
    watch.threads.clear()
    try:
        assert server.http.get("/metrics").status_code == 200
    finally:
        server.metrics.registry.unregister(watch)
    assert watch.threads
    assert "server" not in watch.threads, "the loop's thread"


# Keys


@pytest.fixture(scope="module")
def locked(loaded: tuple[Runner, ModelFacts]) -> Iterator[Running]:
    with serving(loaded, api_keys=("first-key", "second-key")) as running:
        yield running


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
def test_health_asks_for_no_key(locked: Running, path: str) -> None:
    assert locked.http.get(path).status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/embed"), ("POST", "/v1/embeddings"), ("GET", "/v1/models"), ("GET", "/metrics"), ("GET", "/info"),
        ("GET", "/stats"), ("GET", "/redoc"), ("GET", "/nowhere"), ("GET", "/livez/"),
        ("GET", "//livez"),
    ],
)  # fmt: skip
def test_every_other_route_asks_for_a_key(locked: Running, method: str, path: str) -> None:
    answer = locked.http.request(method, httpx.URL(f"http://127.0.0.1:{locked.port}").copy_with(raw_path=path.encode()))
    assert error_of(answer) == (401, "unauthorized", None, None)
    assert answer.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (KEY, 200),
        ({"Authorization": "bearer first-key"}, 200),
        ({"X-API-Key": "first-key"}, 200),
        ({"Authorization": "Bearer first-key2"}, 401),
        ({"Authorization": basic("anyone:first-key")}, 200),
        ({"Authorization": basic(":first-key")}, 200),
        ({"Authorization": basic("first-key:")}, 401),
        ({"Authorization": basic("\xff")}, 401),
        ({"Authorization": "Basic first-key"}, 401),
        ({"X-API-Key": "first-key,second-key"}, 401),
        ({}, 401),
    ],
)
def test_any_of_the_keys_is_accepted(locked: Running, headers: dict[str, str], status: int) -> None:
    assert locked.http.get("/info", headers=headers).status_code == status


def test_an_embedding_with_a_key_is_answered(locked: Running) -> None:
    answer = locked.http.post("/embed", content=PNG, headers=KEY | {"Content-Type": "image/png"})
    assert answer.status_code == 200


def test_a_refusal_for_a_missing_key_is_counted(locked: Running) -> None:
    before = locked.metric("rejected_total", reason="unauthorized")
    assert locked.embed(PNG).status_code == 401
    assert locked.metric("rejected_total", reason="unauthorized") == before + 1


# Descriptions


def test_info_describes_the_model_and_its_limits(server: Running) -> None:
    info = server.http.get("/info").json()
    assert info["model"]["name"] == "packlight-tiny"
    assert (info["model"]["dim"], info["model"]["patch_size"], info["model"]["device"]) == (256, 16, "cpu")
    assert info["model"]["layout"] == "packed"
    assert info["model"]["card"] == "model/checkpoint/tiny/MODEL_CARD.md"
    assert info["limits"]["max_image_tokens"] == 1024
    assert info["strategies"] == ["naflex", "native", "square", "anyres"]
    assert "JPEG" in info["formats"]
    assert set(info["versions"]) == {"packlight", "torch", "python"}
    assert "do not belong in one index" in info["fingerprint"]["meaning"]


def test_the_fingerprint_is_the_same_everywhere(server: Running, loaded: tuple[Runner, ModelFacts]) -> None:
    value = loaded[0].fingerprint()
    assert re.fullmatch("[0-9a-f]{16}-float32", value)
    answer = server.embed(PNG)
    assert answer.json()["fingerprint"] == answer.headers["X-Fingerprint"] == value
    about = server.http.get("/info").json()["fingerprint"]
    assert (about["value"], f"{about['identity']}-{about['variant']}") == (value, value)
    assert loaded[0].old_fingerprints()[about["old_form"]] == value
    assert about["least_cosine"]["float32"] == 1
    assert 0.99 < about["least_cosine"]["bfloat16"] < 1
    assert "old_fingerprints" not in server.http.get("/info").text


def test_the_documentation_is_there(server: Running) -> None:
    assert "swagger" in server.http.get("/docs").text


def test_the_three_forms_of_a_body_are_described(server: Running) -> None:
    route = server.http.get("/openapi.json").json()["paths"]["/embed"]["post"]
    assert set(route["requestBody"]["content"]) == {"multipart/form-data", "image/*", "application/json"}
    named = {parameter["name"] for parameter in route["parameters"] if parameter["in"] == "query"}
    assert [each["name"] for each in route["parameters"] if each["in"] == "header"] == [
        "X-Expect-Fingerprint",
        "X-Priority",
    ]
    form = route["requestBody"]["content"]["multipart/form-data"]["schema"]["properties"]
    assert named == set(form) - {"image"}
    assert {"max_pixels", "max_tokens", "max_request_tokens", "output", "partial", "timeout_ms"} <= named
    headers = {
        "Packlight-Packs",
        "Packlight-Warning",
        "X-Priority",
        "Server-Timing",
        "X-Cached-Tokens",
        "X-Fingerprint",
        "X-Image-Cached",
        "X-Image-Repaired",
        "X-Image-Tokens",
        "X-Request-ID",
        "X-Text-Fingerprint",
    }
    assert set(route["responses"]["200"]["headers"]) == headers


@pytest.mark.parametrize("path", ["/embed", "/v1/embeddings"])
def test_every_error_is_described(server: Running, path: str) -> None:
    responses = server.http.get("/openapi.json").json()["paths"][path]["post"]["responses"]
    assert {"400", "401", "408", "409", "413", "415", "422", "429", "500", "503", "504"} <= set(responses)
    for status, response in responses.items():
        assert len(response["description"].partition(": ")[2]) > 10 or status == "200", response["description"]


def test_every_reference_of_the_openapi_page_resolves(server: Running) -> None:
    description = server.http.get("/openapi.json").json()
    for reference in re.findall(r'"\$ref":\s*"#/([^"]+)"', server.http.get("/openapi.json").text):
        found = description
        for name in (part.replace("~1", "/").replace("~0", "~") for part in reference.split("/")):
            assert name in found, reference
            found = found[name]


# HEAD


@pytest.mark.parametrize(
    "path",
    ["/livez", "/readyz", "/info", "/v1/models", "/v1/models/packlight-tiny", "/docs", "/openapi.json", "/nowhere"],
)
def test_head_gets_the_headers_of_get_and_no_body(server: Running, path: str) -> None:
    given = {"X-Request-ID": "the same"}
    expected, answer = server.http.get(path, headers=given), server.http.head(path, headers=given)
    assert answer.status_code == expected.status_code
    assert dict(answer.headers) | {"date": ""} == dict(expected.headers) | {"date": ""}
    assert int(answer.headers["Content-Length"]) == len(expected.content) > 0


def test_head_of_the_metrics_has_their_type_and_a_length(server: Running) -> None:
    answer = server.http.head("/metrics")
    assert answer.headers["Content-Type"] == server.http.get("/metrics").headers["Content-Type"]
    assert int(answer.headers["Content-Length"]) > 1000


def test_no_byte_follows_the_headers_of_a_head(server: Running) -> None:
    with server.connect() as connection:
        for request in (b"HEAD /info HTTP/1.1\r\nHost: a\r\n\r\n", b"HEAD /info HTTP/1.0\r\n\r\n"):
            connection.sendall(request)
        received = b"".join(iter(lambda: connection.recv(65536), b""))
    assert received.count(b"HTTP/1.1 200 OK") == 2
    assert received.endswith(b"\r\n\r\n")
    assert b"{" not in received


def test_head_counts_and_is_logged_as_what_it_is(server: Running, caplog: pytest.LogCaptureFixture) -> None:
    before = server.counted("requests_total", route="/v1/models", status="200")
    with caplog.at_level(logging.INFO, "packlight.request"):
        server.http.head("/v1/models/packlight-tiny")
        # The server logs a request after its answer.
        until(server.is_quiet)
    (line,) = [record.__dict__["fields"] for record in caplog.records if record.name == "packlight.request"]
    assert (line["method"], line["route"], line["status"]) == ("HEAD", "/v1/models", 200)
    assert server.counted("requests_total", route="/v1/models", status="200") == before + 1


@pytest.mark.parametrize("path", ["/info", "/v1/models/packlight-tiny", "/embed", "/nowhere"])
def test_head_asks_for_a_key_before_it_says_anything(locked: Running, path: str) -> None:
    answer = locked.http.head(path)
    assert (answer.status_code, answer.content, answer.headers["WWW-Authenticate"]) == (401, b"", "Bearer")
    assert "Allow" not in answer.headers
    expected = {"/embed": (405, "POST"), "/nowhere": (404, None)}.get(path, (200, None))
    with_key = locked.http.head(path, headers=KEY)
    assert (with_key.status_code, with_key.headers.get("Allow")) == expected


def test_head_of_health_asks_for_no_key(locked: Running) -> None:
    assert locked.http.head("/readyz").status_code == 200


def test_a_draining_server_is_not_ready_and_refuses_new_requests(loaded: tuple[Runner, ModelFacts]) -> None:
    with serving(loaded, draining=lambda: True) as server:
        assert server.http.get("/readyz").status_code == 503
        assert server.http.get("/livez").status_code == 200
        refused = server.embed(PNG)
        assert error_of(refused) == (503, "unavailable", None, None)
        assert "draining" in refused.json()["error"]["message"]


# Open metrics, and pages of other origins


@pytest.fixture(scope="module")
def shared(loaded: tuple[Runner, ModelFacts], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server with keys from a file, open metrics and one origin."""
    path = tmp_path_factory.mktemp("keys") / "keys"
    path.write_text("# ours\nsecond-key\n")
    with serving(loaded, api_keys_file=path, metrics_open=True, cors_origins=("https://shop.example",)) as running:
        yield running


ORIGIN = {"Origin": "https://shop.example"}


def test_metrics_open_opens_metrics_only(shared: Running) -> None:
    assert shared.http.get("/metrics").status_code == 200
    assert shared.http.get("/info").status_code == 401
    assert shared.http.get("/metrics/").status_code == 401


def test_a_key_of_the_file_is_accepted(shared: Running) -> None:
    assert shared.http.get("/info", headers=KEY).status_code == 200
    assert shared.http.get("/info", headers={"X-API-Key": "# ours"}).status_code == 401


def test_no_answer_shows_a_key(shared: Running) -> None:
    for path in ("/info", "/metrics", "/openapi.json", "/v1/models", "/docs"):
        assert "second-key" not in shared.http.get(path, headers=KEY).text


def test_a_page_may_read_the_answer_to_a_defect(shared: Running, png: bytes) -> None:
    shared.decoder.fault = RuntimeError("a defect")
    try:
        answer = shared.http.post("/embed", content=png, headers=KEY | ORIGIN | {"Content-Type": "image/png"})
    finally:
        shared.decoder.fault = None
    assert error_of(answer)[:2] == (500, "internal")
    assert answer.headers["Access-Control-Allow-Origin"] == "https://shop.example"


def test_a_browsers_preflight_needs_no_key(shared: Running) -> None:
    asked = ORIGIN | {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,x-stainless-os",
    }
    answer = shared.http.options("/embed", headers=asked)
    assert answer.status_code == 200
    assert answer.headers["Access-Control-Allow-Origin"] == "https://shop.example"
    assert {"authorization", "x-stainless-os"} <= set(answer.headers["Access-Control-Allow-Headers"].split(","))
    other = shared.http.options("/embed", headers=asked | {"Origin": "https://elsewhere.example"})
    assert other.status_code == 400
    assert "Access-Control-Allow-Origin" not in other.headers


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_a_page_may_use_every_method_that_is_answered(shared: Running, method: str) -> None:
    asked = ORIGIN | {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": "authorization"}
    assert shared.http.options("/info", headers=asked).status_code == 200


@pytest.mark.parametrize(("headers", "status"), [({}, 401), (KEY, 200), (KEY | {"Content-Type": "text/plain"}, 415)])
def test_a_page_may_read_answers_and_refusals(shared: Running, headers: dict[str, str], status: int) -> None:
    answer = shared.http.post("/embed", content=PNG, headers=ORIGIN | {"Content-Type": "image/png"} | headers)
    assert answer.status_code == status
    assert answer.headers["Access-Control-Allow-Origin"] == "https://shop.example"
    exposed = set(answer.headers["Access-Control-Expose-Headers"].split(", "))
    assert exposed == {
        "Retry-After",
        "X-Request-ID",
        "Server-Timing",
        "Packlight-Packs",
        "X-Cached-Tokens",
        "X-Image-Tokens",
        "X-Image-Repaired",
        "X-Image-Cached",
        "X-Fingerprint",
        "X-Text-Fingerprint",
        "Packlight-Warning",
        "X-Priority",
        "metadata",
    }


def test_other_origins_may_read_nothing_and_by_default_no_origin_may(shared: Running, server: Running) -> None:
    other = shared.http.get("/livez", headers={"Origin": "https://elsewhere.example"})
    assert "Access-Control-Allow-Origin" not in other.headers
    assert not [name for name in server.http.get("/livez", headers=ORIGIN).headers if name.startswith("access-control")]
