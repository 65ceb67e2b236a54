"""`POST /plan` on a real server: `/embed` charges what it plans."""

from collections.abc import Iterator
from functools import cache
from typing import Any

import httpx
import pytest

from model.running.runner import Runner
from service.limits import ModelFacts
from tests import pictures
from tests.service.running import Running, error_of, serving

SIZES = [(48, 64), (300, 200), (33, 700), (512, 512), (5, 5), (900, 64)]


@cache
def png(height: int, width: int) -> bytes:
    return pictures.save(pictures.picture(height, width), "PNG")


def group(height: int, width: int, **changes: Any) -> dict[str, Any]:
    return {"height": height, "width": width, "count": 1, "task": "photo"} | changes


def plan(server: Running, *groups: dict[str, Any], **content: Any) -> httpx.Response:
    budget = {} if "budget_tokens" in content or "budget_ms" in content else {"budget_tokens": 10**9}
    return server.http.post("/plan", json={"workload": groups} | budget | content)


def test_embed_takes_the_planned_parameters_and_charges_the_planned_tokens(server: Running) -> None:
    for strategy in server.http.get("/info").json()["strategies"]:
        for (height, width), budget in zip(SIZES, (10**9, 200, 100, 300, 10**9, 50), strict=True):
            answer = plan(server, group(height, width), strategy=strategy, budget_tokens=budget).json()
            take = answer["groups"][0]["take"]
            if take is None:
                # The smallest layout, two tiles and a thumbnail of 256 tokens each, is over a photo's cap.
                assert strategy == "anyres"
                continue
            embedded = server.embed(png(height, width), **take["parameters"])
            assert embedded.status_code == 200, embedded.text
            (entry,) = embedded.json()["data"]
            assert (entry["tokens"], entry["strategy"]) == (take["tokens"], strategy)
            assert entry["token_cap"] == take["token_cap"]
            assert answer["totals"]["tokens"] == take["tokens"]


def test_a_field_in_the_query_is_refused_rather_than_ignored(server: Running) -> None:
    body = {"workload": [group(48, 64)], "budget_tokens": 100}
    assert error_of(server.http.post("/plan?budget_tokens=9", json=body)) == (422, "invalid", "budget_tokens", None)
    assert server.http.post("/plan?trace=1", json=body).status_code == 200


def test_a_groups_own_cap_gives_every_strategy_the_grid_that_embed_gives_it(server: Running) -> None:
    for (height, width), cap in zip(SIZES, (64, 100, 333, 1024, 77, 5000), strict=True):
        answer = plan(server, group(height, width, max_tokens=cap)).json()
        for option in (option for option in answer["groups"][0]["options"] if option["loaded"]):
            embedded = server.embed(png(height, width), max_tokens=cap, strategy=option["strategy"])
            if option["tokens"] is None:
                assert embedded.status_code == 422
                continue
            (entry,) = embedded.json()["data"]
            for name in ("tokens", "grid", "resized"):
                assert entry[name] == option[name], (height, width, cap, option)


def test_every_strategy_of_the_model_is_compared_with_those_of_other_models(server: Running) -> None:
    answer = plan(server, group(1792, 896, task="document")).json()
    options = answer["groups"][0]["options"]
    own = [option["strategy"] for option in options if option["loaded"]]
    assert own == list(server.facts.geometry.strategies)
    others = {(option["geometry"], option["strategy"]): option["tokens"] for option in options if not option["loaded"]}
    assert others["fixed336/14", "square"] == 576
    assert others["fixed336/14", "anyres"] == 1728
    assert others["qwen14x2", "native"] == 8192
    assert answer["model"] == server.facts.name


def test_milliseconds_are_known_once_packs_have_run(loaded: tuple[Runner, ModelFacts]) -> None:
    with serving(loaded) as fresh:
        assert error_of(plan(fresh, group(48, 64), budget_ms=5)) == (503, "unavailable", None, None)
        assert plan(fresh, group(48, 64)).json()["cost"] is None
        for size in (8, 64, 16, 100, 32, 128, 80, 200, 24, 256):
            assert fresh.embed(png(48, 64), max_tokens=size).status_code == 200
        answer = plan(fresh, group(48, 64, count=10), budget_ms=10**6).json()
        assert answer["cost"]["packs"] == 10
        assert answer["cost"]["error"] >= 0
        assert answer["totals"]["ms"] > 0
        assert answer["groups"][0]["take"]["ms"] > 0


BAD: list[tuple[dict[str, Any], str]] = [
    ({"workload": [group(1, 1)] * 3 + [group(0, 1)], "budget_tokens": 5}, "workload.3.height"),
    ({"workload": [group(1, 1, task="painting")], "budget_tokens": 5}, "workload.0.task"),
    ({"workload": [], "budget_tokens": 5}, "workload"),
    ({"workload": [group(1, 1)] * 257, "budget_tokens": 5}, "workload"),
    ({"workload": [group(1, 1)], "budget_tokens": 5, "budget_ms": 5}, "budget_tokens"),
    ({"workload": [group(1, 1)]}, "budget_tokens"),
    ({"workload": [group(1, 1)], "budget_tokens": 5, "strategy": "best"}, "strategy"),
]


@pytest.mark.parametrize(("content", "param"), BAD)
def test_a_wrong_field_is_a_422_that_names_it(server: Running, content: dict[str, Any], param: str) -> None:
    assert error_of(server.http.post("/plan", json=content)) == (422, "invalid", param, None)


def test_a_body_that_is_no_json_or_too_long_is_refused(server: Running) -> None:
    assert error_of(server.http.post("/plan", content=b"{"))[:2] == (400, "bad_request")
    assert error_of(server.http.post("/plan", content=b"[]"))[:2] == (400, "bad_request")
    assert error_of(server.http.post("/plan", content=b""))[:2] == (400, "bad_request")
    long = server.http.post("/plan", content=b" " * 300_000)
    assert error_of(long)[:2] == (413, "too_large")
    assert "262144 bytes" in long.json()["error"]["message"]

    def pieces() -> Iterator[bytes]:
        yield from [b" " * 1000] * 300

    assert error_of(server.http.post("/plan", content=pieces()))[:2] == (413, "too_large")


def test_plans_need_a_key_if_the_server_has_keys(loaded: tuple[Runner, ModelFacts]) -> None:
    with serving(loaded, api_keys="a-key") as guarded:
        assert plan(guarded, group(48, 64)).status_code == 401
        headers = {"X-API-Key": "a-key"}
        content = {"workload": [group(48, 64)], "budget_tokens": 500}
        assert guarded.http.post("/plan", json=content, headers=headers).status_code == 200


def test_plans_are_counted_under_their_path_and_described(server: Running) -> None:
    before = server.counted("requests_total", route="/plan", status="200")
    assert plan(server, group(48, 64)).status_code == 200
    assert server.counted("requests_total", route="/plan", status="200") == before + 1
    described = server.http.get("/openapi.json").json()["paths"]["/plan"]["post"]
    body = described["requestBody"]["content"]["application/json"]["schema"]
    assert set(body["properties"]) == {"workload", "budget_tokens", "budget_ms", "strategy"}
    assert "WorkloadPlan" in described["responses"]["200"]["content"]["application/json"]["schema"]["$ref"]
