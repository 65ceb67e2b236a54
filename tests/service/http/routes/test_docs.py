"""`/docs` and `/openapi.json`: all files come from the server, and nobody needs a key to read them."""

import re
from collections.abc import Iterator

import pytest

from model.running.runner import Runner
from service.http.paths import EMBEDDING_PATHS, HEALTH_PATHS
from service.limits import ModelFacts
from tests.service.running import Running, error_of, serving

Loaded = tuple[Runner, ModelFacts]
FILES = {
    "docs": "text/html; charset=utf-8",
    "docs/start.js": "text/javascript; charset=utf-8",
    "docs/swagger-ui-bundle.js": "text/javascript; charset=utf-8",
    "docs/swagger-ui.css": "text/css; charset=utf-8",
}


@pytest.fixture(scope="module")
def locked(loaded: Loaded) -> Iterator[Running]:
    with serving(loaded, api_keys=("sesame",)) as running:
        yield running


@pytest.mark.parametrize("path", FILES)
def test_the_page_and_its_files_are_open_and_allow_nothing_from_elsewhere(locked: Running, path: str) -> None:
    answer = locked.http.get(f"/{path}")
    assert (answer.status_code, answer.headers["content-type"]) == (200, FILES[path])
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_the_page_names_only_files_that_the_server_has_and_by_relative_addresses(locked: Running) -> None:
    page = locked.http.get("/docs").text
    named = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(named) >= 4
    for name in named:
        assert not name.startswith(("/", "http")), name
        assert locked.http.get(f"/{name}").status_code == 200, name
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\bstyle=|\bon\w+=", page)


@pytest.mark.parametrize(
    "name", ["index.html", "oauth2-redirect.html", "../start.js", "%2e%2e%2fapp.py", "redoc.standalone.js"]
)
def test_it_serves_no_other_file(locked: Running, name: str) -> None:
    assert locked.http.get(f"/docs/{name}").status_code in (401, 404)


def test_the_other_documentation_of_fastapi_is_off(server: Running) -> None:
    for path in ("/redoc", "/docs/oauth2-redirect", "/docs/"):
        assert error_of(server.http.get(path))[:2] == (404, "not_found")


def test_with_keys_the_openapi_page_says_how_to_send_one(locked: Running) -> None:
    page = locked.http.get("/openapi.json").json()
    schemes = page["components"]["securitySchemes"]
    assert {(scheme["type"], scheme.get("scheme"), scheme.get("name")) for scheme in schemes.values()} == {
        ("http", "bearer", None),
        ("apiKey", None, "X-API-Key"),
    }
    assert page["security"] == [{name: []} for name in schemes]
    open_operations = {
        path for path, methods in page["paths"].items() for one in methods.values() if one.get("security") == []
    }
    assert open_operations == {
        "/livez", "/readyz", "/health", "/ping", "/.well-known/live", "/.well-known/ready",
    }  # fmt: skip
    assert locked.http.get("/info").status_code == 401


def test_without_keys_it_says_nothing_of_them(server: Running) -> None:
    page = server.http.get("/openapi.json").json()
    assert "security" not in page
    assert "securitySchemes" not in page["components"]
    assert not {"/docs", "/openapi.json"} & set(page["paths"])


def test_every_path_that_takes_a_body_says_which(server: Running) -> None:
    paths = server.http.get("/openapi.json").json()["paths"]
    posted = {path: routes["post"] for path, routes in paths.items() if "post" in routes and path not in HEALTH_PATHS}
    assert set(EMBEDDING_PATHS) < set(posted)
    assert not [path for path, route in posted.items() if "requestBody" not in route]


def test_every_field_of_a_body_is_described(server: Running) -> None:
    found, missing = 0, []
    for path, routes in server.http.get("/openapi.json").json()["paths"].items():
        for kind, body in routes.get("post", {}).get("requestBody", {"content": {}})["content"].items():
            for schema in body["schema"].get("anyOf", [body["schema"]]):
                for name, field in schema.get("properties", {}).items():
                    if not {"description", "format"} & field.keys():
                        missing.append(f"{path} {kind} {name}")
                    found += 1
    assert found > 100
    assert not missing
