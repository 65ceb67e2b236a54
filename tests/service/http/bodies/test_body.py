"""Request bodies: they may arrive in any pieces and in any form, and are read up to their limits."""

import asyncio
import tracemalloc
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.types import Message

from service.errors import (
    BadRequest,
    ClientGone,
    Invalid,
    Overloaded,
    ServiceError,
    TooLarge,
    UnsupportedMedia,
    UploadTimeout,
)
from service.http.bodies.body import read_body
from service.http.bodies.json_object import read_json
from service.http.bodies.receive import BodyLimits
from service.metrics import Metrics
from service.requests.admission.hold import Hold
from service.requests.admission.inflight import InflightBytes
from tests.examples import many
from tests.service.requests.admission.test_admission import MAX_BYTES, admission
from tests.service.running import no_urls

LIMITS = BodyLimits(max_upload_bytes=100_000, max_held_bytes=100_000, max_images=3, max_texts=3, timeout_s=5.0)
# Nothing reads them. To make them takes longer than to read a body.
METRICS = Metrics()
BOUNDARY = "----a-boundary"
Fields = list[tuple[str, bytes]]


@dataclass(frozen=True)
class Read:
    """What was read. `asyncio.run` asks for a result's `repr`, which must not copy the images."""

    images: list[bytes] = field(repr=False)
    fields: list[tuple[str, str]]
    json: dict[str, Any]


def form(fields: Fields, *, boundary: str = BOUNDARY, end: str = "--\r\n") -> bytes:
    body = b""
    for name, content in fields:
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="x"\r\n\r\n'
        body += head.encode() + content + b"\r\n"
    return body + f"--{boundary}{end}".encode()


def read(
    pieces: Sequence[bytes],
    kind: str,
    *,
    limits: BodyLimits = LIMITS,
    headers: dict[str, str] | None = None,
    leaves: bool = False,
    stalls: bool = False,
) -> Read:
    """Reads a body whose pieces arrive one by one, after which the client may leave or stall."""
    waiting = list(pieces)

    async def receive() -> Message:
        if waiting:
            return {"type": "http.request", "body": waiting.pop(0), "more_body": bool(waiting or leaves or stalls)}
        if stalls:
            await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    async def main() -> Read:
        raw = [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()]
        scope = {"type": "http", "method": "POST", "headers": [(b"content-type", kind.encode()), *raw]}
        with Hold(made) as hold:
            body = await read_body(Request(scope, receive), hold, limits, no_urls())
            return Read(hold.images, body.fields, body.json)

    made = admission(metrics=METRICS)
    made._bytes = InflightBytes(max(MAX_BYTES, limits.max_upload_bytes), upload_timeout_s=1.0)
    try:
        return asyncio.run(main())
    finally:
        assert made.bytes == 0


def outcome(pieces: Sequence[bytes], kind: str) -> tuple[object, ...]:
    """What is read from a body, or how it is refused."""
    try:
        body = read(pieces, kind)
    except ServiceError as error:
        return type(error), error.message, error.param
    return body.images, body.fields, body.json


def split(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    return [data[start:end] for start, end in zip(edges, edges[1:], strict=False)]


# Content that a parser of pieces might take for a boundary.
TRICKY = st.sampled_from([b"\r", b"\n", b"\r\n", b"-", b"--", f"\r\n--{BOUNDARY}".encode()[:-1], BOUNDARY.encode()])
CONTENT = st.lists(st.one_of(TRICKY, st.binary(max_size=8)), max_size=8).map(b"".join)
FIELDS: st.SearchStrategy[Fields] = st.lists(
    st.tuples(st.sampled_from(["image", "image", "max_tokens", "other"]), CONTENT), max_size=5
)
CUTS = st.lists(st.integers(0, 600), max_size=12)


@settings(deadline=None)
@given(FIELDS, CUTS)
@example([("image", b"\r\n--"), ("image", b"")], list(range(200)))
def test_a_form_reads_the_same_in_any_pieces(fields: Fields, cuts: list[int]) -> None:
    data, kind = form(fields), f"multipart/form-data; boundary={BOUNDARY}"
    assert outcome(split(data, cuts), kind) == outcome([data], kind)


@settings(deadline=None)
@given(FIELDS)
def test_a_form_is_read_as_it_was_written(fields: Fields) -> None:
    # With the delimiter in it, content is another form than it was written as: a sender chooses one that is in none.
    assume(not any(f"\r\n--{BOUNDARY}".encode() in b"\r\n" + content for _, content in fields))
    images = [content for name, content in fields if name == "image"]
    others = [(name, content.decode("utf-8", "replace")) for name, content in fields if name != "image"]
    if len(images) <= LIMITS.max_images:
        body = read([form(fields)], f"multipart/form-data; boundary={BOUNDARY}")
        assert (body.images, body.fields) == (images, others)


@settings(deadline=None)
@given(st.binary(min_size=1, max_size=200), CUTS)
@example(b"--" + BOUNDARY.encode() + b"\r\n\r\n", [])
@example(b"--" + BOUNDARY.encode() + b"\r\n: x\r\n\r\nabc\r\n--" + BOUNDARY.encode() + b"--", [])
@example(b"--" + BOUNDARY.encode() + b"--", [1])
def test_no_form_makes_the_server_fail(data: bytes, cuts: list[int]) -> None:
    kind = f"multipart/form-data; boundary={BOUNDARY}"
    first = outcome(split(data, cuts), kind)
    assert first == outcome([data], kind)
    assert first[0] in (BadRequest, Invalid) or isinstance(first[0], list)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (form([("image", b"abc")], end=""), "closing boundary"),
        (form([("image", b"abc")])[:-40], "closing boundary"),
        (b"abc", "no line with the boundary"),
        (b"--" + BOUNDARY.encode() + b"\r\nno colon\r\n\r\n", "malformed"),
        (b"--" + BOUNDARY.encode() + b"\r\nX: y\r\n\r\nabc\r\n--" + BOUNDARY.encode() + b"--", "has no name"),
    ],
)
def test_a_malformed_form_is_a_bad_request(data: bytes, what: str) -> None:
    with pytest.raises(BadRequest, match=what):
        read([data], f"multipart/form-data; boundary={BOUNDARY}")


@pytest.mark.parametrize("boundary", ["", "x" * 257, '"', "ü"])
def test_an_impossible_boundary_is_a_bad_request(boundary: str) -> None:
    with pytest.raises(BadRequest):
        read([form([("image", b"abc")])], f"multipart/form-data; boundary={boundary}")


def test_a_long_field_is_refused_as_soon_as_it_is_too_long():
    with pytest.raises(Invalid, match="1024 bytes") as caught:
        read([form([("max_tokens", b"1" * 1025)])], f"multipart/form-data; boundary={BOUNDARY}")
    assert caught.value.param == "max_tokens"


def test_too_many_fields_are_refused():
    with pytest.raises(Invalid, match="64 fields"):
        read([form([(f"f{number}", b"") for number in range(65)])], f"multipart/form-data; boundary={BOUNDARY}")


def part(headers: bytes, content: bytes = b"abc") -> bytes:
    return f"--{BOUNDARY}\r\n".encode() + headers + b"\r\n\r\n" + content + b"\r\n"


END = f"--{BOUNDARY}--\r\n".encode()
IMAGE = b'Content-Disposition: form-data; name="image"'


@pytest.mark.parametrize(
    ("parts", "error"),
    [
        (part(b'Content-Disposition: form-data; name="' + b"a" * 100_000 + b'"'), BadRequest),
        (part(IMAGE + b"\r\n" + b"X" * 100_000 + b": a"), BadRequest),
        (part(IMAGE + b"".join(b"\r\nX-%d: a" % number for number in range(10_000))), BadRequest),
        (part(IMAGE + b"\r\nX"), BadRequest),
        (part(IMAGE + b"\r\n: a"), BadRequest),
        (part(IMAGE + b"\r\nX\0: a"), BadRequest),
        (part(b"Content-Disposition: form-data"), BadRequest),
        (part(b"Content-Type: image/png"), BadRequest),
        (part(b'Content-Disposition: form-data; name=""'), BadRequest),
        (part(b"Content-Disposition: form-data; name*=utf-8''image"), BadRequest),
        (part(IMAGE, b"\xff") * 10_000, TooLarge),
        (part(b'Content-Disposition: form-data; name="a"', b"") * 10_000, Invalid),
        (part(b'Content-Disposition: form-data; name="a"', bytes(1025)), Invalid),
    ],
)
@pytest.mark.parametrize("step", [7, 1000, 65536])
def test_a_part_over_a_limit_is_refused(parts: bytes, error: type[ServiceError], step: int) -> None:
    data = parts + END
    with pytest.raises(error):
        read(split(data[:200_000], range(0, 200_000, step)), f"multipart/form-data; boundary={BOUNDARY}", limits=WIDE)


WIDE = BodyLimits(max_upload_bytes=10_000_000, max_held_bytes=10_000_000, max_images=3, max_texts=3, timeout_s=60.0)


@pytest.mark.parametrize(
    "filename",
    [
        b'filename="../../etc/passwd"', b'filename="C:\\\\a.png"', b"filename=a\0b", 
        b"filename*=utf-8''%ff", b'filename="\xff\xfe"', b'filename=""', b'filename="' + b"x" * 2000 + b'"',
    ],
)  # fmt: skip
def test_a_file_name_is_ignored(filename: bytes) -> None:
    body = read([part(IMAGE + b"; " + filename) + END], f"multipart/form-data; boundary={BOUNDARY}")
    assert (body.images, body.fields) == ([b"abc"], [])


def test_an_image_of_no_bytes_is_an_image():
    assert read([part(IMAGE, b"") + END], f"multipart/form-data; boundary={BOUNDARY}").images == [b""]


def test_a_form_inside_a_form_is_not_parsed():
    inner = b"--inner\r\n" + IMAGE + b"\r\n\r\nabc\r\n--inner--\r\n"
    headers = IMAGE + b"\r\nContent-Type: multipart/mixed; boundary=inner"
    assert read([part(headers, inner) + END], f"multipart/form-data; boundary={BOUNDARY}").images == [inner]


def test_a_name_that_is_not_utf_8_is_read_with_replacement_characters():
    body = read(
        [part(b'Content-Disposition: form-data; name="im\xffage"') + END], f"multipart/form-data; boundary={BOUNDARY}"
    )
    assert body.fields == [("im\ufffdage", "abc")]


HEADER_TEXT = st.lists(
    st.sampled_from(
        [";", "=", '"', "\\", "*", " ", "\t", "boundary", "name", "filename", "utf-8''", "%", "ü", "image", "form-data"]
    )
).map("".join)


@settings(deadline=None)
@given(HEADER_TEXT, HEADER_TEXT)
def test_no_content_type_and_no_disposition_make_the_server_fail(kind: str, disposition: str) -> None:
    data = part(b"Content-Disposition: " + disposition.encode("latin-1")) + END
    for value in (f"multipart/form-data; boundary={BOUNDARY}", f"multipart/form-data;{kind}", kind):
        assert outcome([data], value.encode().decode("latin-1"))


def test_a_form_in_many_small_pieces_is_read_in_time_that_grows_with_its_bytes() -> None:
    """Each byte is read about once: no piece makes the parser sum a field or copy a header again."""
    data = part(b'Content-Disposition: form-data; name="a"', b"1" * 1024) + part(IMAGE, b"\r\n--" * 20_000) + END
    body = read(split(data, range(len(data))), f"multipart/form-data; boundary={BOUNDARY}", limits=WIDE)
    assert (len(body.images[0]), len(body.fields[0][1])) == (80_000, 1024)


def test_a_hostile_form_takes_no_more_than_a_few_times_its_bytes():
    """Line ends make the parser deliver content in many small objects."""
    size = 2_000_000
    data = form([("image", b"\r\n" * (size // 2))])
    limits = BodyLimits(max_upload_bytes=2 * size, max_held_bytes=2 * size, max_images=3, max_texts=3, timeout_s=60.0)
    tracemalloc.start()
    try:
        read(split(data, range(0, len(data), 65536)), f"multipart/form-data; boundary={BOUNDARY}", limits=limits)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2.5 * size


@pytest.mark.parametrize("kind", ["image/png", "multipart"])
def test_an_image_is_held_once(kind: str) -> None:
    """The pieces that the test made before are not counted."""
    size = 4_000_000
    data = bytes(size) if kind == "image/png" else form([("image", bytes(size))])
    pieces = split(data, range(0, len(data), 65536))
    tracemalloc.start()
    try:
        read(pieces, kind if kind == "image/png" else f"multipart/form-data; boundary={BOUNDARY}", limits=WIDE)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1.4 * size


# Limits


KINDS = ["image/png", "application/octet-stream", "application/json", f"multipart/form-data; boundary={BOUNDARY}"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_body_over_the_limit_is_cut_at_it(kind: str) -> None:
    start = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="image"\r\n\r\n'.encode()
    pieces = [start, *[bytes(1000)] * 100, b"never read"]
    with pytest.raises(TooLarge, match="max_upload_bytes"):
        read(pieces, kind, stalls=True)


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_body_is_a_bad_request(kind: str) -> None:
    with pytest.raises(BadRequest, match="the body is empty"):
        read([b""], kind)


@pytest.mark.parametrize("kind", KINDS)
def test_a_body_that_stalls_is_given_up(kind: str) -> None:
    limits = BodyLimits(max_upload_bytes=100, max_held_bytes=100, max_images=1, max_texts=3, timeout_s=0.02)
    with pytest.raises(UploadTimeout, match="upload_timeout_ms"):
        read([f"--{BOUNDARY}\r\n".encode()], kind, limits=limits, stalls=True)


@pytest.mark.parametrize("kind", KINDS)
def test_an_upload_that_cannot_come_in_time_is_given_up_early(kind: str) -> None:
    """After a quarter of its time one byte of a thousand has come."""
    limits = BodyLimits(max_upload_bytes=1000, max_held_bytes=1000, max_images=1, max_texts=3, timeout_s=0.2)
    with pytest.raises(UploadTimeout, match=r"of 1000 in [\d.]+ s; it may take 200 ms"):
        read([b"-"], kind, limits=limits, headers={"Content-Length": "1000"}, stalls=True)


@pytest.mark.parametrize("kind", KINDS)
def test_a_client_that_leaves_raises_client_gone(kind: str) -> None:
    with pytest.raises(ClientGone):
        read([f"--{BOUNDARY}\r\n".encode()], kind, leaves=True)


def test_a_body_without_a_length_is_refused_when_the_bytes_in_flight_are_spent():
    limits = BodyLimits(max_upload_bytes=900, max_held_bytes=900, max_images=1, max_texts=3, timeout_s=5.0)
    made = admission()

    async def main() -> None:
        async def receive() -> Message:
            return {"type": "http.request", "body": bytes(100), "more_body": True}

        scope = {"type": "http", "method": "POST", "headers": [(b"content-type", b"image/png")]}
        with Hold(made) as hold:
            await read_body(Request(scope, receive), hold, limits, no_urls())

    made.take_bytes(MAX_BYTES - 250)
    with pytest.raises(Overloaded):
        asyncio.run(main())
    assert made.bytes == MAX_BYTES - 250


@many(200)
@given(
    kind=st.sampled_from(KINDS),
    pieces=st.lists(st.integers(0, 400).map(bytes), min_size=1, max_size=8),
    announced=st.one_of(st.none(), st.integers(0, 2000)),
    ending=st.sampled_from(["complete", "leaves", "stalls", "breaks"]),
    room=st.integers(0, MAX_BYTES),
)
def test_an_upload_never_reserves_over_the_limit_and_gives_everything_back(
    kind: str, pieces: list[bytes], announced: int | None, ending: str, room: int
) -> None:
    limits = BodyLimits(max_upload_bytes=900, max_held_bytes=MAX_BYTES, max_images=1, max_texts=3, timeout_s=0.004)
    made, most = admission(metrics=METRICS), 0
    made.take_bytes(MAX_BYTES - room)
    waiting = list(pieces)

    async def receive() -> Message:
        nonlocal most
        most = max(most, made.bytes)
        if waiting:
            return {"type": "http.request", "body": waiting.pop(0), "more_body": bool(waiting or ending != "complete")}
        if ending == "stalls":
            await asyncio.Event().wait()
        if ending == "breaks":
            raise RuntimeError
        return {"type": "http.disconnect"}

    async def main() -> None:
        length = [] if announced is None else [(b"content-length", str(announced).encode())]
        scope = {"type": "http", "method": "POST", "headers": [(b"content-type", kind.encode()), *length]}
        with Hold(made) as hold:
            await read_body(Request(scope, receive), hold, limits, no_urls())
            assert made.bytes == MAX_BYTES - room + sum(map(len, hold.images))

    with suppress(ServiceError, ClientGone, RuntimeError):
        asyncio.run(main())
    assert most <= MAX_BYTES
    assert made.bytes == MAX_BYTES - room


@settings(deadline=None)
@given(st.binary(min_size=1, max_size=60))
@example(b"[" * 60)
@example(b'{"a": NaN}')
@example(b'{"a": 1' + b"0" * 50 + b"}")
def test_no_json_makes_the_server_fail(data: bytes) -> None:
    found = outcome([data], "application/json")
    assert found[0] in (BadRequest, Invalid) or isinstance(found[0], list)


def test_a_json_object_is_read_under_any_content_type():
    async def main() -> dict[str, object]:
        async def receive() -> Message:
            return {"type": "http.request", "body": b'{"a": 1}'}

        with Hold(admission()) as hold:
            return await read_json(Request({"type": "http", "headers": []}, receive), hold, LIMITS)

    assert asyncio.run(main()) == {"a": 1}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"{'images': []}", r"not JSON: .*line 1 column 2"),
        (b'{"images": ["a\nb"]}', r"not JSON: .*control character.*line 1 column 15"),
        ('{"images": []}'.encode("utf-16"), "UTF-16"),
        ('{"images": []}'.encode("utf-16-be"), "UTF-16"),
        (b"[]", "not an object"),
    ],
)
def test_what_is_wrong_with_json_is_said(data: bytes, message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        read([data], "application/json")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("", "there is no Content-Type; send multipart/form-data with parts named image"),
        ("text/plain", "Content-Type is 'text/plain'; send"),
        ("application/x-www-form-urlencoded", "curl's, unless -H names another"),
    ],
)
def test_a_body_of_another_type_is_told_the_types_that_are_read(kind: str, message: str) -> None:
    with pytest.raises(UnsupportedMedia, match=message):
        read([b"abc"], kind)


@pytest.mark.parametrize("kind", ["image/png", "Multipart/Form-Data; boundary=x"])
def test_a_file_where_json_is_read_is_sent_to_embed(kind: str) -> None:
    async def main() -> None:
        async def receive() -> Message:
            raise AssertionError("the body is read")

        scope = {"type": "http", "path": "/v1/embeddings", "headers": [(b"content-type", kind.encode())]}
        with Hold(admission()) as hold:
            await read_json(Request(scope, receive), hold, LIMITS)

    with pytest.raises(UnsupportedMedia, match="/v1/embeddings takes a JSON object; files go to POST /embed"):
        asyncio.run(main())
