"""The four request forms, parsed by other code than the code that makes them."""

import base64
import email.parser
import email.policy
import json

import pytest

from loadtest.errors import UsageError
from loadtest.traffic.bodies import Adapter
from loadtest.traffic.corpus import Picture, Request

PICTURES = (Picture(b"\xff\xd8one\r\n--", 2, 3, "image/jpeg"), Picture(b"\x89PNGtwo", 4, 5, "image/png"))
REQUEST = Request(0, PICTURES, {"max_tokens": 64, "strategy": "native"})


def test_multipart_is_read_back_by_the_standard_library():
    wire = Adapter().wire(REQUEST)
    head = f"Content-Type: {wire.headers['Content-Type']}\r\n\r\n".encode()
    message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + wire.body)
    parts = [(part.get_param("name", header="content-disposition"), part) for part in message.iter_parts()]
    assert [name for name, _ in parts] == ["max_tokens", "strategy", "image", "image"]
    assert [part.get_payload(decode=True) for _, part in parts[2:]] == [picture.data for picture in PICTURES]
    assert [part.get_content_type() for _, part in parts[2:]] == ["image/jpeg", "image/png"]
    assert parts[0][1].get_payload() == "64"
    assert wire.images == 2


def test_raw_is_the_first_image_with_parameters_in_the_query():
    wire = Adapter(form="raw", answer="npy").wire(REQUEST)
    assert (wire.target, wire.body) == ("/embed?max_tokens=64&strategy=native", PICTURES[0].data)
    assert (wire.headers["Content-Type"], wire.headers["Accept"]) == ("image/jpeg", "application/x-npy")
    assert wire.images == 1


def test_json_holds_the_images_in_base64():
    content = json.loads(Adapter(form="json", answer="base64").wire(REQUEST).body)
    assert [base64.b64decode(image) for image in content["images"]] == [picture.data for picture in PICTURES]
    assert (content["max_tokens"], content["strategy"], content["encoding"]) == (64, "native", "base64")


def test_openai_holds_data_uris_and_only_the_parameters_it_knows():
    wire = Adapter(form="openai", model="clip", extra={"modality": "image"}).wire(REQUEST)
    content = json.loads(wire.body)
    assert content["input"][1] == "data:image/png;base64," + base64.b64encode(PICTURES[1].data).decode()
    assert {key: content[key] for key in content if key != "input"} == {
        "encoding_format": "float",
        "max_tokens": 64,
        "model": "clip",
        "modality": "image",
    }
    assert wire.target == "/v1/embeddings"


def test_a_plain_multipart_endpoint_gets_its_own_field_and_path_and_no_parameters():
    wire = Adapter(path="/predict", file_field="file", params=False).wire(REQUEST)
    assert wire.target == "/predict"
    assert b'name="file"' in wire.body
    assert b"max_tokens" not in wire.body


def test_openai_has_no_binary_answer():
    with pytest.raises(UsageError, match="answers JSON"):
        Adapter(form="openai", answer="npy")


@pytest.mark.parametrize("form", ["multipart", "raw", "json"])
def test_texts_travel_as_json_beside_the_images(form):
    wire = Adapter(form=form).wire(Request(0, PICTURES, {}, ("a cat", "a dog")))
    content = json.loads(wire.body)
    assert content["texts"] == ["a cat", "a dog"]
    assert len(content["images"]) == 2
    assert (wire.images, wire.headers["Content-Type"]) == (4, "application/json")


def test_a_request_of_texts_alone_names_no_images():
    assert json.loads(Adapter().wire(Request(0, (), {}, ("a cat",))).body) == {"texts": ["a cat"]}


def test_openai_takes_texts_as_they_are():
    content = json.loads(Adapter(form="openai").wire(Request(0, PICTURES[:1], {}, ("a cat",))).body)
    assert content["input"][1:] == ["a cat"]
