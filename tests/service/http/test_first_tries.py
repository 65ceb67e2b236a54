"""What the server says to who uses it for the first time: each message names what to send instead."""

from typing import Any

import pytest

from service.http.paths import PATHS, meant_by
from tests import pictures
from tests.service.running import Running

PNG = pictures.save(pictures.picture(48, 64), "PNG")


def message(answer: Any) -> str:
    assert answer.status_code >= 400
    return str(answer.json()["error"]["message"])


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/embed/", "no such path; did you mean /embed?"),
        ("/healthz", "no such path; did you mean /health?"),
        ("/v1/embedding", "no such path; did you mean /v1/embeddings?"),
        ("/v1/embeddings/embeddings", "no such path; did you mean /v1/embeddings?"),
        ("/v1", "no such path; /docs lists those there are"),
        ("/" + "a" * 9000, "no such path; /docs lists those there are"),
    ],
)
def test_a_path_that_there_is_not(server: Running, path: str, told: str) -> None:
    assert message(server.http.get(path)) == told


def test_every_path_is_meant_by_itself_with_a_slash_behind() -> None:
    for path in PATHS:
        assert path == "/" or meant_by(f"{path}/") == path


def test_another_method_is_told_the_right_one(server: Running) -> None:
    told = "this path does not take GET; it takes POST, as curl -F image=@FILE sends it"
    assert message(server.http.get("/embed")) == told
    assert "it takes POST" in message(server.http.put("/embed", content=PNG))
    assert message(server.http.post("/info")) == "this path does not take POST; it takes GET"


def test_a_form_without_the_at_sign(server: Running) -> None:
    # What `curl -F image=photo.jpg` sends: a field, and no file.
    body = b'--x\r\nContent-Disposition: form-data; name="image"\r\n\r\nphoto.jpg\r\n--x--\r\n'
    answer = server.http.post("/embed", content=body, headers={"Content-Type": "multipart/form-data; boundary=x"})
    assert "as in -F image=@photo.jpg" in message(answer)


def test_a_path_in_json(server: Running) -> None:
    for path in ("photo.jpg", "/home/me/photo.jpg", "C:\\photo.png"):
        told = message(server.http.post("/embed", json={"image": path}))
        assert "the path of a file, and the server opens none" in told
        assert "curl -F image=@FILE" in told


@pytest.mark.parametrize("name", ["text", "url", "input"])
def test_json_with_other_names(server: Running, name: str) -> None:
    told = message(server.http.post("/embed", json={name: "a cat"}))
    assert told.startswith(f"the JSON has no images and no texts, only {name};")


def test_json_that_curl_sends_as_a_form(server: Running) -> None:
    answer = server.http.post(
        "/embed", content=b'{"image": ""}', headers={"Content-Type": "application/x-www-form-urlencoded"}
    )
    assert "(curl's, unless -H names another); send " in message(answer)
    assert "application/json" in message(answer)


@pytest.mark.parametrize("path", ["/embed", "/v1/embeddings"])
def test_a_picture_that_is_sent_as_json(server: Running, path: str) -> None:
    for data, format in ((PNG, "PNG"), (pictures.photograph_file("rocket.jpg"), "JPEG")):
        answer = server.http.post(path, content=data, headers={"Content-Type": "application/json"})
        told = f"the body is no JSON but the file of a {format}; POST /embed takes it as Content-Type: image/*"
        assert (answer.status_code, message(answer)) == (400, told)


def test_health_answers(server: Running) -> None:
    assert server.http.get("/health").status_code == 200


def test_a_cap_over_the_servers_is_said_in_the_answer(server: Running) -> None:
    most = server.http.get("/info").json()["limits"]["max_image_tokens"]
    for asked in ({"max_tokens": most + 1}, {"max_pixels": (most + 1) * 16 * 16}):
        (image,) = server.embed(PNG, **asked).json()["data"]
        assert (image["token_cap"], image["capped_by"]) == (most, "max_image_tokens")
    for asked in ({}, {"max_tokens": most}, {"max_tokens": 16}):
        (image,) = server.embed(PNG, **asked).json()["data"]
        assert "capped_by" not in image
