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
    given = {"a": 64.5, "b": [1.0, 0.25, "1.0"], "c": {"d": -2.0, "e": 2.0**53 * 2}, "f": True}
    read = parse_object(orjson.dumps(given))
    assert read == given
    assert [type(value) for value in (*read["b"], *read["c"].values())] == [int, float, str, int, float]


def test_a_budget_of_half_a_token_is_refused(server: Running) -> None:
    answer = server.http.post("/embed", json={"image": IMAGE, "max_tokens": 64.5})
    assert error_of(answer)[:3] == (422, "invalid", "max_tokens")
