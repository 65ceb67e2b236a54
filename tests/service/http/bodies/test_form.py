"""Forms as browsers, tutorials and old libraries write them."""

import re

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from python_multipart.multipart import parse_options_header

from service.errors import BadRequest, Invalid, ServiceError
from service.http.bodies.form import named_by, read_content_type
from tests.service.http.bodies.test_body import BOUNDARY, CUTS, END, IMAGE, Read, form, outcome, part, read, split

KIND = f"multipart/form-data; boundary={BOUNDARY}"
LINE = f"--{BOUNDARY}".encode()
PICTURE = b"\xff\xd8 no text"
NAMES = ["image", "images", "image[]", "images[]", "file", "files", "file[]", "files[]", "images[0]", "file[12]"]


def disposition(name: str, rest: str = "") -> bytes:
    return f'Content-Disposition: form-data; name="{name}"{rest}'.encode()


def read_form(*parts: bytes) -> Read:
    return read([b"".join(parts) + END], KIND)


PREAMBLES = st.lists(
    st.sampled_from(
        [
            b"\r",
            b"\n",
            b"\r\n",
            b"--",
            b"-",
            b" ",
            LINE,
            LINE[:-1],
            LINE + b"x\r\n",
            b"text",
            b"MIME-Version: 1.0\r\n\r\n",
        ]
    ),
    max_size=6,
).map(b"".join)


@settings(deadline=None)
@given(preamble=PREAMBLES, padding=st.sampled_from([b"", b" ", b"\t \t", b" " * 256]), cuts=CUTS)
@example(preamble=b"a" * 1000, padding=b" " * 256, cuts=list(range(1, 1600)))
def test_a_preamble_and_padding_behind_boundaries_are_ignored(preamble: bytes, padding: bytes, cuts: list[int]) -> None:
    data = form([("image", PICTURE), ("max_tokens", b"3"), ("image", b"")])
    # A line of it that is a boundary would be the first one.
    assume(not re.search(rb"\n%s(--|[ \t]*\r?\n)" % LINE, b"\n" + preamble))
    padded = preamble + b"|\r\n" + data.replace(LINE + b"\r\n", LINE + padding + b"\r\n")
    assert outcome(split(padded, cuts), KIND) == outcome([data], KIND)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (form([("image", PICTURE)]).replace(b"\r\n", b"\n"), "end in LF; they end in CRLF"),
        (form([("image", PICTURE)], boundary="another"), "no line with the boundary"),
        (LINE + b" " * 257 + b"\r\n" + IMAGE + b"\r\n\r\nabc\r\n" + END[:-4], "no line with the boundary"),
        (part(IMAGE + b"\r\nContent-Transfer-Encoding: base64") + END, "Content-Transfer-Encoding 'base64'"),
    ],
)
def test_a_malformed_form_is_told_what_is_wrong(data: bytes, what: str) -> None:
    with pytest.raises(BadRequest, match=what):
        read([data], KIND)


def test_a_form_without_parts_may_have_a_preamble() -> None:
    assert read([b"text\r\n" + LINE + b"--"], KIND).images == []


@pytest.mark.parametrize("encoding", [b"binary", b"8BIT", b"7bit "])
def test_an_encoding_that_changes_nothing_is_ignored(encoding: bytes) -> None:
    assert read_form(part(IMAGE + b"\r\nContent-Transfer-Encoding: " + encoding, PICTURE)).images == [PICTURE]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "rest", ["", '; filename="a.png"', "; filename*=utf-8''%D1%84.png", "\r\nContent-Type: image/png"]
)
def test_a_part_of_a_usual_name_is_an_image(name: str, rest: str) -> None:
    body = read_form(part(disposition(name, rest), PICTURE), part(disposition("max_tokens"), b"3"))
    assert (body.images, body.fields) == ([PICTURE], [("max_tokens", "3")])


def test_images_of_all_names_keep_their_order() -> None:
    parts = [part(disposition(name, '; filename="a"'), name.encode()) for name in NAMES[:3]]
    assert read_form(*parts).images == [name.encode() for name in NAMES[:3]]


@pytest.mark.parametrize("name", ["image", "file", "images[]"])
@pytest.mark.parametrize(
    "text",
    ["photo.jpg", " /home/me/фото.jpg\n", "data:image/png;base64," + "A" * 5000, "iVBORw0KGgo" * 1000, '["abc"]'],
)
def test_a_text_in_an_images_place_is_refused_by_what_it_is(name: str, text: str) -> None:
    with pytest.raises(Invalid, match=r"is the text .*-F image=@photo\.jpg") as caught:
        read_form(part(disposition(name), text.encode()))
    assert (caught.value.param, caught.value.index) == (name, 0)
    assert len(caught.value.message) < 300


@pytest.mark.parametrize("content", [b"\0", b"GIF89a\0\0", b"II*\0", b"RIFF\x10\0\0\0WEBP", b"\xff" + b"A" * 99])
def test_what_is_no_text_is_left_to_the_decoder(content: bytes) -> None:
    assert read_form(part(disposition("image"), content)).images == [content]


@pytest.mark.parametrize("name", ["image", "file"])
def test_a_browsers_input_without_a_file_is_said_to_be_that(name: str) -> None:
    empty = part(disposition(name, '; filename=""') + b"\r\nContent-Type: application/octet-stream", b"")
    with pytest.raises(Invalid, match=f"no file was chosen for the form's input '{name}'") as caught:
        read_form(empty)
    assert caught.value.param == name
    assert read_form(empty, part(IMAGE, PICTURE), empty).images == [PICTURE]


def test_an_image_of_another_name_is_told_the_name() -> None:
    with pytest.raises(Invalid, match="the part 'photo' has an image's type; .* named image") as caught:
        read_form(part(disposition("photo", '; filename="a.png"') + b"\r\nContent-Type: image/png", PICTURE))
    assert caught.value.param == "photo"


def test_a_pages_charset_is_no_parameter() -> None:
    body = read_form(part(disposition("_charset_"), b"utf-8"), part(IMAGE, PICTURE))
    assert (body.images, body.fields) == ([PICTURE], [])


@settings(deadline=None)
@given(name=st.sampled_from([*NAMES, "other"]), rest=st.sampled_from(["", '; filename=""', '; filename="a"']),
       content=st.binary(max_size=80), cuts=CUTS)  # fmt: skip
def test_any_part_reads_the_same_in_any_pieces(name: str, rest: str, content: bytes, cuts: list[int]) -> None:
    data = part(disposition(name, rest), content) + END
    whole = outcome([data], KIND)
    assert outcome(split(data, cuts), KIND) == whole
    assert isinstance(whole[0], list) or issubclass(whole[0], ServiceError)  # type: ignore[arg-type]


@pytest.mark.parametrize("ending", [b"y", b"-y", b"\ry"])
def test_content_full_of_what_only_begins_like_a_boundary_is_refused(ending: bytes) -> None:
    """The parser looks at each for microseconds, and a megabyte of gzip could hold millions."""
    with pytest.raises(BadRequest, match="too many places that begin no part"):
        read_form(part(IMAGE, (b"\r\n" + LINE + ending) * 2100))
    content = (b"\r\n" + LINE + ending) * 1900
    assert read_form(part(IMAGE, content)).images == [content]


PIECES = st.lists(
    st.sampled_from(
        ["form-data", "multipart/form-data", "; ", ";", " ", 'name="', "name=", 'filename="', "filename*=", "boundary=",
         '"', "\\", "\\\\", "=", "a", "C:", "é", "image", "x.jpg", "*", ",", "--b", "\t", "A"]
    ),
    max_size=9,
).map("".join)  # fmt: skip


@settings(max_examples=300)
@given(PIECES)
@example('form-data; name="image"; filename="a;b=c.jpg"')
@example('form-data; name="filename*"')
@example('form-data;name="";filename=""')
@example('form-data; name="a"; filename="C:\\x.jpg"')
@example("multipart/form-data; boundary=----WebKitFormBoundary7MA4YWxkTrZu0gW")
@example("multipart/form-data;boundary=b")
def test_usual_headers_are_read_as_the_library_reads_any(header: str) -> None:
    kind, options = parse_options_header(header)
    assert read_content_type(header) == (kind, options.get(b"boundary", b""))
    value = header.encode("latin-1")
    encoded = b"*" if b"filename*" in value else None
    assert named_by(value) == (options.get(b"name", b""), options.get(b"filename", encoded))
