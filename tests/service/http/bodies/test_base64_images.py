"""Base64 and data URIs: read as WHATWG's standards say, or refused by what is wrong and where."""

import base64
import re
import tracemalloc

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from service.errors import BadRequest, Invalid
from service.http.bodies import base64_images
from service.http.bodies.base64_images import decode_base64_image, read_images
from tests.examples import many
from tests.service.running import no_urls


@given(st.binary(max_size=100))
def test_base64_is_read_with_or_without_a_data_uri(data: bytes) -> None:
    text = base64.b64encode(data).decode()
    assert decode_base64_image(text, index=0, param="images") == data
    assert decode_base64_image(f"data:image/png;base64,{text}", index=0, param="images") == data


@pytest.mark.parametrize("size", [786_431, 786_432, 786_433, 2_000_000])
def test_long_base64_is_read_across_its_pieces(size: int) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    text = base64.b64encode(data[:size]).decode()
    assert decode_base64_image(text, index=0, param="images") == data[:size]


def fetched(url: str) -> bytes | None:
    """The body of a base64 data URI by the letter of WHATWG's URL and Fetch standards. None for a failure."""
    url = re.sub(r"[\t\n\r]", "", url.strip("".join(map(chr, range(33))))).partition("#")[0]
    assert url[:5].lower() == "data:"
    kind, comma, encoded = url[5:].partition(",")
    if not comma or not re.search(r"; *base64\Z", kind.strip("\t\n\f\r "), re.ASCII | re.IGNORECASE):
        return None
    # Percent-decode.
    body, data, at = encoded.encode(), bytearray(), 0
    while at < len(body):
        escape = re.match(rb"%([0-9A-Fa-f]{2})", body[at : at + 3])
        data.append(int(escape[1], 16) if escape else body[at])
        at += 3 if escape else 1
    # Forgiving-base64 decode.
    text = re.sub("[\t\n\f\r ]", "", data.decode("latin-1"))
    if len(text) % 4 == 0:
        text = re.sub("={1,2}\\Z", "", text)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    if len(text) % 4 == 1 or set(text) - set(alphabet):
        return None
    bits = "".join(f"{alphabet.index(character):06b}" for character in text)
    return bytes(int(bits[at : at + 8], 2) for at in range(0, len(bits) - 7, 8))


HEADS = st.one_of(
    st.sampled_from(
        [
            "data:image/png;base64", "DATA:IMAGE/PNG;BASE64", "data:;base64", "data:text/plain;charset=utf-8;base64",
            " \n\0data:image/png; base64", "data:image/png;\tbase64 ", "data: ;  base64\f", "data:image/png;ba\nse64",
            "data:base64", "data:image/png", "data:a;base64;x", "data:#;base64", "data:;baſe64", "data:a;base64x",
        ]
    ),
    st.text("dat:;base64 \n#,", max_size=12).map("data:".__add__),
)  # fmt: skip
NOISE = st.sampled_from(
    [
        "\n", "\r\n", " ", "\t", "\f", "\0", "%2B", "%2f", "%3D", "%0A", "%20", "%41", "%", "%%2", "%2\nB", "=", "==",
        "-", "_", "#", ",", "é", "A",
    ]
)  # fmt: skip
BODIES = st.lists(st.one_of(NOISE, st.binary(max_size=7).map(lambda data: base64.b64encode(data).decode())), max_size=9)


@many(1000)
@given(head=HEADS, body=BODIES.map("".join), piece=st.sampled_from([4, 8, 1024**2]))
@example(head="data:;base64", body="ab==abcd", piece=4)
@example(head="data:;base64", body="ab=", piece=4)
@example(head="data:;base64", body="a===", piece=4)
@example(head="data:;base64", body="ab==", piece=4)
@example(head="data:;base64", body="abcd%2\nB%2\r\nFab%3D%3D\0 ", piece=4)
def test_a_data_uri_is_read_as_fetch_reads_it(head: str, body: str, piece: int) -> None:
    uri = f"{head},{body}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base64_images, "_PIECE", piece)
        try:
            found: bytes | None = decode_base64_image(uri, index=0, param="images")
        except BadRequest:
            found = None
    assert found == fetched(uri)


@given(data=st.binary(max_size=60), columns=st.integers(1, 30), piece=st.sampled_from([4, 8, 1024**2]))
def test_bare_base64_may_come_in_lines(data: bytes, columns: int, piece: int) -> None:
    text = base64.b64encode(data).decode()
    lines = "\r\n".join(text[at : at + columns] for at in range(0, len(text), columns)) + "\n"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base64_images, "_PIECE", piece)
        assert decode_base64_image(lines, index=0, param="images") == data


def test_padding_where_a_piece_ends_does_not_end_the_text_before_its_end() -> None:
    text = "A" * (base64_images._PIECE - 2) + "=="
    assert len(decode_base64_image(text, index=0, param="images")) == len(text) // 4 * 3 - 2
    with pytest.raises(BadRequest, match=f"character {len(text) - 2} is '=', which only ends base64"):
        decode_base64_image(text + "AAAA", index=0, param="images")


JPEG_START = "/9j/4AAQSkZJRgABAQ"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("photos/cat.jpg", "the path of a file"),
        ("/home/me/a photo", "the path of a file"),
        ("C:/photos/cat", "the path of a file"),
        (r"..\cat", "the path of a file"),
        ("file:///home/me/cat.png", "the path of a file"),
        (f"b'{JPEG_START}=='", "Python's bytes"),
        (f"{JPEG_START}-A", "character 18 is '-', of the URL-safe alphabet"),
        (f"{JPEG_START}_A", "character 18 is '_', of the URL-safe alphabet"),
        (f"{JPEG_START} A", r"character 18 is ' ' \(forms make spaces of \+\)"),
        (f"{JPEG_START}%3D", "character 18 is '%'; only data URIs are percent-decoded"),
        (f"{JPEG_START}=A", "character 18 is '=', which only ends base64"),
        (JPEG_START, "its length or padding is wrong"),
        (f"{JPEG_START}=", "its length or padding is wrong"),
        (f"{JPEG_START}====", "its length or padding is wrong"),
        (f"{JPEG_START}🙂", r"character 18 is '\\U0001f642'"),
        ("data:image/png,abcd", "a data URI without ;base64"),
        ("data:image/svg+xml;utf8,<svg/>", "a data URI without ;base64"),
        ("data:image/png;base64", "a data URI without ;base64"),
        (f"data:image/png;base64,data:image/png;base64,{JPEG_START}", "begins with data: again"),
        (f"data:image/png;base64,{JPEG_START}-A", "character 40 is '-', of the URL-safe alphabet"),
        (f"data:image/png;base64,{JPEG_START}%2-", "its length or padding is wrong|character 42 is '-'"),
        (f"data:image/png;base64,{JPEG_START}ABC", "its length or padding is wrong"),
    ],
)
def test_a_message_says_what_is_wrong_and_where(text: str, message: str) -> None:
    with pytest.raises(BadRequest, match=f"^the image is not base64: .*{message}") as caught:
        decode_base64_image(text, index=7, param="images")
    assert (caught.value.index, caught.value.param) == (7, "images")


def test_the_first_wrong_character_of_a_long_text_is_found() -> None:
    text = "A" * (2 * base64_images._PIECE + 1) + "*" + "A" * 100
    with pytest.raises(BadRequest, match=f"character {2 * base64_images._PIECE + 1} is '\\*'$"):
        decode_base64_image(text, index=0, param="images")


@pytest.mark.parametrize("name", ["url", "image"])
def test_an_image_may_be_the_only_value_of_an_object(name: str) -> None:
    assert decode_base64_image({name: "data:image/png;base64,YWJj"}, index=0, param="images") == b"abc"


@pytest.mark.parametrize(
    "given",
    [None, 1, ["YWJj"], {}, {"path": "YWJj"}, {"url": {"url": "YWJj"}}, {"url": "YWJj", "detail": "low"}],
)
def test_what_is_no_text_is_refused(given: object) -> None:
    with pytest.raises(Invalid, match="an image is a base64 string, a data URI, or an object") as caught:
        decode_base64_image(given, index=7, param="images")
    assert (caught.value.index, caught.value.param) == (7, "images")


@pytest.mark.parametrize("head", ["", "data:image/png;base64,"])
def test_text_in_lines_is_decoded_without_another_copy_of_it(head: str) -> None:
    size = 8 * 1024**2
    text = head + base64.encodebytes(bytes(size)).decode()
    tracemalloc.start()
    try:
        assert len(decode_base64_image(text, index=0, param="images")) == size
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # The decoded bytes, their buffer's room to grow, and a few pieces of 1 MiB.
    assert peak < 1.2 * size + 8 * 1024**2


@pytest.mark.parametrize("text", ["*", "a", "ab=c", "ü", "data:image/png,abcd", "data:image/png;base64,*", "data:"])
def test_invalid_base64_is_a_bad_request_with_its_index(text: str) -> None:
    with pytest.raises(BadRequest) as caught:
        decode_base64_image(text, index=7, param="images")
    assert (caught.value.index, caught.value.param) == (7, "images")


def test_base64_is_let_go_while_it_is_decoded() -> None:
    texts = [base64.b64encode(bytes(300_000)).decode() for _ in range(10)]
    texts = [f"{text[:-4]}{number:04d}" for number, text in enumerate(texts)]
    tracemalloc.start()
    try:
        held: list[object] = [text + "" for text in ("".join(list(text)) for text in texts)]
        texts.clear()
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        images, urls, faults = read_images(held, "images", no_urls())
        assert sum(map(len, images)) == 3_000_000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - before < 1_500_000
    assert held == [None] * 10
    assert (urls, faults) == ({}, {})
