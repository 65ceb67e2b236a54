"""`decode=fast` in a request, in the settings and on the command line, and its fingerprint."""

import base64
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open

from model.images.decode import DecodeMode
from model.running.runner import Runner
from service.__main__ import main
from service.limits import ModelFacts
from service.requests.results import normalized
from tests import pictures
from tests.service.running import Running, alone, error_of, serving

Loaded = tuple[Runner, ModelFacts]

PNG = pictures.photograph_file("chelsea.png")
JPEG = pictures.save(Image.open(BytesIO(pictures.photograph_file("astronaut.png"))), "JPEG")


@pytest.fixture(scope="module")
def fast_server(loaded: Loaded) -> Iterator[Running]:
    with serving(loaded, decode="fast") as running:
        yield running


def expected(loaded: Loaded, decode: DecodeMode, data: bytes = JPEG) -> list[float]:
    """The vector of an image of 16 tokens in a pack of its own."""
    numbers: list[float] = normalized(alone(loaded[0], data, 16, decode).pooled)[0].tolist()
    return numbers


def vector(server: Running, data: bytes = JPEG, **parameters: str) -> list[float]:
    return vectors_in(server.embed(data, max_tokens=16, **parameters))[0]


def vectors_in(answer: httpx.Response) -> list[list[float]]:
    vectors = np.array([image["embedding"] for image in answer.json()["data"]], np.float32)
    numbers: list[list[float]] = vectors.tolist()
    return numbers


def test_the_requests_decode_mode_applies(server: Running, loaded: Loaded) -> None:
    assert vector(server) == vector(server, decode="exact") == expected(loaded, "exact")
    assert vector(server, decode="fast") == expected(loaded, "fast")
    assert expected(loaded, "fast") != expected(loaded, "exact")


def test_the_setting_applies_to_requests_that_give_none(fast_server: Running, loaded: Loaded) -> None:
    assert vector(fast_server) == vector(fast_server, decode="fast") == expected(loaded, "fast")
    assert vector(fast_server, decode="exact") == expected(loaded, "exact")


def test_fast_changes_only_the_vector_and_the_fingerprint(server: Running) -> None:
    exact, fast = (server.embed(JPEG, max_tokens=16, decode=decode).json() for decode in ("exact", "fast"))
    for answer in (exact, fast):
        del answer["fingerprint"], answer["data"][0]["embedding"]
    assert exact == fast
    assert exact["data"][0]["size"] == [512, 512]


def test_every_answer_names_the_fingerprint_that_applies(
    server: Running, fast_server: Running, loaded: Loaded, tmp_path: Path
) -> None:
    exact, fast = loaded[0].fingerprint(), loaded[0].fingerprint(decode="fast")
    assert exact != fast
    for asked, parameters, value in (
        (server, {}, exact),
        (server, {"decode": "fast"}, fast),
        (fast_server, {}, fast),
        (fast_server, {"decode": "exact"}, exact),
    ):
        json, npy, safetensors = (
            asked.http.post("/embed", files={"image": JPEG}, data=parameters, headers={"Accept": f"application/{kind}"})
            for kind in ("json", "x-npy", "x-safetensors")
        )
        path = tmp_path / "x.safetensors"
        path.write_bytes(safetensors.content)
        with safe_open(path, "numpy") as file:
            named = file.metadata()["fingerprint"]
        assert [json.json()["fingerprint"], npy.headers["X-Fingerprint"], named] == [value] * 3


def test_images_that_fast_decodes_exactly_have_its_fingerprint_alone_and_beside_others(
    server: Running, loaded: Loaded
) -> None:
    by_itself = server.embed(PNG, max_tokens=16, decode="fast")
    together = server.embed_form([PNG, JPEG], max_tokens=16, decode="fast")
    assert by_itself.json()["fingerprint"] == together.json()["fingerprint"] == loaded[1].fast_fingerprint
    assert vectors_in(by_itself) == [expected(loaded, "exact", PNG)]
    assert vectors_in(together) == [expected(loaded, "exact", PNG), expected(loaded, "fast")]


def test_openais_route_decodes_as_the_settings_say(fast_server: Running, loaded: Loaded) -> None:
    uri = f"data:image/jpeg;base64,{base64.b64encode(JPEG).decode()}"
    answer = fast_server.http.post("/v1/embeddings", json={"input": uri, "max_tokens": 16})
    assert vectors_in(answer) == [expected(loaded, "fast")]
    assert answer.headers["X-Fingerprint"] == loaded[1].fast_fingerprint


def test_info_names_both_fingerprints_and_the_default_one(
    server: Running, fast_server: Running, loaded: Loaded
) -> None:
    both = {"exact": loaded[0].fingerprint(), "fast": loaded[0].fingerprint(decode="fast")}
    for asked, decode in ((server, "exact"), (fast_server, "fast")):
        info = asked.http.get("/info").json()["fingerprint"]
        assert (info["value"], info["decode"], info["by_decode"]) == (both[decode], decode, both)


def test_an_unknown_decode_mode_is_refused_by_name(server: Running) -> None:
    assert error_of(server.embed(JPEG, decode="draft")) == (422, "invalid", "decode", None)
    assert error_of(server.embed_json(images=[base64.b64encode(JPEG).decode()], decode=7)) == (
        422, "invalid", "decode", None,
    )  # fmt: skip


def test_openapi_states_no_default_that_a_setting_may_change(server: Running) -> None:
    route = server.http.get("/openapi.json").json()["paths"]["/embed"]["post"]
    (decode,) = (parameter for parameter in route["parameters"] if parameter["name"] == "decode")
    assert decode["schema"]["enum"] == ["exact", "fast"]
    assert "default" not in decode["schema"]


def test_the_command_line_embeds_files_fast_on_request(
    tmp_path: Path, bundled: Loaded, capsys: pytest.CaptureFixture[str]
) -> None:
    photo, out = tmp_path / "a.jpg", tmp_path / "a.npy"
    photo.write_bytes(JPEG)
    options = ["--devices", "cpu", "--dtype", "float32", "--max-tokens", "16", "--out", str(out)]
    for decode in ("exact", "fast"):
        assert main(["embed", str(photo), "--decode", decode, *options]) == 0
        assert np.load(out)[0].tolist() == expected(bundled, decode)
    assert main(["embed", str(photo), "--decode", "draft", *options]) == 2
    assert "decode (PACKLIGHT_DECODE, --decode) is 'draft'" in capsys.readouterr().err
