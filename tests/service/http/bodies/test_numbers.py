"""In JSON, 64.0 is the integer 64, in every field of every route: so JSON Schema has it, which /openapi.json is in."""

import base64
from typing import Any

import orjson
import pytest

from service.http.bodies.json_object import parse_object
from tests import pictures
from tests.service.running import Running, error_of

IMAGE = base64.b64encode(pictures.save(pictures.picture(48, 64), "PNG")).decode()
URI = f"data:image/png;base64,{IMAGE}"
PHOTOS = {"height": 480, "width": 640, "count": 2, "task": "photo"}


@pytest.mark.parametrize(
    ("path", "body", "numbers"),
    [
        ("/embed", {"image": IMAGE}, {"max_tokens": 4, "dimensions": 3, "timeout_ms": 9000, "priority": 1}),
        ("/embed", {"image": IMAGE, "strategy": "native"}, {"max_pixels": 1024, "min_pixels": 256}),
        ("/v1/embeddings", {"input": URI}, {"max_tokens": 4, "dimensions": 3, "truncate_prompt_tokens": -1}),
        ("/v1/embeddings", {"input": URI}, {"mm_processor_kwargs": {"max_num_patches": 4}}),
        ("/v1/multimodalembeddings", {"inputs": [{"content": [{"type": "image_url", "image_url": URI}]}]},
         {"output_dimension": 3, "max_tokens": 4}),
        ("/plan", {}, {"workload": [PHOTOS], "budget_tokens": 10_000}),
    ],
)  # fmt: skip
def test_a_whole_number_may_be_written_with_a_point(
    server: Running, path: str, body: dict[str, Any], numbers: dict[str, Any]
) -> None:
    as_integers = server.http.post(path, json=body | numbers)
    assert as_integers.status_code == 200
    answer = server.http.post(path, json=body | with_points(numbers))
    assert answer.content == as_integers.content


def with_points(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: with_points(each) for name, each in value.items()}
    if isinstance(value, list):
        return [with_points(each) for each in value]
    return float(value) if isinstance(value, int) else value


def test_numbers_that_are_not_whole_stay_as_they_are() -> None:
    given = {"a": 64.5, "b": [1.0, 0.25, "1.0"], "c": {"d": -2.0, "e": 1e26}, "f": True}
    read = parse_object(orjson.dumps(given))
    assert read == given
    assert [type(value) for value in (*read["b"], *read["c"].values())] == [int, float, str, int, int]


@pytest.mark.parametrize("written", ["1e26", str(2**64), "1" + "0" * 30])
def test_a_number_is_never_too_large_for_a_cap(server: Running, written: str) -> None:
    fields = [f'"{name}": {written}' for name in ("max_tokens", "max_pixels", "max_request_tokens", "priority")]
    body = f'{{"image": "{IMAGE}", {", ".join(fields)}}}'
    answer = server.http.post("/embed", content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.headers["X-Priority"]) == (200, "bulk")
    capped = server.embed_json(image=IMAGE, max_tokens=10**6)
    assert answer.json()["data"] == capped.json()["data"]
    assert answer.json()["data"][0]["capped_by"] == "max_image_tokens"
    content = orjson.dumps({"workload": [PHOTOS | {"max_tokens": 7}], "budget_tokens": 7})
    content = content.replace(b":7", b":" + written.encode())
    assert server.http.post("/plan", content=content).json()["budget"]["fits"]


@pytest.mark.parametrize("written", ["1e26", str(2**63), "1" + "0" * 30])
@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/embed", {"image": IMAGE, "dimensions": 7}, "dimensions"),
        ("/embed", {"image": IMAGE, "timeout_ms": 7}, "timeout_ms"),
        ("/embed", {"image": IMAGE, "strategy": "native", "min_pixels": 7}, "min_pixels"),
        ("/v1/embeddings", {"input": URI, "dimensions": 7}, "dimensions"),
        ("/plan", {"workload": [PHOTOS | {"count": 7}], "budget_tokens": 100}, "workload.0.count"),
    ],
)
def test_a_number_that_is_too_large_is_refused_by_its_limit(
    server: Running, path: str, body: dict[str, Any], param: str, written: str
) -> None:
    content = orjson.dumps(body).replace(b":7", b":" + written.encode())
    answer = server.http.post(path, content=content, headers={"Content-Type": "application/json"})
    assert error_of(answer)[:3] == (422, "invalid", param)
    assert "integer" not in answer.json()["error"]["message"]


def test_a_budget_of_half_a_token_is_refused(server: Running) -> None:
    answer = server.http.post("/embed", json={"image": IMAGE, "max_tokens": 64.5})
    assert error_of(answer)[:3] == (422, "invalid", "max_tokens")
