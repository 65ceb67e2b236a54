"""The parts of a multipart form, collected while it is parsed. Little more than the images is kept in memory."""

import re
from io import BytesIO
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from service.errors import BadRequest, Invalid, TooLarge
from service.requests.cache.digests import HashedBytes

_MAX_FIELD_BYTES = 1024
_MAX_FIELDS = 64
_MAX_PART_HEADER_BYTES = 4096
# What only begins like a boundary takes the parser 2 µs: with gzip, 64 KiB of it could hold the event loop for 7 s.
_MAX_FALSE_BOUNDARIES = 2000
# Spaces and tabs behind a boundary.
_MAX_PADDING = 256
# `image` is ours. The others are what tutorials and frameworks name a file. PHP, which cannot repeat a name, numbers
# them, as do Dropzone and axios.
_IMAGE_NAME = re.compile(r"(image|file)s?(\[[0-9]{0,4}\])?")
# The two headers as nearly all senders write them. The library reads any, and takes ten times as long.
_USUAL_TYPE = re.compile(r"multipart/form-data; ?boundary=([\w'()+,./:?-]+)", re.ASCII)
_USUAL_DISPOSITION = re.compile(rb'form-data; ?name="([^"\\*]*)"(?:; ?filename="([^"\\]*)")?')
# Enough to tell a text from an image: every format that is read has bytes here that are no text.
_TEXT_BYTES = 64
# Senders should not use others, and none is known to that sends images (RFC 7578, 4.7).
_PLAIN_ENCODINGS = (b"7bit", b"8bit", b"binary")


class Form:
    """images: the content of the parts named as images are. names: of these parts. digests: of each, if they are
    wanted. fields: name and text of all other parts. All in order."""

    def __init__(self, boundary: bytes, *, max_images: int, max_text_bytes: int = 0, hash_images: bool = False) -> None:
        """max_text_bytes: of a form whose fields may be texts. hash_images: digests are wanted. Raises `BadRequest`
        for a missing or impossible boundary."""
        if not boundary:
            raise BadRequest(
                "the Content-Type of a multipart body names its boundary; this one does not. Do not set the header "
                "yourself; HTTP libraries do"
            )
        # The parser refers to the parts and they do not refer to it: without a cycle, all goes at once.
        self._parts = _Parts(max_images, max(_MAX_FIELD_BYTES, max_text_bytes), hash_images)
        self.images, self.digests, self.fields = self._parts.images, self._parts.digests, self._parts.fields
        self.names = self._parts.image_names
        self._preamble: _Preamble | None = _Preamble(boundary)
        self._boundary, self._boundaries_left = b"\n--" + boundary, max_images + _MAX_FIELDS + _MAX_FALSE_BOUNDARIES
        try:
            self._parser = MultipartParser(boundary, self._parts.callbacks())
        except FormParserError:
            raise _malformed() from None

    def write(self, data: bytes) -> None:
        """Takes the next piece of the body. Raises `ServiceError`."""
        if self._preamble is not None:
            data = self._preamble.drop(data)
            if not data:
                return
            self._preamble = None
        self._boundaries_left -= data.count(self._boundary)
        if self._boundaries_left < 0:
            raise BadRequest("the multipart body has its boundary in too many places that begin no part")
        try:
            self._parser.write(data)
        except FormParserError:
            raise _malformed() from None

    def close(self) -> None:
        """Raises `BadRequest` for a body that is not complete, and `Invalid` for a form whose file input was empty."""
        if self._preamble is not None:
            raise BadRequest("the multipart body has no line with the boundary that its Content-Type names")
        if not self._parts.complete:
            raise BadRequest("the multipart body ends before its closing boundary")
        if self._parts.unfilled and not self.images:
            name = self._parts.unfilled[:40]
            raise Invalid(f"no file was chosen for the form's input {name!r}", param=name)


class _Preamble:
    """Text before the first boundary, and padding behind that one (RFC 2046, 5.1.1). The parser refuses both."""

    def __init__(self, boundary: bytes) -> None:
        self._line = b"--" + boundary
        self._usual = self._line + b"\r\n"
        self._rest = b"\n"

    def drop(self, data: bytes) -> bytes:
        """The body from its first boundary on, once that has come, and nothing before. Raises `BadRequest`."""
        # As nearly all begin, and without a copy.
        if self._rest == b"\n" and data.startswith(self._usual):
            return data
        data = self._rest + data
        found = re.search(rb"\n%s(--|[ \t]{0,%d}(\r?\n))" % (re.escape(self._line), _MAX_PADDING), data)
        if found is None:
            self._rest = data[-len(self._line) - _MAX_PADDING - 4 :]
            return b""
        if found[2] == b"\n":
            raise BadRequest("the lines of the multipart body end in LF; they end in CRLF (RFC 2046, 5.1.1)")
        return self._line + (found[2] or b"--") + data[found.end() :]


class _Parts:
    """What the parser of one form has found so far."""

    def __init__(self, max_images: int, max_field_bytes: int, hash_images: bool) -> None:
        self.images: list[bytes] = []
        self.image_names: list[str] = []
        self.digests: list[bytes] = []
        self.fields: list[tuple[str, str]] = []
        self.complete = False
        self._max_images, self._max_field_bytes, self._hash_images = max_images, max_field_bytes, hash_images
        self._header_bytes = 0
        self._header_name, self._header_value = bytearray(), bytearray()
        self._begin()
        # The name of an input of a browser's form without a file.
        self.unfilled = ""

    def callbacks(self) -> Any:
        return {
            "on_part_begin": self._begin,
            "on_header_begin": self._begin_header,
            "on_header_field": self._header_field,
            "on_header_value": self._header_more,
            "on_header_end": self._end_header,
            "on_headers_finished": self._check_part,
            "on_part_data": self._data,
            "on_part_end": self._end,
            "on_end": self._finish,
        }

    def _begin(self) -> None:
        self._name, self._content, self._header_bytes = "", BytesIO(), 0
        self._filename: bytes | None = None
        self._has_image_type = self._is_image = False

    def _begin_header(self) -> None:
        self._header_name.clear()
        self._header_value.clear()

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._bound_header(end - start)
        self._header_name += data[start:end]

    def _header_more(self, data: bytes, start: int, end: int) -> None:
        self._bound_header(end - start)
        self._header_value += data[start:end]

    def _bound_header(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > _MAX_PART_HEADER_BYTES:
            raise BadRequest(f"a part of the multipart body has over {_MAX_PART_HEADER_BYTES} bytes of headers")

    def _end_header(self) -> None:
        name, value = self._header_name.lower(), bytes(self._header_value)
        if name == b"content-disposition":
            field, self._filename = named_by(value)
            self._name = field.decode("utf-8", "replace")
        elif name == b"content-type":
            self._has_image_type = value.lower().startswith(b"image/")
        elif name == b"content-transfer-encoding" and value.strip().lower() not in _PLAIN_ENCODINGS:
            encoding = value[:40].decode("latin-1")
            raise BadRequest(f"a part of the form has Content-Transfer-Encoding {encoding!r}; send it as binary")

    def _check_part(self) -> None:
        self._is_image = _IMAGE_NAME.fullmatch(self._name) is not None
        if not self._name:
            raise BadRequest("a part of the multipart body has no name")
        if self._is_image:
            check_count(len(self.images) + 1, self._max_images)
            if self._hash_images:
                self._content = HashedBytes()
        elif self._has_image_type:
            name = self._name[:40]
            raise Invalid(f"the part {name!r} has an image's type; images come in parts named image", param=name)
        elif len(self.fields) >= _MAX_FIELDS:
            raise Invalid(f"the form has more than {_MAX_FIELDS} fields")

    def _data(self, data: bytes, start: int, end: int) -> None:
        if not self._is_image and self._content.tell() + end - start > self._max_field_bytes:
            name, most = self._name[:40], self._max_field_bytes
            raise Invalid(f"the form field {name!r} is over {most} bytes; images come in parts named image", param=name)
        self._content.write(memoryview(data)[start:end])

    def _end(self) -> None:
        # `getvalue()` of an unshared BytesIO returns its buffer without copying.
        content = self._content.getvalue()
        if not self._is_image:
            # Browsers write the page's encoding in a field of this name (RFC 7578, 4.6).
            if self._name != "_charset_":
                self.fields.append((self._name, content.decode("utf-8", "replace")))
        elif self._filename == b"" and not content:
            self.unfilled = self._name
        else:
            if self._filename is None and not self._has_image_type:
                _check_no_text(self._name, content, index=len(self.images))
            self.images.append(content)
            self.image_names.append(self._name)
            if isinstance(self._content, HashedBytes):
                self.digests.append(self._content.digest())
        self._content = BytesIO()

    def _finish(self) -> None:
        self.complete = True


def read_content_type(value: str) -> tuple[bytes, bytes]:
    """The media type of a body, in lower case, and the boundary of a form, empty if the header names none."""
    if usual := _USUAL_TYPE.fullmatch(value):
        return b"multipart/form-data", usual[1].encode()
    kind, options = parse_options_header(value)
    return kind, options.get(b"boundary", b"")


def named_by(disposition: bytes) -> tuple[bytes, bytes | None]:
    """The name of a part's field, and that of its file: None if it has none, `*` if it is encoded."""
    if usual := _USUAL_DISPOSITION.fullmatch(disposition):
        return usual[1], usual[2]
    _, options = parse_options_header(disposition)
    return options.get(b"name", b""), options.get(b"filename", b"*" if b"filename*" in disposition else None)


def _check_no_text(name: str, content: bytes, *, index: int) -> None:
    """Raises `Invalid` for a text in an image's place, such as the name of a file."""
    try:
        text = content[:_TEXT_BYTES].decode().strip()
    except UnicodeDecodeError:
        return
    if text and text.isprintable():
        raise Invalid(
            f"the part {name} is the text {text!r}, and no file. curl sends a file with @, as in -F image=@photo.jpg; "
            "base64 and data URIs come as JSON",
            param=name,
            index=index,
        )


def check_count(images: int, max_images: int, param: str = "image") -> None:
    """Raises `TooLarge` for more images than one request may have. param: the field that brings them."""
    if images > max_images:
        raise TooLarge(
            f"the request has more than {max_images} images (max_images_per_request)",
            param=param,
            reason="too_many_images",
        )


def _malformed() -> BadRequest:
    return BadRequest("the multipart body is malformed")
