"""How a bad request is refused: status, code, parameter and index. The next request is served."""

import base64
from typing import Any

import httpx
import pytest

from service.metrics import REASONS
from tests import pictures
from tests.service.running import Running, error_of, raw_request, read_answer

PNG = pictures.save(pictures.picture(48, 64), "PNG")
JPEG = pictures.save(pictures.picture(120, 160), "JPEG")


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (JPEG[: len(JPEG) // 2], (422, "invalid", "image", 0)),
        (b"a text, and no picture", (415, "unsupported_media", "image", 0)),
        (pictures.png(30_000, 30_000, b""), (413, "too_large", "image", 0)),
        (b"", (400, "bad_request", None, None)),
    ],
    ids=["truncated", "text", "bomb", "empty"],
)
def test_a_bad_image_is_refused(server: Running, image: bytes, expected: tuple[Any, ...]) -> None:
    assert error_of(server.embed(image)) == expected


def test_a_30000_by_30000_header_names_the_setting(server: Running) -> None:
    message = server.embed(pictures.png(30_000, 30_000, b"")).json()["error"]["message"]
    assert "max_decode_pixels" in message


def test_an_image_of_1_by_10000_pixels_is_embedded(server: Running) -> None:
    answer = server.embed(pictures.save(pictures.picture(1, 10_000), "PNG"), max_tokens=64).json()
    (image,) = answer["data"]
    assert image["size"] == [1, 10_000]
    assert image["grid"] == [1, 64]
    assert answer["usage"] == {"images": 1, "tokens": 64}


def test_one_bad_image_of_two_fails_the_request_with_its_index(server: Running) -> None:
    assert error_of(server.embed_form([PNG, JPEG[:-600]])) == (422, "invalid", "image", 1)


@pytest.mark.parametrize("bad", [b"*", JPEG[:-600], b"a text, and no picture"], ids=["base64", "truncated", "text"])
@pytest.mark.parametrize("partial", [False, True])
def test_every_error_of_an_image_names_the_field_that_brought_it(server: Running, bad: bytes, partial: bool) -> None:
    encoded = "*" if bad == b"*" else base64.b64encode(bad).decode()
    good = base64.b64encode(PNG).decode()
    answers = {
        ("images", 1): server.embed_json(images=[good, encoded], partial=partial),
        ("image", 0): server.embed_json(image=encoded, partial=partial),
    }
    if bad != b"*":
        files = [("image[0]", ("a.png", PNG)), ("image[1]", ("b.png", bad))]
        answers["image[1]", 1] = server.http.post("/embed", files=files, data={"partial": str(partial).lower()})
    for named, answer in answers.items():
        error = answer.json()["data"][named[1]]["error"] if partial else answer.json()["error"]
        assert (error["param"], error["index"]) == named


def test_with_partial_a_bad_image_does_not_fail_the_others(server: Running) -> None:
    answer = server.embed_form([JPEG[:-600], PNG, b"text"], partial=True, max_tokens=16)
    assert answer.status_code == 200
    broken, good, text = answer.json()["data"]
    assert (broken["index"], broken["error"]["code"], broken["error"]["index"]) == (0, "invalid", 0)
    assert (text["index"], text["error"]["code"], text["error"]["index"]) == (2, "unsupported_media", 2)
    assert (good["index"], good["tokens"]) == (1, 12)
    assert "embedding" not in broken
    assert answer.json()["usage"] == {"images": 1, "tokens": 12}


def test_with_partial_an_image_that_is_not_base64_does_not_fail_the_others(server: Running) -> None:
    good = base64.b64encode(PNG).decode()
    images = [good, "*", 5, "data:image/png,abc", "http://images.test/", {"path": "a"}, good, ""]
    answer = server.embed_json(images=images, partial=True, max_tokens=16)
    assert answer.status_code == 200, answer.text
    items = answer.json()["data"]
    found = [item["error"]["code"] if "error" in item else item["tokens"] for item in items]
    refused = ["bad_request", "invalid", "bad_request", "invalid", "invalid"]
    assert found == [12, *refused, 12, "unsupported_media"]
    assert [(item["error"]["param"], item["error"]["index"]) for item in items[1:6]] == [
        ("images", index) for index in range(1, 6)
    ]
    assert answer.json()["usage"] == {"images": 2, "tokens": 24}
    # Without it the first of them fails the request.
    assert error_of(server.embed_json(images=images, max_tokens=16)) == (400, "bad_request", "images", 1)


def test_with_partial_a_good_image_gets_the_bits_it_gets_alone(server: Running) -> None:
    mixed = server.embed_form([b"text", PNG], partial=True, max_tokens=16).json()
    assert mixed["data"][1]["embedding"] == server.embed(PNG, max_tokens=16).json()["data"][0]["embedding"]


@pytest.mark.parametrize(
    ("parameters", "param"),
    [
        ({"max_tokens": "many"}, "max_tokens"),
        ({"max_tokens": "0"}, "max_tokens"),
        ({"max_tokens": "-1"}, "max_tokens"),
        ({"max_pixels": "255"}, "max_pixels"),
        ({"min_pixels": "256"}, "min_pixels"),
        ({"max_request_tokens": "0"}, "max_request_tokens"),
        ({"max_tokns": "16"}, "max_tokns"),
        ({"strategy": "native", "min_pixels": "0"}, "min_pixels"),
        ({"strategy": "native", "min_pixels": "600", "max_pixels": "599"}, "min_pixels"),
        ({"strategy": "anyres", "min_pixels": "256"}, "min_pixels"),
        ({"strategy": "anyres", "max_tokens": "767"}, "max_tokens"),
        ({"strategy": "best"}, "strategy"),
        ({"decode": "draft"}, "decode"),
        ({"output": "pixels"}, "output"),
        ({"encoding": "hex"}, "encoding"),
        ({"normalize": "perhaps"}, "normalize"),
        ({"partial": "2"}, "partial"),
        ({"timeout_ms": "0"}, "timeout_ms"),
        ({"timeout_ms": "9" * 400}, "timeout_ms"),
        ({"timeout_ms": "nan"}, "timeout_ms"),
    ],
    ids=lambda value: "-".join(f"{k}-{v[:8]}" for k, v in value.items()) if isinstance(value, dict) else "",
)
def test_a_wrong_or_unknown_parameter_is_named(server: Running, parameters: dict[str, str], param: str) -> None:
    assert error_of(server.embed(PNG, **parameters))[:3] == (422, "invalid", param)


@pytest.mark.parametrize("count", [10**30, 10**400], ids=["31 digits", "401 digits"])
def test_an_enormous_budget_is_capped(server: Running, count: int) -> None:
    assert server.embed(PNG, max_tokens=count).json()["data"][0]["token_cap"] == 1024


def test_a_parameter_in_the_query_and_in_the_form_is_refused(server: Running) -> None:
    files = {"image": ("a.png", PNG, "image/png")}
    answer = server.http.post("/embed?max_tokens=16", files=files, data={"max_tokens": "16"})
    assert error_of(answer) == (422, "invalid", "max_tokens", None)


def test_a_parameter_in_the_query_and_in_the_json_body_is_refused(server: Running) -> None:
    content = {"images": [base64.b64encode(PNG).decode()], "max_tokens": 16}
    answer = server.http.post("/embed?max_tokens=16", json=content)
    assert error_of(answer) == (422, "invalid", "max_tokens", None)


def test_a_parameter_twice_in_the_query_is_refused(server: Running) -> None:
    answer = server.http.post("/embed?max_tokens=16&max_tokens=16", content=PNG, headers={"Content-Type": "image/png"})
    assert error_of(answer) == (422, "invalid", "max_tokens", None)


@pytest.mark.parametrize(
    ("kind", "content", "expected"),
    [
        ("text/plain", PNG, (415, "unsupported_media", None, None)),
        ("", PNG, (415, "unsupported_media", None, None)),
        ("application/json", b"{", (400, "bad_request", None, None)),
        ("application/json", b"[]", (400, "bad_request", None, None)),
        ("application/json", b"{}", (422, "invalid", "images", None)),
        ("application/json", b'{"images": []}', (422, "invalid", "images", None)),
        ("application/json", b'{"images": "abcd"}', (422, "invalid", "images", None)),
        ("application/json", b'{"image": ["abcd"]}', (422, "invalid", "image", None)),
        ("application/json", b'{"image": "*"}', (400, "bad_request", "image", 0)),
        ("application/json", b'{"image": "abcd", "images": ["abcd"]}', (422, "invalid", "image", None)),
        ("application/json", b'{"image": null, "images": null}', (422, "invalid", "images", None)),
        ("application/json", '{"image": "abcd"}'.encode("utf-16"), (400, "bad_request", None, None)),
        ("application/json", b'{"images": [1]}', (422, "invalid", "images", 0)),
        ("application/json", b'{"images": ["*"]}', (400, "bad_request", "images", 0)),
        ("application/json", b'{"images": ["data:image/png,abcd"]}', (400, "bad_request", "images", 0)),
        ("application/json", b'{"images": ["https://example.com/a.png"]}', (422, "invalid", "images", 0)),
        ("multipart/form-data", b"--x--\r\n", (400, "bad_request", None, None)),
        ("multipart/form-data; boundary=x", b"--x--\r\n", (422, "invalid", "image", None)),
        ("multipart/form-data; boundary=x", b"no boundary in here", (400, "bad_request", None, None)),
        (f"multipart/form-data; boundary={'x' * 300}", b"--x--\r\n", (400, "bad_request", None, None)),
    ],
)
def test_a_body_of_another_form_is_refused(
    server: Running, kind: str, content: bytes, expected: tuple[Any, ...]
) -> None:
    headers = {"Content-Type": kind} if kind else {}
    assert error_of(server.http.post("/embed", content=content, headers=headers)) == expected


@pytest.mark.parametrize(
    ("name", "way"), [("texts", "JSON"), ("inputs", "JSON"), ("images", "form"), ("image", "form")]
)
def test_what_only_a_body_brings_is_told_so_in_the_query(server: Running, name: str, way: str) -> None:
    answer = server.http.post("/embed", content=PNG, params={name: "a"}, headers={"Content-Type": "image/png"})
    assert error_of(answer) == (422, "invalid", name, None)
    assert "body" in answer.json()["error"]["message"]
    assert way in answer.json()["error"]["message"]


def test_a_long_unknown_name_is_not_echoed_in_full(server: Running) -> None:
    images = [base64.b64encode(PNG).decode()]
    answer = server.embed_json(images=images, **{"x" * 100_000: 1})
    assert answer.status_code == 422
    assert len(answer.content) < 2000


def test_more_images_than_allowed_are_refused_before_any_is_decoded(server: Running) -> None:
    before = server.decoder.decodes
    answer = server.embed_form([PNG] * (server.settings.max_images_per_request + 1))
    assert error_of(answer) == (413, "too_large", "image", None)
    assert server.decoder.decodes == before


def test_an_unknown_path_and_a_wrong_method_are_refused_in_the_same_shape(server: Running) -> None:
    assert error_of(server.http.get("/nowhere"))[:2] == (404, "not_found")
    answer = server.http.get("/embed")
    assert (*error_of(answer)[:2], answer.headers["Allow"]) == (405, "method_not_allowed", "POST")


def test_every_wrong_method_is_told_which_are_allowed(server: Running) -> None:
    paths = server.http.get("/openapi.json").json()["paths"]
    for path, methods in paths.items():
        allowed = {method.upper() for method in methods}
        allowed |= {"HEAD"} if "GET" in allowed else set()
        for method in {"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PROPFIND"} - allowed:
            answer = server.http.request(method, path)
            assert (answer.status_code, answer.headers["Allow"]) == (405, ", ".join(sorted(allowed))), (method, path)


def test_the_text_of_an_unknown_exception_is_not_sent(server: Running) -> None:
    server.decoder.fault = RuntimeError("a secret of the house")
    try:
        answer = server.embed(PNG)
    finally:
        server.decoder.fault = None
    assert error_of(answer)[:2] == (500, "internal")
    assert "secret" not in answer.text
    assert answer.headers["X-Request-ID"]


def test_bytes_after_a_refusal_are_not_read_as_a_request(server: Running) -> None:
    with server.connect() as connection:
        connection.sendall(raw_request(b"GET /livez HTTP/1.1\r\n\r\n", kind="text/plain"))
        answer, _ = read_answer(connection)
        assert (answer.status, answer.headers["Connection"]) == (415, "close")
        assert connection.recv(1) == b""


@pytest.mark.parametrize(
    ("parameters", "param"),
    [
        ('"max_tokens": true', "max_tokens"),
        ('"max_tokens": "16"', "max_tokens"),
        ('"max_tokens": 16.5', "max_tokens"),
        ('"max_tokens": 1e-2', "max_tokens"),
        ('"max_tokens": -1', "max_tokens"),
        ('"max_tokens": -1' + "0" * 30, "max_tokens"),
        ('"max_tokens": [[[[16]]]]', "max_tokens"),
        ('"max_tokens": {"max_tokens": 16}', "max_tokens"),
        ('"normalize": 1', "normalize"),
        ('"normalize": "true"', "normalize"),
        ('"partial": {"a": null}', "partial"),
        ('"partial": [null]', "partial"),
        ('"": 1', ""),
        ('"\\u0000": 1', "\0"),
    ],
)
def test_a_json_value_of_the_wrong_type_is_named(server: Running, parameters: str, param: str) -> None:
    content = f'{{"images": ["{base64.b64encode(PNG).decode()}"], {parameters}}}'
    answer = server.http.post("/embed", content=content, headers={"Content-Type": "application/json"})
    assert error_of(answer) == (422, "invalid", param, None)


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-", "01", "1.", "'16'", "16,", '"\\ud800"', "\xff"])
def test_invalid_json_is_a_bad_request(server: Running, text: str) -> None:
    content = f'{{"images": [], "max_tokens": {text}}}'.encode("latin-1")
    answer = server.http.post("/embed", content=content, headers={"Content-Type": "application/json"})
    assert error_of(answer) == (400, "bad_request", None, None)


def test_the_last_of_a_repeated_json_name_counts(server: Running) -> None:
    content = f'{{"images": ["{base64.b64encode(PNG).decode()}"], "max_tokens": "no", "max_tokens": 12}}'
    answer = server.http.post("/embed", content=content, headers={"Content-Type": "application/json"})
    assert answer.json()["data"][0]["token_cap"] == 12


def test_json_with_too_many_values_is_refused(server: Running) -> None:
    content = b'{"images": [' + b"{}," * 1_000_000 + b"{}]}"
    answer = server.http.post("/embed", content=content, headers={"Content-Type": "application/json"})
    assert error_of(answer) == (422, "invalid", None, None)
    assert "values" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("content", "status", "reason"),
    [
        (b"text", 415, "unsupported_media"),
        (b"", 400, "bad_request"),
        (PNG[:200], 422, None),
        (pictures.png(30_000, 30_000, b""), 413, "too_large"),
    ],
)
def test_a_refusal_before_decoding_counts_once_by_its_reason(
    server: Running, content: bytes, status: int, reason: str | None
) -> None:
    before = {name: server.metric("rejected_total", reason=name) for name in REASONS}
    assert server.embed(content).status_code == status
    found = {name: server.metric("rejected_total", reason=name) - count for name, count in before.items()}
    assert {name: count for name, count in found.items() if count} == ({reason: 1} if reason else {})


def test_refusals_of_bodies_and_parameters_count_by_their_reason(server: Running) -> None:
    def refused(reason: str, answer: httpx.Response) -> None:
        assert server.metric("rejected_total", reason=reason) == before[reason] + 1, answer.text

    before = {name: server.metric("rejected_total", reason=name) for name in REASONS}
    refused("too_many_images", server.embed_form([PNG] * 65))
    refused("invalid", server.embed(PNG, strategy="best"))
    refused("too_many_bytes", server.embed(bytes(server.settings.max_upload_bytes + 1)))
    refused("not_found", server.http.get("/nowhere"))
    refused("method_not_allowed", server.http.get("/embed"))


def test_an_image_that_no_budget_fits_fails_alone_and_the_others_share(server: Running) -> None:
    """Native refuses images over 200 times as long as they are wide."""
    sliver = pictures.png(1, 201, b"")
    good = pictures.save(pictures.picture(100, 100), "PNG")
    budget = {"strategy": "native", "max_request_tokens": 8}
    answer = server.embed_form([good, sliver, good], partial=True, **budget)
    assert answer.status_code == 200
    one, bad, two = answer.json()["data"]
    assert (bad["error"]["code"], bad["error"]["param"], bad["error"]["index"]) == ("invalid", "strategy", 1)
    assert (one["tokens"], two["tokens"]) == (4, 4)
    assert one["embedding"] == two["embedding"]
    assert error_of(server.embed_form([good, sliver], **budget))[3] == 1
