"""Every operation of the OpenAPI page is asked for what the page allows and for what it does not, and keeps to it.

`FUZZ_CASES` in the environment is the number of cases in all.
"""

import base64
import os
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from hypothesis import HealthCheck, Phase, given, seed, settings

from tests import pictures
from tests.service.running import PATIENCE_S, Running, serving, until
from tests.text_models import load_whole

CASES = int(os.environ.get("FUZZ_CASES", "400"))
# Schemathesis' names for requests that the page allows, and for others.
POSITIVE, NEGATIVE = "positive", "negative"
# Operation, what is generated, and its share of the cases. What takes no parameters cannot be asked wrongly.
PLAN = [
    ("POST", "/embed", POSITIVE, 0.4),
    ("POST", "/embed", NEGATIVE, 0.2),
    ("POST", "/v1/embeddings", POSITIVE, 0.2),
    ("POST", "/v1/embeddings", NEGATIVE, 0.15),
    *(
        ("POST", path, mode, 0.05)
        for path in (
            "/v2/embed",
            "/v1/embed",
            "/v1/multimodalembeddings",
            "/pooling",
            "/v1/score",
            "/v2/rerank",
            "/vectorize",
            "/predict",
        )
        for mode in (POSITIVE, NEGATIVE)
    ),
    # Other names of the same.
    *(("POST", path, POSITIVE, 0.01) for path in ("/embeddings", "/score", "/rerank", "/v1/rerank")),
    *(("POST", path, mode, 0.03) for path in ("/tokenize", "/detokenize") for mode in (POSITIVE, NEGATIVE)),
    ("POST", "/ping", POSITIVE, 0.01),
    ("POST", "/classify", POSITIVE, 0.1),
    ("POST", "/classify", NEGATIVE, 0.05),
    ("POST", "/plan", POSITIVE, 0.1),
    ("POST", "/plan", NEGATIVE, 0.05),
    *(
        ("GET", path, POSITIVE, 0.01)
        for path in (
            "/v1/models",
            "/models",
            "/v1/models/{name}",
            "/livez",
            "/readyz",
            "/health",
            "/ping",
            "/version",
            "/.well-known/live",
            "/.well-known/ready",
            "/meta",
            "/metrics",
            "/info",
        )
    ),
]
# Its answer ends with the server; `test_stats.py` holds it to its page.
ENDLESS = {("GET", "/stats")}
ACCEPTS = ("application/json", "application/x-npy", "application/x-safetensors")
NAME = "random-siglip2"
PNG = pictures.save(pictures.picture(20, 30), "PNG")
URI = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
# The fields of dialects that hold what is embedded.
INPUTS: dict[str, dict[str, Any]] = {
    "/v2/embed": {"texts": None, "images": None, "inputs": [{"content": [{"type": "image_url", "image_url": URI}]}]},
    "/v1/embed": {"texts": None, "images": [URI], "inputs": None},
    "/v1/multimodalembeddings": {"inputs": [{"content": [{"type": "image_base64", "image_base64": URI}]}]},
    **dict.fromkeys(("/v1/embeddings", "/embeddings", "/pooling"), {"input": [URI]}),
    **dict.fromkeys(("/score", "/v1/score"), {"text_1": "a cat", "text_2": [{"image": URI}, URI]}),
    **dict.fromkeys(("/rerank", "/v1/rerank", "/v2/rerank"), {"query": "a cat", "documents": [{"image": URI}, "a"]}),
    "/tokenize": {"prompt": "a cat"},
    "/detokenize": {"tokens": [1, 2]},
    "/vectorize": {"texts": None, "images": [URI]},
    "/predict": {"entries": '{"clip": {"visual": {"modelName": "any"}}}', "image": PNG},
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Serves a model that takes texts."""
    with serving(load_whole(tmp_path_factory.mktemp("siglip2"), "siglip2")) as made:
        yield made


@pytest.fixture(scope="module")
def page(server: Running) -> Any:
    """The OpenAPI page, as Schemathesis reads it."""
    import schemathesis  # only here: it takes a second to load

    return schemathesis.openapi.from_dict(server.http.get("/openapi.json").json())


@pytest.fixture
def session(server: Running) -> Iterator[requests.Session]:
    with requests.Session() as made:
        made.trust_env = False
        yield made


def test_every_operation_of_the_page_is_in_the_plan(server: Running) -> None:
    paths = server.http.get("/openapi.json").json()["paths"]
    operations = {(method.upper(), path) for path, methods in paths.items() for method in methods}
    assert operations == {(method, path) for method, path, *_ in PLAN} | ENDLESS


@pytest.mark.timeout(300 + CASES)
@pytest.mark.parametrize(("method", "path", "mode", "share"), PLAN)
@pytest.mark.slow
def test_an_operation_keeps_to_its_page(
    server: Running, page: Any, session: requests.Session, method: str, path: str, mode: str, share: float
) -> None:
    from schemathesis import GenerationMode

    url = f"http://127.0.0.1:{server.port}"
    operation = page[path][method]
    statuses: Counter[int] = Counter()

    @seed(1)
    @settings(
        max_examples=max(1, round(CASES * share)),
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=GenerationMode(mode)))
    def keeps(case: Any) -> None:
        # Every other request has pictures where it has anything at all, or nearly all would end at the first.
        number = sum(statuses.values())
        if number % 2 == 0:
            put_pictures(case)
            put_name_and_plan(case)
        if number % 4 == 0 and isinstance(case.body, dict):
            put_inputs(case)
        accept = {"Accept": ACCEPTS[number % 3]}
        answer = case.call_and_validate(
            base_url=url, session=session, headers=accept, checks=promises(), timeout=PATIENCE_S
        )
        # A deadline of a few milliseconds may be asked for, and is missed; so may milliseconds before packs have run.
        assert answer.status_code < 500 or answer.status_code == (503 if path == "/plan" else 504)
        statuses[answer.status_code] += 1

    keeps()
    # The model that is served takes no labels.
    if mode == POSITIVE and path != "/classify":
        assert statuses[200] + statuses[204] > 0, statuses
    until(server.is_empty)


def promises() -> list[Any]:
    """What the page promises of every answer."""
    from schemathesis.specs.openapi import checks

    return [
        checks.status_code_conformance,
        checks.content_type_conformance,
        checks.response_headers_conformance,
        checks.response_schema_conformance,
    ]


def put_inputs(case: Any) -> None:
    """Nothing but a picture: widths and budgets that are made up are rarely possible."""
    if inputs := INPUTS.get(case.operation.path):
        nameless = case.operation.path in ("/vectorize", "/predict")
        case.body = inputs if nameless else {"model": NAME} | inputs


def put_name_and_plan(case: Any) -> None:
    """Asks for the model that is served, and for a plan with one budget. The page takes 1.0 for an integer."""
    if case.operation.path == "/v1/models/{name}":
        case.path_parameters["name"] = NAME
    if case.operation.path == "/plan" and isinstance(case.body, dict) and case.body.get("workload"):
        workload = [{"height": 480, "width": 640, "task": "photo", "count": None}]
        case.body |= {"workload": workload, "budget_tokens": 10**6, "budget_ms": None}


def put_pictures(case: Any) -> None:
    """Puts a picture in the place of whatever was made up for one."""
    if case.media_type == "image/*":
        case.body = PNG
    elif isinstance(case.body, dict):
        if isinstance(case.body.get("images"), list):
            case.body["images"] = [URI]
        if case.media_type == "application/json" and "image" in case.body:
            case.body["image"] = URI
        elif isinstance(case.body.get("image"), list):
            case.body["image"] = [PNG] * min(2, len(case.body["image"]) or 1)
        if case.operation.path == "/v1/embeddings":
            case.body |= {"model": NAME, "input": [URI]}
            case.body.pop("messages", None)
