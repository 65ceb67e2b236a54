"""Every form of a body and every format of an answer carries the same request and the same bits."""

import base64
import gzip
import json
import uuid
import zlib
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors import numpy as safetensors

from model.running.runner import Runner
from service.limits import ModelFacts
from service.requests.results import normalized
from tests import pictures
from tests.service.running import Running, alone, error_of, load_npy, plan_of

PHOTO = pictures.photograph_file("rocket.jpg")
TALL = pictures.save(pictures.picture(160, 40), "WEBP")
NPY = {"Accept": "application/x-npy"}
SAFETENSORS = {"Accept": "application/x-safetensors"}
STAGES = ["receive", "decode", "queue", "pack", "forward", "respond"]


def encoded(image: bytes, *, uri: bool = False) -> str:
    return "data:image/jpeg;base64," * uri + base64.b64encode(image).decode()


def floats(text: str) -> NDArray[np.float32]:
    return np.frombuffer(base64.b64decode(text), "<f4")


def binary(server: Running, headers: dict[str, str], **parameters: str) -> Any:
    """The answer to two images of at most 32 tokens."""
    files = [("image", ("a", PHOTO)), ("image", ("b", TALL))]
    answer = server.http.post("/embed", files=files, data={"max_tokens": "32"} | parameters, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer


# Forms


def test_all_forms_give_the_same_answer(server: Running) -> None:
    raw = server.embed(PHOTO, max_tokens=32)
    assert raw.status_code == 200
    assert server.embed_form([PHOTO], max_tokens=32).json() == raw.json()
    assert server.embed_json(images=[encoded(PHOTO)], max_tokens=32).json() == raw.json()
    uri = encoded(PHOTO, uri=True)
    lines = "data:image/jpeg;base64, " + base64.encodebytes(PHOTO).decode()
    for image in (uri, lines, uri.replace("+", "%2B"), {"url": uri}, {"image": encoded(PHOTO)}):
        assert server.embed_json(images=[image], max_tokens=32).json() == raw.json()
        assert server.embed_json(image=image, images=None, max_tokens=32).json() == raw.json()


@pytest.mark.parametrize(
    ("path", "request_of"),
    [
        ("/embed?max_tokens=32", {"content": PHOTO, "headers": {"Content-Type": "image/jpeg"}}),
        ("/embed", {"files": {"image": ("a", PHOTO)}, "data": {"max_tokens": "32"}}),
        ("/embed", {"json": {"image": encoded(PHOTO), "max_tokens": 32}}),
        ("/v1/embeddings", {"json": {"input": encoded(PHOTO, uri=True), "max_tokens": 32}}),
        ("/plan", {"json": {"workload": [{"height": 90, "width": 160, "task": "photo"}], "budget_tokens": 100}}),
    ],
)
def test_a_coded_body_gets_the_answer_of_the_plain_one(server: Running, path: str, request_of: dict[str, Any]) -> None:
    plain = server.http.build_request("POST", path, **request_of)
    expected = server.http.send(plain)
    assert expected.status_code == 200, expected.text
    for coding, packed in (("gzip", gzip.compress(plain.read())), ("deflate", zlib.compress(plain.read()))):
        headers = {"Content-Type": plain.headers["Content-Type"], "Content-Encoding": coding}
        assert server.http.post(path, content=packed, headers=headers).content == expected.content


def test_a_coding_that_is_not_decoded_is_refused_by_name(server: Running) -> None:
    headers = {"Content-Type": "image/jpeg", "Content-Encoding": "br"}
    answer = server.http.post("/embed", content=PHOTO, headers=headers)
    assert error_of(answer)[:2] == (415, "unsupported_media")
    assert answer.headers["Accept-Encoding"] == "gzip, deflate"
    assert "'br'" in answer.json()["error"]["message"]


@pytest.mark.parametrize("kind", ["text/json", "application/problem+json; charset=utf-8"])
def test_json_may_have_any_json_type_and_a_byte_order_mark(server: Running, kind: str) -> None:
    body = b"\xef\xbb\xbf" + json.dumps({"image": encoded(PHOTO), "max_tokens": 32}).encode()
    answer = server.http.post("/embed", content=body, headers={"Content-Type": kind})
    assert answer.json() == server.embed(PHOTO, max_tokens=32).json()


def test_a_raw_image_may_have_the_type_that_object_stores_give_it(server: Running) -> None:
    headers = {"Content-Type": "binary/octet-stream"}
    answer = server.http.post("/embed?max_tokens=32", content=PHOTO, headers=headers)
    assert answer.json() == server.embed(PHOTO, max_tokens=32).json()


@pytest.mark.parametrize("name", ["image", "images", "images[]", "image[]", "file", "files"])
def test_a_form_may_name_its_images_as_tutorials_do(server: Running, name: str) -> None:
    files: list[tuple[str, Any]] = [(name, ("a.jpg", PHOTO, "image/jpeg")), (name, ("b.webp", TALL))]
    answer = server.http.post("/embed", files=files, data={"max_tokens": "32", "_charset_": "utf-8"})
    assert answer.json() == server.embed_form([PHOTO, TALL], max_tokens=32).json()


def test_a_form_takes_its_parameters_from_the_query_too(server: Running) -> None:
    files = {"image": ("a", PHOTO)}
    answer = server.http.post("/embed?max_tokens=32", files=files, data={"strategy": "square"}).json()
    assert (answer["data"][0]["grid"], answer["data"][0]["strategy"]) == ([5, 5], "square")


def test_a_chunked_body_reads_like_one_with_a_length(server: Running) -> None:
    pieces = (PHOTO[start : start + 1000] for start in range(0, len(PHOTO), 1000))
    chunked = server.http.post("/embed?max_tokens=32", content=pieces, headers={"Content-Type": "image/jpeg"})
    assert chunked.request.headers["Transfer-Encoding"] == "chunked"
    assert chunked.json() == server.embed(PHOTO, max_tokens=32).json()


def test_images_are_answered_in_their_order(server: Running) -> None:
    answer = server.embed_form([TALL, PHOTO, TALL], max_tokens=32).json()
    assert [image["size"] for image in answer["data"]] == [[160, 40], [427, 640], [160, 40]]
    assert [image["index"] for image in answer["data"]] == [0, 1, 2]
    assert answer["data"][0] | {"index": 2} == answer["data"][2]
    assert answer["usage"] == {"images": 3, "tokens": sum(image["tokens"] for image in answer["data"])}


def test_an_answer_has_exactly_the_fields_of_the_contract(server: Running) -> None:
    answer = server.embed(PHOTO).json()
    assert list(answer) == ["model", "dim", "fingerprint", "data", "usage"]
    (image,) = answer["data"]
    assert set(image) == {
        "index", "embedding", "tokens", "output_tokens", "grid", "size", "resized", "strategy", "token_cap",
    }  # fmt: skip
    assert (answer["model"], answer["dim"], len(image["embedding"])) == ("packlight-tiny", 256, 256)
    assert (image["token_cap"], image["output_tokens"]) == (256, image["tokens"])


def test_the_budget_of_a_request_lowers_the_largest_caps_first(server: Running) -> None:
    caps = [64, 64, 64]
    full = server.embed_form([PHOTO, PHOTO, TALL], max_tokens=64).json()
    assert [image["token_cap"] for image in full["data"]] == caps
    lowered = server.embed_form([PHOTO, PHOTO, TALL], max_tokens=64, max_request_tokens=100).json()
    assert lowered["usage"]["tokens"] <= 100 < full["usage"]["tokens"]
    assert len({image["token_cap"] for image in lowered["data"]}) == 1
    assert lowered["data"][0]["token_cap"] < 64


def test_a_budget_of_less_than_a_token_an_image_is_refused(server: Running) -> None:
    answer = server.embed_form([PHOTO, TALL], max_request_tokens=1)
    assert error_of(answer) == (422, "invalid", "max_request_tokens", None)


def test_a_cap_over_the_servers_is_lowered_and_reported(server: Running) -> None:
    (image,) = server.embed(PHOTO, max_tokens=10**6, max_pixels=10**9).json()["data"]
    assert image["token_cap"] == 1024
    assert image["tokens"] == plan_of(PHOTO, 1024).tokens


# Formats


def test_npy_is_equal_to_the_json_floats_bit_for_bit(server: Running) -> None:
    answer = binary(server, NPY)
    array = load_npy(answer.content)
    json = binary(server, {}).json()
    assert (str(array.dtype), array.shape) == ("float32", (2, 256))
    assert np.array_equal(array, np.array([image["embedding"] for image in json["data"]], np.float32))
    assert answer.headers["Content-Type"] == "application/x-npy"
    assert answer.headers["X-Image-Tokens"] == ",".join(str(image["tokens"]) for image in json["data"])
    assert answer.headers["X-Fingerprint"] == json["fingerprint"]


def test_safetensors_hold_both_kinds_of_vectors_bit_for_bit(server: Running) -> None:
    tensors = safetensors.load(binary(server, SAFETENSORS, output="both").content)
    json = binary(server, {}, output="both").json()["data"]
    embeddings = np.array([image["embedding"] for image in json], np.float32)
    tokens = np.concatenate([np.array(image["token_embeddings"]["data"], np.float32) for image in json])
    assert np.array_equal(tensors["embeddings"], embeddings)
    assert np.array_equal(tensors["token_embeddings"], tokens)
    assert tensors["cu_tokens"].tolist() == [0, json[0]["tokens"], json[0]["tokens"] + json[1]["tokens"]]
    assert tensors["grids"].tolist() == [image["grid"] for image in json]


@pytest.mark.parametrize(
    ("output", "names"),
    [("embedding", {"embeddings", "grids"}), ("tokens", {"token_embeddings", "cu_tokens", "grids"})],
)
def test_safetensors_hold_the_output_that_was_asked_for(server: Running, output: str, names: set[str]) -> None:
    assert set(safetensors.load(binary(server, SAFETENSORS, output=output).content)) == names


def test_base64_is_equal_to_the_floats_bit_for_bit(server: Running) -> None:
    plain = server.embed(PHOTO, max_tokens=32, output="both").json()["data"][0]
    coded = server.embed(PHOTO, max_tokens=32, output="both", encoding="base64").json()["data"][0]
    assert np.array_equal(floats(coded["embedding"]), np.array(plain["embedding"], np.float32))
    shape = coded["token_embeddings"]["shape"]
    assert shape == plain["token_embeddings"]["shape"] == [plain["tokens"], 256]
    tokens = np.array(plain["token_embeddings"]["data"], np.float32)
    assert np.array_equal(floats(coded["token_embeddings"]["data"]).reshape(shape), tokens)


@pytest.mark.parametrize(
    ("output", "names"),
    [
        ("embedding", {"embedding"}),
        ("tokens", {"token_embeddings"}),
        ("both", {"embedding", "token_embeddings"}),
        ("segments", {"segments"}),
    ],
)
def test_the_output_is_what_was_asked_for(server: Running, output: str, names: set[str]) -> None:
    (image,) = server.embed(PHOTO, max_tokens=16, output=output).json()["data"]
    assert image.keys() & {"embedding", "token_embeddings", "segments"} == names


def test_an_image_of_one_segment_is_one_segment(server: Running) -> None:
    (image,) = server.embed(PHOTO, max_tokens=16, output="segments").json()["data"]
    (segment,) = image["segments"]
    assert (segment["grid"], segment["tokens"], segment["offset"]) == (image["grid"], image["tokens"], 0)
    assert segment["embedding"] == server.embed(PHOTO, max_tokens=16).json()["data"][0]["embedding"]


def test_vectors_have_length_1_unless_normalize_is_false(loaded: tuple[Runner, ModelFacts], server: Running) -> None:
    scaled = np.array(server.embed(PHOTO).json()["data"][0]["embedding"], np.float32)
    plain = np.array(server.embed(PHOTO, normalize=False).json()["data"][0]["embedding"], np.float32)
    assert np.linalg.norm(scaled) == pytest.approx(1, abs=1e-6)
    assert np.array_equal(plain, alone(loaded[0], PHOTO, 256).pooled[0])
    assert np.array_equal(scaled, normalized(plain[None])[0])


def test_token_vectors_are_never_normalized(loaded: tuple[Runner, ModelFacts], server: Running) -> None:
    answer = server.embed(PHOTO, max_tokens=16, output="tokens").json()
    tokens = np.array(answer["data"][0]["token_embeddings"]["data"], np.float32)
    expected = alone(loaded[0], PHOTO, 16).tokens
    assert expected is not None
    assert np.array_equal(tokens, expected)


@pytest.mark.parametrize(
    ("headers", "parameters", "param"),
    [
        (NPY, {"partial": "true"}, "partial"),
        (SAFETENSORS, {"partial": "true"}, "partial"),
        (NPY, {"output": "tokens"}, "output"),
        (NPY, {"output": "segments"}, "output"),
        (SAFETENSORS, {"output": "segments"}, "output"),
    ],
)
def test_an_output_that_a_format_cannot_hold_is_refused(
    server: Running, headers: dict[str, str], parameters: dict[str, str], param: str
) -> None:
    answer = server.http.post("/embed", files={"image": ("a", PHOTO)}, data=parameters, headers=headers)
    assert error_of(answer) == (422, "invalid", param, None)


def test_an_error_is_json_in_every_format(server: Running) -> None:
    answer = server.http.post("/embed", content=b"text", headers=NPY | {"Content-Type": "image/png"})
    assert error_of(answer)[:2] == (415, "unsupported_media")


def test_many_token_vectors_need_base64(server: Running) -> None:
    assert error_of(server.embed_form([PHOTO] * 2, max_tokens=1024, output="tokens"))[2] == "encoding"
    answer = server.embed_form([PHOTO] * 2, max_tokens=1024, output="tokens", encoding="base64").json()
    for image in answer["data"]:
        assert floats(image["token_embeddings"]["data"]).size == image["tokens"] * 256


# Headers


def test_a_request_id_is_echoed(server: Running) -> None:
    answer = server.http.post(
        "/embed", content=PHOTO, headers={"Content-Type": "image/jpeg", "X-Request-ID": "my id/1"}
    )
    assert answer.headers["X-Request-ID"] == "my id/1"


@pytest.mark.parametrize("given", [None, "x" * 129, "tab\tbed", "ümlaut"])
def test_a_missing_or_unfit_request_id_is_replaced(server: Running, given: str | None) -> None:
    headers = {} if given is None else {b"X-Request-ID": given.encode()}
    ids = {server.http.get("/livez", headers=headers).headers["X-Request-ID"] for _ in range(2)}
    assert len(ids) == 2
    assert all(uuid.UUID(made) for made in ids)


def test_a_refusal_has_a_request_id_too(server: Running) -> None:
    answer = server.http.post("/embed", content=b"", headers={"X-Request-ID": "mine"})
    assert (answer.status_code, answer.headers["X-Request-ID"]) == (415, "mine")


@pytest.mark.parametrize("path", ["/embed", "/v1/embeddings"])
def test_every_stage_has_its_time(server: Running, path: str) -> None:
    content = {"images" if path == "/embed" else "input": [encoded(PHOTO, uri=True)]}
    answer = server.http.post(path, json=content)
    times = dict(part.split(";dur=") for part in answer.headers["Server-Timing"].split(", "))
    assert list(times) == STAGES
    assert all(0 <= float(value) < answer.elapsed.total_seconds() * 1000 for value in times.values())
