"""The page at `/` and its files: headers, types, what a key and a strange path make of them."""

import logging
import re
from collections.abc import Iterator

import pytest

from model.running.runner import Runner
from service.limits import ModelFacts
from tests.service.running import Running, error_of, serving

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
TYPES = {
    "style.css": "text/css; charset=utf-8",
    "main.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
    "lake.webp": "image/webp",
}


@pytest.fixture
def with_key(loaded: tuple[Runner, ModelFacts]) -> Iterator[Running]:
    with serving(loaded, api_keys="a-key") as running:
        yield running


def test_the_page_allows_nothing_that_is_not_a_file_of_the_server(server: Running) -> None:
    answer = server.http.get("/")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert answer.headers["content-security-policy"] == POLICY
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    # The policy would forbid these, and the page would be broken.
    assert not re.search(r"<script(?![^>]*src=)|<style|\sstyle=|\son[a-z]+=", answer.text)


def test_addresses_in_the_page_are_relative_so_that_a_path_prefix_works(server: Running) -> None:
    html = server.http.get("/").text
    addresses = re.findall(r'(?:src|href)="([^"#][^"]*)"', html)
    assert len(addresses) > 3
    for address in addresses:
        assert not re.match(r"[a-z]+:|/", address), address
        assert server.http.get(f"/{address}").status_code == 200, address


@pytest.mark.parametrize(("name", "media_type"), TYPES.items())
def test_a_file_has_its_type_and_the_same_headers(server: Running, name: str, media_type: str) -> None:
    answer = server.http.get(f"/pages/{name}")
    assert (answer.status_code, answer.headers["content-type"]) == (200, media_type)
    assert answer.headers["content-security-policy"] == POLICY
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_known_file_is_not_sent_again_and_a_new_release_is_seen(server: Running) -> None:
    for path in ("/", "/pages/main.js"):
        first = server.http.get(path)
        assert first.headers["cache-control"] == "no-cache"
        tag = first.headers["etag"]
        for sent in (tag, f'W/{tag}, "another"', "*"):
            again = server.http.get(path, headers={"If-None-Match": sent})
            assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
        assert server.http.get(path, headers={"If-None-Match": '"of-another-release"'}).status_code == 200


def test_head_is_answered_without_a_body(server: Running) -> None:
    for path in ("/", "/pages/style.css"):
        answer, whole = server.http.head(path), server.http.get(path)
        assert (answer.status_code, answer.content) == (200, b"")
        assert answer.headers["content-length"] == str(len(whole.content))


def test_other_methods_are_refused(server: Running) -> None:
    for path in ("/", "/pages/style.css"):
        answer = server.http.post(path)
        assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize(
    "path",
    [
        "/pages/", "/pages", "/pages/index.html", "/pages/__init__.py", "/pages/none.js", "/pages/MAIN.JS",
        "/pages/../app.py", "/pages/%2e%2e/app.py", "/pages/..%2fapp.py", "/pages/..%5capp.py", "/pages/main.js%00",
        "/pages//etc/passwd", "/pages/main.js/", "/pages/%2fetc%2fpasswd",
    ],
)  # fmt: skip
def test_no_path_leads_to_another_file(server: Running, path: str) -> None:
    # As it is written: a client would take the dots out.
    with server.connect() as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n".encode())
        head = connection.makefile("rb").readline()
    assert head.startswith(b"HTTP/1.1 404"), (path, head)


def test_the_page_and_its_files_are_open_and_what_they_call_is_not(with_key: Running) -> None:
    for path in ("/", "/pages/main.js", "/pages/lake.webp"):
        assert with_key.http.get(path).status_code == 200, path
    for path in ("/info", "/pages", "/pagesinfo"):
        assert error_of(with_key.http.get(path))[:2] == (401, "unauthorized"), path
    assert error_of(with_key.http.post("/plan", json={}))[:2] == (401, "unauthorized")


def test_files_count_as_one_route_and_leave_no_line_in_the_log(
    server: Running, caplog: pytest.LogCaptureFixture
) -> None:
    def counted(route: str, status: str) -> float:
        return server.counted("requests_total", route=route, status=status)

    before = counted("/", "200"), counted("/pages", "200"), counted("/pages", "404")
    with caplog.at_level(logging.INFO, logger="packlight.request"):
        server.http.get("/")
        server.http.get("/pages/main.js")
        server.http.get("/pages/style.css")
        server.http.get("/pages/none.js")
        after = counted("/", "200"), counted("/pages", "200"), counted("/pages", "404")
    assert after == (before[0] + 1, before[1] + 2, before[2] + 1)
    routes = [vars(record)["fields"]["route"] for record in caplog.records]
    assert routes == ["/pages"]
    assert vars(caplog.records[0])["fields"]["status"] == 404
