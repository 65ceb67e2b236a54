"""In JSON, null means left out: in every optional field of every route."""

import base64
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.http.bodies.json_object import parse_object
from service.requests.parameters import EmbedParameters
from tests import pictures
from tests.service.running import Running, error_of

IMAGE = base64.b64encode(pictures.save(pictures.picture(48, 64), "PNG")).decode()
PHOTOS = {"height": 480, "width": 640, "task": "photo"}
PLAN = {"workload": [PHOTOS], "budget_tokens": 10_000}

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=20,
)


def without_nulls(value: Any) -> Any:
    if isinstance(value, list):
        return [without_nulls(each) for each in value]
    if isinstance(value, dict):
        return {name: without_nulls(each) for name, each in value.items() if each is not None}
    return value


@given(st.dictionaries(st.text(max_size=3), VALUES, max_size=4))
def test_no_field_of_an_object_is_null_and_all_else_is_as_sent(content: dict[str, Any]) -> None:
    assert parse_object(orjson.dumps(content)) == without_nulls(content)


@pytest.mark.parametrize("name", [*EmbedParameters.model_fields, "not_a_parameter"])
def test_a_null_parameter_of_embed_is_left_out(server: Running, name: str) -> None:
    answer = server.http.post("/embed", json={"images": [IMAGE], name: None})
    assert answer.content == server.http.post("/embed", json={"images": [IMAGE]}).content


def test_a_null_parameter_may_be_given_in_the_query(server: Running) -> None:
    answer = server.http.post("/embed?max_tokens=4", json={"images": [IMAGE], "max_tokens": None})
    assert answer.json()["data"][0]["tokens"] <= 4


@pytest.mark.parametrize("images", [None, [None]])
def test_an_image_may_not_be_null(server: Running, images: Any) -> None:
    assert error_of(server.http.post("/embed", json={"images": images}))[:3] == (422, "invalid", "images")


@pytest.mark.parametrize("name", ["budget_ms", "strategy", "not_a_field"])
def test_a_null_field_of_a_plan_is_left_out(server: Running, name: str) -> None:
    assert server.http.post("/plan", json=PLAN | {name: None}).content == server.http.post("/plan", json=PLAN).content


def test_a_null_count_of_a_group_is_one(server: Running) -> None:
    expected = server.http.post("/plan", json=PLAN | {"workload": [PHOTOS | {"count": 1}]})
    assert expected.status_code == 200
    assert server.http.post("/plan", json=PLAN | {"workload": [PHOTOS | {"count": None}]}).content == expected.content


def test_a_null_in_place_of_a_required_field_is_refused_by_its_name(server: Running) -> None:
    answer = server.http.post("/plan", json=PLAN | {"workload": [PHOTOS | {"height": None}]})
    assert error_of(answer)[:3] == (422, "invalid", "workload.0.height")


@pytest.mark.parametrize("value", [b"[" * 1000 + b"null" + b"]" * 1000, b'{"a":' * 1000 + b"null" + b"}" * 1000])
def test_json_may_nest_deeper_than_python_calls(server: Running, value: bytes) -> None:
    body = b'{"images": [], "max_tokens": %b}' % value
    answer = server.http.post("/embed", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422


def test_the_page_lets_every_optional_field_be_null(server: Running) -> None:
    required_where_alone = {"images", "image", "texts", "inputs"}
    found = 0
    for path, routes in server.http.get("/openapi.json").json()["paths"].items():
        body = routes.get("post", {}).get("requestBody", {"content": {}})["content"].get("application/json")
        for place, schema in objects_in(body["schema"] if body else None, path):
            needed = {*schema.get("required", ())} | (
                required_where_alone if path in ("/embed", "/classify") else set()
            )
            for name in {*schema["properties"]} - needed:
                assert {"type": "null"} in schema["properties"][name].get("anyOf", ()), f"{place}.{name}"
                found += 1
    assert found > 100


def objects_in(schema: Any, place: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The schema of every object, at any depth, and where it is."""
    if isinstance(schema, list):
        for each in schema:
            yield from objects_in(each, place)
    if not isinstance(schema, dict):
        return
    if "properties" in schema:
        yield place, schema
    for name, value in schema.get("properties", {}).items():
        yield from objects_in(value, f"{place}.{name}")
    for name in ("items", "anyOf", "oneOf"):
        yield from objects_in(schema.get(name), place)
