"""How many tokens a request's head promises, before its body has come."""

import pytest
from starlette.datastructures import Headers

from model.sizing.geometry import FixedInput, Geometry
from model.sizing.plan import plan_image
from service.http.forecast import Forecast
from service.limits import Limits
from service.requests.parameters import read_parameters

LIMITS = Limits(default_max_tokens=256, max_image_tokens=1024, max_batch_tokens=4096, max_queue_tokens=8192)
NAFLEX = Geometry.for_naflex(16, 256)
FIXED = Geometry.for_fixed(16, FixedInput(side=224, resize="squash", resize_side=224, resample="bicubic"))


def forecast(query: str, *, geometry: Geometry = NAFLEX, content_type: str = "image/jpeg") -> int | None:
    scope = {"type": "http", "query_string": query.encode()}
    return Forecast(geometry, LIMITS).tokens(scope, Headers({"content-type": content_type}))


@pytest.mark.parametrize(
    ("query", "tokens"),
    [
        ("", 256),
        ("max_tokens=64", 64),
        ("max_tokens=64&output=tokens&timeout_ms=5", 64),
        ("max_pixels=25600", 100),
        ("max_tokens=5000", 1024),
        ("max_request_tokens=40", 40),
        ("strategy=square&max_tokens=100", 100),
    ],
)
def test_a_raw_image_is_expected_to_fill_its_cap(query: str, tokens: int) -> None:
    assert forecast(query) == tokens


def test_an_image_of_a_fixed_model_takes_its_grid() -> None:
    assert forecast("", geometry=FIXED) == 14 * 14


@pytest.mark.parametrize(
    "query", ["strategy=native", "strategy=anyres", "max_tokens=x", "what=1", "max_tokens=0", "%ff"]
)
def test_nothing_is_forecast_if_the_size_decides_or_the_query_is_wrong(query: str) -> None:
    assert forecast(query) is None


@pytest.mark.parametrize("content_type", ["multipart/form-data; boundary=x", "application/json", ""])
def test_nothing_is_forecast_for_bodies_that_may_have_parameters(content_type: str) -> None:
    assert forecast("max_tokens=64", content_type=content_type) is None


@pytest.mark.parametrize("size", [(480, 640), (1, 1), (3000, 17), (2853, 1000)])
@pytest.mark.parametrize("query", ["", "max_tokens=64", "strategy=square&max_tokens=300"])
def test_no_image_takes_more_than_its_forecast(size: tuple[int, int], query: str) -> None:
    expected = forecast(query)
    parameters = read_parameters(dict(part.split("=") for part in query.split("&") if part))
    strategy = parameters.strategy or "naflex"
    budget = LIMITS.budget(NAFLEX, strategy, max_tokens=parameters.max_tokens)
    assert expected is not None
    assert plan_image(size, geometry=NAFLEX, budget=budget, strategy=strategy).tokens <= expected
