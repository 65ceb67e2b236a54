"""HEIC over HTTP: the vector of its pixels, or a word of what to install."""

from typing import Any

from model.images.formats import heic
from tests.pictures import picture, save
from tests.service.running import Running


def test_a_heic_has_the_vector_of_its_pixels(server: Running) -> None:
    heic.register()
    lossless: dict[str, Any] = {"quality": -1, "chroma": 444, "matrix_coefficients": 0}
    files = [save(picture(48, 64), "PNG"), save(picture(48, 64), "HEIF", **lossless)]
    answers = [server.embed(file, max_tokens=16).json()["data"] for file in files]
    assert answers[0] == answers[1]
    assert "HEIC" in server.http.get("/info").json()["formats"]


def test_a_heic_is_a_415_that_says_what_to_install_if_its_package_is_not(server: Running, without_heif: None) -> None:
    answer = server.embed(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99))
    assert answer.status_code == 415
    assert heic.HOW_TO_READ in answer.json()["error"]["message"]
    assert "HEIC" not in server.http.get("/info").json()["formats"]
