"""What vLLM's, infinity's and Immich's machines ask to know whether a server is well."""

import pytest

from model.running.runner import Runner
from service.limits import ModelFacts
from tests.service.running import Running, serving


def test_a_server_that_is_well_says_so_to_everybody(server: Running) -> None:
    health = server.http.get("/health")
    assert (health.status_code, health.json()) == (200, {})
    for method in ("GET", "POST"):
        ping = server.http.request(method, "/ping")
        assert (ping.status_code, ping.text) == (200, "pong")
    assert server.http.put("/ping").headers["Allow"] == "GET, HEAD, POST"
    assert server.http.get("/version").json() == {"version": server.http.get("/info").json()["versions"]["packlight"]}


def test_health_means_ready_and_ping_means_alive(loaded: tuple[Runner, ModelFacts]) -> None:
    draining = False
    with serving(loaded, draining=lambda: draining) as server:
        draining = True
        assert [server.http.get(path).status_code for path in ("/health", "/readyz")] == [503, 503]
        assert [server.http.get(path).status_code for path in ("/ping", "/livez")] == [200, 200]


@pytest.mark.parametrize(("path", "status"), [("/health", 200), ("/ping", 200), ("/version", 401), ("/tokenize", 401)])
def test_health_checks_need_no_key(loaded: tuple[Runner, ModelFacts], path: str, status: int) -> None:
    with serving(loaded, api_keys="key") as server:
        method = "POST" if path == "/tokenize" else "GET"
        assert server.http.request(method, path).status_code == status


def test_the_model_is_listed_as_vllms_load_test_and_infinitys_client_read_it(server: Running) -> None:
    (card,) = server.http.get("/v1/models").json()["data"]
    assert (card["id"], card["root"], card["parent"], card["max_model_len"]) == (
        "packlight-tiny",
        "packlight-tiny",
        None,
        None,
    )
    (listed,) = server.http.get("/models").json()["data"]
    assert (listed["id"], listed["stats"], "owned_by" in listed) == ("packlight-tiny", {}, False)
