"""The parts of a multipart form, collected while it is parsed. Little more than the images is kept in memory."""

from io import BytesIO
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from service.errors import BadRequest, Invalid, TooLarge

_MAX_FIELD_BYTES = 1024
_MAX_FIELDS = 64
_MAX_PART_HEADER_BYTES = 4096


class Form:
    """images: the content of the parts named `image`. fields: name and text of all other parts. Both in order."""

    def __init__(self, boundary: bytes, *, max_images: int) -> None:
        """Raises `BadRequest` for a missing or impossible boundary."""
        if not boundary:
            raise BadRequest("the Content-Type of a multipart body names its boundary; this one does not")
        # The parser refers to the parts and they do not refer to it: without a cycle, all goes at once.
        self._parts = _Parts(max_images)
        self.images, self.fields = self._parts.images, self._parts.fields
        try:
            self._parser = MultipartParser(boundary, self._parts.callbacks())
        except FormParserError:
            raise _malformed() from None

    def write(self, data: bytes) -> None:
        """Takes the next piece of the body. Raises `ServiceError`."""
        try:
            self._parser.write(data)
        except FormParserError:
            raise _malformed() from None

    def close(self) -> None:
        """Raises `BadRequest` for a body that is not complete."""
        if not self._parts.complete:
            raise BadRequest("the multipart body ends before its closing boundary")


class _Parts:
    """What the parser of one form has found so far."""

    def __init__(self, max_images: int) -> None:
        self.images: list[bytes] = []
        self.fields: list[tuple[str, str]] = []
        self.complete = False
        self._max_images = max_images
        self._header_bytes = 0
        self._header_name, self._header_value = bytearray(), bytearray()
        self._name = ""
        self._content = BytesIO()

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
        if self._header_name.lower() == b"content-disposition":
            _, options = parse_options_header(bytes(self._header_value))
            self._name = options.get(b"name", b"").decode("utf-8", "replace")

    def _check_part(self) -> None:
        if not self._name:
            raise BadRequest("a part of the multipart body has no name")
        if self._name == "image":
            check_count(len(self.images) + 1, self._max_images)
        elif len(self.fields) >= _MAX_FIELDS:
            raise Invalid(f"the form has more than {_MAX_FIELDS} fields")

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._name != "image" and self._content.tell() + end - start > _MAX_FIELD_BYTES:
            name, most = self._name[:40], _MAX_FIELD_BYTES
            raise Invalid(f"the form field {name!r} is over {most} bytes; images come in parts named image", param=name)
        self._content.write(memoryview(data)[start:end])

    def _end(self) -> None:
        # `getvalue()` of an unshared BytesIO returns its buffer without copying.
        content = self._content.getvalue()
        if self._name == "image":
            self.images.append(content)
        else:
            self.fields.append((self._name, content.decode("utf-8", "replace")))
        self._content = BytesIO()

    def _finish(self) -> None:
        self.complete = True


def check_count(images: int, max_images: int) -> None:
    """Raises `TooLarge` for more images than one request may have."""
    if images > max_images:
        raise TooLarge(
            f"the request has more than {max_images} images (max_images_per_request)",
            param="image",
            reason="too_many_images",
        )


def _malformed() -> BadRequest:
    return BadRequest("the multipart body is malformed")
