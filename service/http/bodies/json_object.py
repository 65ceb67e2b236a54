"""Bodies that are a JSON object."""

import asyncio
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from io import BytesIO
from typing import Any

import orjson
from starlette.requests import Request

from model.images import container
from service.errors import BadRequest, Invalid, UnsupportedMedia
from service.http.bodies.receive import BodyLimits, receive
from service.requests.admission.hold import Hold

# JSON exists three times while it is parsed: as it came, as the parser's copy, and as strings. Measured: 2.99 times.
_JSON_COPIES = 3
# Each JSON value becomes an object of up to 100 bytes. An image or a text needs one value, or in messages a dozen; the
# ids of a text are as many values.
_MAX_JSON_VALUES, _JSON_VALUES_AN_IMAGE, _JSON_VALUES_A_TEXT = 1024, 16, 24
# A body of no more than so many bytes and values is parsed where it is, in 0.4 ms at most. A thread would cost more.
_MOST_INLINE, _MOST_VALUES_INLINE = 192 * 1024, 1000
# Bytes that are looked through at a time.
_BLOCK = 4096
_UTF16_MARKS = (BOM_UTF16_BE, BOM_UTF16_LE)


async def read_json(request: Request, hold: Hold, limits: BodyLimits) -> dict[str, Any]:
    """Reads a JSON object under any Content-Type but that of a file. A field that is null is left out, and 64.0 is 64.

    Afterwards `hold` is charged for its bytes.
    """
    kind = request.headers.get("content-type", "").lower()
    if kind.startswith(("multipart/", "image/")):
        raise UnsupportedMedia(f"{request.scope['path']} takes a JSON object; files go to POST /embed")
    data = BytesIO()
    count = ValueCount(
        _MAX_JSON_VALUES + _JSON_VALUES_AN_IMAGE * limits.max_images + _JSON_VALUES_A_TEXT * limits.max_texts
    )

    def write(piece: bytes) -> None:
        if not data.tell() and (format := container.sniff(piece)):
            raise BadRequest(
                f"the body is no JSON but the file of a {format}; POST /embed takes it as Content-Type: image/*"
            )
        count.add(piece)
        data.write(piece)

    await receive(request, hold, limits, write, copies=_JSON_COPIES)
    size = data.tell()
    small = size <= _MOST_INLINE and count.found <= _MOST_VALUES_INLINE
    content = parse_object(data.getvalue()) if small else await asyncio.to_thread(parse_object, data.getvalue())
    hold.reserve_bytes(size)
    return content


class ValueCount:
    """Bounds how many values JSON can have, before it is parsed, by counting the signs that separate them."""

    def __init__(self, most: int) -> None:
        self._most, self.found = most, 0
        self._in_string = False
        self._held_back = b""  # a backslash whose next character has not come

    def add(self, piece: bytes) -> None:
        """Counts the signs outside strings. piece: the next part of the JSON, cut anywhere. Raises `Invalid`."""
        # Base64 has none, and is read at a tenth of the cost without a search for two characters.
        if self._held_back or b"\\" in piece:
            piece = (self._held_back + piece).replace(rb"\\", b"")
            self._held_back = piece[-1:] if piece.endswith(b"\\") else b""
            piece = piece.removesuffix(b"\\").replace(rb"\"", b"")
        for at in range(0, len(piece), _BLOCK):
            # A search takes a tenth of splitting, and base64 has nothing to be found.
            if not self._in_string or piece.find(b'"', at, at + _BLOCK) >= 0:
                self._count(piece[at : at + _BLOCK])
        if self.found > self._most:
            raise Invalid(f"the JSON has more than {self._most} values")

    def _count(self, block: bytes) -> None:
        """block: without escapes."""
        parts = block.split(b'"')
        for part in parts[self._in_string :: 2]:
            self.found += len(part) - len(part.translate(None, b",[{"))
        self._in_string ^= len(parts) % 2 == 0


def parse_object(data: bytes) -> dict[str, Any]:
    """Raises `BadRequest` for what is no JSON object."""
    if b"\0" in data[:2] or data.startswith(_UTF16_MARKS):
        raise BadRequest("the body is not JSON in UTF-8; it looks like UTF-16")
    try:
        # RFC 8259 lets a reader ignore the mark, which some clients write. A slice of a view is no copy.
        content = orjson.loads(memoryview(data)[len(BOM_UTF8) :] if data.startswith(BOM_UTF8) else data)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"the body is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise BadRequest("the body is JSON, but not an object")
    _settle(content)
    return content


def _settle(content: dict[str, Any]) -> None:
    """Removes every field that is null, and makes every whole number an int, at any depth.

    64.0 is an integer to JSON Schema, and what serializers of maps, tables and floating-point languages write for 64.
    So is 1e26, and an integer of more than 64 bits comes as such a float: its last digits are lost, and no bound needs
    them. A loop, because JSON may nest deeper than Python calls.
    """
    left: list[Any] = [content]
    while left:
        each = left.pop()
        if isinstance(each, dict):
            for name in [name for name, value in each.items() if value is None]:
                del each[name]
            for name, value in each.items():
                if isinstance(value, float):
                    each[name] = _whole(value)
            left += each.values()
        elif isinstance(each, list):
            if any(isinstance(value, float) for value in each):
                each[:] = [_whole(value) if isinstance(value, float) else value for value in each]
            left += each


def _whole(number: float) -> float:
    return int(number) if number.is_integer() else number
