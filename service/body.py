"""Request bodies, read as streams and held in memory under their limits: never on disk, never more than allowed.

Three forms carry images: `multipart/form-data`, a raw `image/*` body, and JSON with base64. Knows nothing of what the
images are.
"""

import asyncio
import binascii
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from service.admission import Hold
from service.errors import BadRequest, ClientGone, Invalid, TooLarge, UnsupportedMedia, UploadTimeout

_FORMS = "multipart/form-data with parts named image, a raw body with an image/* type, or application/json"
_MAX_FIELD_BYTES = 1024
_MAX_FIELDS = 64
# Base64 is decoded in pieces of this many characters, so that no piece keeps other threads waiting for long.
_BASE64_PIECE = 1024**2


@dataclass(frozen=True, slots=True)
class BodyLimits:
    max_upload_bytes: int
    max_images: int
    timeout_s: float


@dataclass(slots=True)
class Body:
    """images: as they were sent. fields: of a form, in order. json: of a JSON object, all but its images."""

    images: list[bytes] = field(default_factory=list)
    fields: list[tuple[str, str]] = field(default_factory=list)
    json: dict[str, Any] = field(default_factory=dict)


async def read_body(request: Request, hold: Hold, limits: BodyLimits) -> Body:
    """Reads a body of any of the three forms. Raises `ServiceError`, and `ClientGone` if the client leaves."""
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind == b"multipart/form-data":
        return await _read_multipart(request, hold, limits, options.get(b"boundary", b""))
    if kind == b"application/json":
        return await asyncio.to_thread(_parse_images_json, await _read_whole(request, hold, limits), limits)
    if kind.startswith(b"image/") or kind == b"application/octet-stream":
        return Body(images=[await _read_whole(request, hold, limits)])
    raise UnsupportedMedia(f"Content-Type is {kind.decode('latin-1')!r}; images come as {_FORMS}")


async def read_json(request: Request, hold: Hold, limits: BodyLimits) -> dict[str, Any]:
    """A JSON object, whatever its Content-Type says."""
    return await asyncio.to_thread(_parse_object, await _read_whole(request, hold, limits))


async def _receive(request: Request, hold: Hold, limits: BodyLimits, write: Callable[[bytes], object]) -> None:
    """Passes a body on piece by piece, cut off at its limit and at its time.

    A body of announced length was taken from `hold` at the gate; one without is taken as it arrives.
    """
    announced = "content-length" in request.headers
    received = 0
    try:
        async with asyncio.timeout(limits.timeout_s):
            async for chunk in request.stream():
                received += len(chunk)
                if received > limits.max_upload_bytes:
                    raise too_many_bytes(limits.max_upload_bytes)
                if not announced:
                    hold.take_bytes(len(chunk))
                write(chunk)
    except TimeoutError:
        took = f"{limits.timeout_s * 1000:.0f} ms (upload_timeout_ms)"
        raise UploadTimeout(f"the body took longer than {took} to arrive") from None
    except ClientDisconnect:
        raise ClientGone from None
    if not received:
        raise BadRequest(f"the body is empty; images come as {_FORMS}")


def too_many_bytes(max_upload_bytes: int) -> TooLarge:
    return TooLarge(f"the body is over {max_upload_bytes} bytes, the most a request may have (max_upload_bytes)")


async def _read_whole(request: Request, hold: Hold, limits: BodyLimits) -> bytes:
    chunks: list[bytes] = []
    await _receive(request, hold, limits, chunks.append)
    return b"".join(chunks)


async def _read_multipart(request: Request, hold: Hold, limits: BodyLimits, boundary: bytes) -> Body:
    if not boundary:
        raise BadRequest("the Content-Type of a multipart body names its boundary; this one does not")
    form = _Form(limits)
    try:
        parser = MultipartParser(boundary, form.callbacks())
        await _receive(request, hold, limits, parser.write)
        parser.finalize()
    except FormParserError:
        raise BadRequest("the multipart body is malformed") from None
    if not form.complete:
        raise BadRequest("the multipart body ends before its closing boundary")
    return form.body


class _Form:
    """Collects the parts of a form as the parser comes upon them."""

    def __init__(self, limits: BodyLimits) -> None:
        self._limits = limits
        self._header_name = self._header_value = b""
        self._name = ""
        self._pieces: list[bytes] = []
        self.body = Body()
        self.complete = False

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
        self._name, self._pieces = "", []

    def _begin_header(self) -> None:
        self._header_name = self._header_value = b""

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _header_more(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _end_header(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            _, options = parse_options_header(self._header_value)
            self._name = options.get(b"name", b"").decode("utf-8", "replace")

    def _check_part(self) -> None:
        if not self._name:
            raise BadRequest("a part of the multipart body has no name")
        if self._name == "image":
            check_count(len(self.body.images) + 1, self._limits)
        elif len(self.body.fields) >= _MAX_FIELDS:
            raise Invalid(f"the form has more than {_MAX_FIELDS} fields")

    def _data(self, data: bytes, start: int, end: int) -> None:
        self._pieces.append(data[start:end])
        if self._name != "image" and sum(map(len, self._pieces)) > _MAX_FIELD_BYTES:
            name, most = self._name[:40], _MAX_FIELD_BYTES
            raise Invalid(f"the form field {name!r} is over {most} bytes; images come in parts named image", param=name)

    def _end(self) -> None:
        content = b"".join(self._pieces)
        if self._name == "image":
            self.body.images.append(content)
        else:
            self.body.fields.append((self._name, content.decode("utf-8", "replace")))
        self._pieces = []

    def _finish(self) -> None:
        self.complete = True


def check_count(images: int, limits: BodyLimits) -> None:
    """Raises `TooLarge` for more images than one request may bring."""
    if images > limits.max_images:
        raise TooLarge(f"the request has more than {limits.max_images} images (max_images_per_request)", param="image")


def _parse_object(data: bytes) -> dict[str, Any]:
    try:
        content = orjson.loads(data)
    except orjson.JSONDecodeError:
        raise BadRequest("the body is not JSON") from None
    if not isinstance(content, dict):
        raise BadRequest("the body is JSON, but not an object")
    return content


def _parse_images_json(data: bytes, limits: BodyLimits) -> Body:
    content = _parse_object(data)
    texts = content.pop("images", None)
    if not isinstance(texts, list):
        raise Invalid("images is a list of base64 strings or data URIs", param="images")
    check_count(len(texts), limits)
    images = [decode_base64_image(text, index=index, param="images") for index, text in enumerate(texts)]
    return Body(images=images, json=content)


def decode_base64_image(text: object, *, index: int, param: str) -> bytes:
    """The bytes of a base64 string or a base64 data URI. Raises `Invalid` or `BadRequest` with the index."""
    if not isinstance(text, str):
        raise Invalid("an image is a base64 string or a data URI", param=param, index=index)
    if text[:8].lower().startswith(("http://", "https://")):
        raise Invalid("images are not fetched from URLs; send a data URI or base64", param=param, index=index)
    start = 0
    if text[:5].lower() == "data:":
        start = text.find(",") + 1
        if not text[:start].lower().endswith(";base64,"):
            raise BadRequest("a data URI of an image begins with data:image/…;base64,", param=param, index=index)
    try:
        pieces = range(start, len(text), _BASE64_PIECE)
        return b"".join(binascii.a2b_base64(text[piece : piece + _BASE64_PIECE], strict_mode=True) for piece in pieces)
    except ValueError:
        raise BadRequest("the image is not valid base64", param=param, index=index) from None
