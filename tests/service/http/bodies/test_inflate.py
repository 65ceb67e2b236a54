"""Bodies with a `Content-Encoding`: decoded within the limits on what they become, or refused by name."""

import asyncio
import base64
import gzip
import json
import threading
import tracemalloc
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import Message

from service.errors import BadRequest, ServiceError, TooLarge, UnsupportedCoding
from service.http.bodies import receive
from service.http.bodies.body import read_body
from service.http.bodies.inflate import coding_of, inflate
from service.http.bodies.receive import BodyLimits
from service.requests.admission.hold import Hold
from tests.service.http.bodies.test_body import BOUNDARY, CUTS, KINDS, METRICS, WIDE, form, outcome, read, split
from tests.service.requests.admission.test_admission import MAX_BYTES, admission
from tests.service.running import no_urls

GZIP = {"Content-Encoding": "gzip"}


def coded(pieces: Sequence[bytes], kind: str, coding: str) -> tuple[object, ...]:
    """As `outcome`, of a body that has a content coding."""
    try:
        body = read(pieces, kind, headers={"Content-Encoding": coding})
    except ServiceError as error:
        return type(error), error.message, error.param
    return body.images, body.fields, body.json


def body_of(kind: str, data: bytes) -> bytes:
    if kind == "application/json":
        return json.dumps({"images": [base64.b64encode(data).decode()], "max_tokens": 3}).encode()
    return form([("image", data), ("max_tokens", b"3")]) if kind.startswith("multipart") else data


DATA = st.one_of(st.binary(min_size=1, max_size=300), st.integers(1, 3000).map(bytes))


@settings(deadline=None)
@given(
    kind=st.sampled_from(KINDS), data=DATA, members=st.lists(st.integers(0, 400), max_size=3),
    level=st.integers(0, 9), cuts=CUTS, coding=st.sampled_from(["gzip", "X-GZip", " gzip , identity"]),
)  # fmt: skip
def test_gzip_reads_as_what_it_was_made_of_in_any_pieces(
    kind: str, data: bytes, members: list[int], level: int, cuts: list[int], coding: str
) -> None:
    body = body_of(kind, data)
    packed = b"".join(gzip.compress(part, level) for part in split(body, members))
    assert coded(split(packed, cuts), kind, coding) == outcome([body], kind)


@settings(deadline=None)
@given(kind=st.sampled_from(KINDS), data=DATA, level=st.integers(0, 9), cuts=CUTS)
def test_deflate_is_the_format_of_zlib(kind: str, data: bytes, level: int, cuts: list[int]) -> None:
    body = body_of(kind, data)
    assert coded(split(zlib.compress(body, level), cuts), kind, "deflate") == outcome([body], kind)


@settings(deadline=None)
@given(data=DATA, cut=st.integers(1, 10**6), coding=st.sampled_from(["gzip", "deflate"]))
def test_a_body_that_is_cut_off_is_said_to_be(data: bytes, cut: int, coding: str) -> None:
    whole = gzip.compress(data) if coding == "gzip" else zlib.compress(data)
    part = whole[: 1 + cut % (len(whole) - 1)]
    with pytest.raises(BadRequest, match=f"the body is not valid {coding}: it is cut off after {len(part)} bytes"):
        b"".join(inflate(part, coding))


@settings(deadline=None)
@given(data=st.binary(min_size=20, max_size=200), at=st.integers(0, 10**6), flip=st.integers(1, 255))
def test_a_broken_body_is_refused_or_becomes_what_it_was(data: bytes, at: int, flip: int) -> None:
    """Some bytes of gzip's header say nothing of the content."""
    broken = bytearray(gzip.compress(data))
    broken[at % len(broken)] ^= flip
    try:
        assert b"".join(inflate(bytes(broken), "gzip")) == data
    except BadRequest as error:
        assert error.message.startswith("the body is not valid gzip: ")  # noqa: PT017


@pytest.mark.parametrize(
    ("packed", "coding", "message"),
    [
        (b"no gzip", "gzip", "not valid gzip: incorrect header check, near byte 0 of 7"),
        (gzip.compress(b"abc", mtime=0) + b"no gzip", "gzip", "not valid gzip: incorrect header check, near byte 23"),
        (gzip.compress(b"abc", mtime=0)[:-8] + bytes(8), "gzip", "not valid gzip: incorrect data check"),
        (gzip.compress(b"abc", mtime=0), "deflate", "not valid deflate: incorrect header check"),
        (zlib.compress(b"abc") * 2, "deflate", "not valid deflate: its data end at byte 11 of 22"),
        (gzip.compress(b"", mtime=0) * 10_001, "gzip", "more than 10000 gzip members"),
        (gzip.compress(b"", mtime=0), "gzip", "the decoded body is empty"),
    ],
)
def test_what_is_wrong_with_a_coded_body_is_said(packed: bytes, coding: str, message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        read([packed], "image/png", limits=WIDE, headers={"Content-Encoding": coding})


@pytest.mark.parametrize("values", [["br"], ["zstd"], ["gzip, gzip"], ["gzip", "br"], ["compress"], ["aws-chunked"]])
def test_another_coding_is_refused_by_the_names_of_those_that_are_read(values: list[str]) -> None:
    headers = Headers(raw=[(b"content-encoding", value.encode()) for value in values])
    with pytest.raises(UnsupportedCoding, match=f"Content-Encoding is '{','.join(values)}'") as caught:
        coding_of(headers)
    assert (caught.value.status, caught.value.headers()) == (415, {"Accept-Encoding": "gzip, deflate"})


@pytest.mark.parametrize("value", ["", "identity", "Identity, identity", ","])
def test_identity_is_no_coding(value: str) -> None:
    assert coding_of(Headers({"Content-Encoding": value})) is None


@pytest.fixture(scope="module")
def bomb() -> bytes:
    """60 MB in 60 kB."""
    return gzip.compress(b"--" + BOUNDARY.encode() + b"\r\n" + b" " * 60_000_000)


@pytest.mark.parametrize("kind", KINDS)
def test_a_bomb_is_refused_at_the_limit_and_never_takes_more(bomb: bytes, kind: str) -> None:
    limits = BodyLimits(max_upload_bytes=2_000_000, max_held_bytes=2_000_000, max_images=3, max_texts=3, timeout_s=60.0)
    tracemalloc.start()
    try:
        with pytest.raises(ServiceError) as caught:
            read([bomb], kind, limits=limits, headers=GZIP)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # The form is refused even earlier: its part has no end of headers.
    assert isinstance(caught.value, BadRequest if kind.startswith("multipart") else TooLarge)
    assert peak < 2 * limits.max_upload_bytes


def test_the_message_of_a_bomb_names_the_setting() -> None:
    with pytest.raises(TooLarge, match="the decoded body is over 100000 bytes.*max_upload_bytes"):
        read([gzip.compress(bytes(200_000))], "image/png", headers=GZIP)


@settings(deadline=None)
@given(
    kind=st.sampled_from(KINDS), sizes=st.lists(st.integers(0, 300_000), min_size=1, max_size=3),
    room=st.integers(0, MAX_BYTES),
)  # fmt: skip
def test_a_coded_body_never_holds_over_the_limit_and_gives_everything_back(
    kind: str, sizes: list[int], room: int
) -> None:
    limits = BodyLimits(max_upload_bytes=400_000, max_held_bytes=MAX_BYTES, max_images=1, max_texts=3, timeout_s=5.0)
    made, most = admission(metrics=METRICS), 0
    made.take_bytes(MAX_BYTES - room)
    waiting = [gzip.compress(bytes(size)) for size in sizes]

    async def body() -> Message:
        return {"type": "http.request", "body": waiting.pop(0), "more_body": bool(waiting)}

    take = made.take_bytes

    def take_bytes(size: int, *, bulk: bool = False) -> None:
        nonlocal most
        take(size, bulk=bulk)
        most = max(most, made.bytes)

    made.take_bytes = take_bytes  # type: ignore[method-assign]

    async def main() -> None:
        scope = {"type": "http", "headers": [(b"content-type", kind.encode()), (b"content-encoding", b"gzip")]}
        with Hold(made) as hold:
            await read_body(Request(scope, body), hold, limits, no_urls())
            assert made.bytes == MAX_BYTES - room + sum(map(len, hold.images))

    with suppress(ServiceError):
        asyncio.run(main())
    assert most <= MAX_BYTES
    assert made.bytes == MAX_BYTES - room


def test_a_body_is_decoded_off_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = set()

    def watched(data: bytes, coding: str) -> Iterator[bytes]:
        for piece in inflate(data, coding):
            threads.add(threading.get_ident())
            yield piece

    monkeypatch.setattr(receive, "inflate", watched)
    assert read([gzip.compress(bytes(90_000))], "image/png", headers=GZIP).images == [bytes(90_000)]
    assert threads
    assert threading.get_ident() not in threads


def test_a_step_makes_a_bounded_piece() -> None:
    assert max(map(len, inflate(gzip.compress(bytes(5_000_000)), "gzip"))) <= 128 * 1024
