"""Reads request bodies as streams into memory, within their limits. Nothing goes to disk.

Images come as `multipart/form-data`, as a raw `image/*` body, or as base64 in JSON. Nothing here looks into them.
"""

import asyncio
import binascii
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import orjson
from python_multipart.multipart import parse_options_header
from starlette.requests import ClientDisconnect, Request

from service.errors import BadRequest, ClientGone, Invalid, TooLarge, UnsupportedMedia, UploadTimeout
from service.http.form import Form, check_count
from service.http.pace import Upload
from service.requests.admission import Hold

_FORMS = "multipart/form-data with parts named image, a raw body with an image/* type, or application/json"
# JSON exists three times while it is parsed: as it came, as the parser's copy, and as strings. Measured: 2.99 times.
_JSON_COPIES = 3
# Each JSON value becomes an object of up to 100 bytes. An image needs one value, or in messages a dozen.
_MAX_JSON_VALUES, _JSON_VALUES_AN_IMAGE = 1024, 16
# Base64 is decoded in pieces of this many characters: each holds the interpreter's lock, which other threads need.
_BASE64_PIECE = 1024**2


@dataclass(frozen=True, slots=True)
class BodyLimits:
    max_upload_bytes: int
    max_held_bytes: int
    max_images: int
    timeout_s: float


@dataclass(slots=True)
class Body:
    """The parameters of a body. fields: a form's, in order. json: those of a JSON object."""

    fields: list[tuple[str, str]] = field(default_factory=list)
    json: dict[str, Any] = field(default_factory=dict)


async def read_body(request: Request, hold: Hold, limits: BodyLimits) -> Body:
    """Reads a body of any of the three kinds. Afterwards `hold` has its images and is charged for nothing else.

    Raises `ServiceError`, and `ClientGone` if the client leaves.
    """
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind == b"multipart/form-data":
        form = Form(options.get(b"boundary", b""), max_images=limits.max_images)
        await _receive(request, hold, limits, form.write)
        form.close()
        hold.keep_images(form.images)
        return Body(fields=form.fields)
    if kind == b"application/json":
        content = await read_json(request, hold, limits)
        texts = content.pop("images", None)
        if not isinstance(texts, list):
            raise Invalid("images is a list of base64 strings or data URIs", param="images")
        check_count(len(texts), limits.max_images)
        await keep_base64_images(hold, texts, "images")
        return Body(json=content)
    if kind.startswith(b"image/") or kind == b"application/octet-stream":
        data = BytesIO()
        await _receive(request, hold, limits, data.write)
        # `getvalue()` of an unshared BytesIO returns its buffer without copying.
        hold.keep_images([data.getvalue()])
        return Body()
    raise UnsupportedMedia(f"Content-Type is {kind[:100].decode('latin-1')!r}; images come as {_FORMS}")


async def read_json(request: Request, hold: Hold, limits: BodyLimits) -> dict[str, Any]:
    """Reads a JSON object, whatever the Content-Type. Afterwards `hold` is charged for its bytes."""
    data = BytesIO()
    count = _ValueCount(_MAX_JSON_VALUES + _JSON_VALUES_AN_IMAGE * limits.max_images)

    def write(piece: bytes) -> None:
        count.add(piece)
        data.write(piece)

    await _receive(request, hold, limits, write, copies=_JSON_COPIES)
    size = data.tell()
    content = await asyncio.to_thread(_parse_object, data.getvalue())
    hold.reserve_bytes(size)
    return content


async def _receive(
    request: Request, hold: Hold, limits: BodyLimits, write: Callable[[bytes], object], *, copies: int = 1
) -> None:
    """Passes a body to `write` piece by piece. Raises `ServiceError` if it is too long or too slow.

    `hold` is charged for each piece before it is written, and for some of an announced body before it comes.
    """
    announced = request.headers.get("content-length")
    upload = Upload(
        announced_bytes=None if announced is None else int(announced),
        copies=copies,
        max_bytes=limits.max_upload_bytes,
        max_held_bytes=limits.max_held_bytes,
        timeout_s=limits.timeout_s,
    )
    began_s = asyncio.get_running_loop().time()
    received = 0
    hold.reserve_bytes(upload.held_bytes(0))
    try:
        async with asyncio.timeout_at(began_s + upload.limit_s(0)) as timer:
            async for piece in request.stream():
                received += len(piece)
                if received > limits.max_upload_bytes:
                    raise too_many_bytes(limits.max_upload_bytes)
                hold.reserve_bytes(upload.held_bytes(received))
                write(piece)
                timer.reschedule(began_s + upload.limit_s(received))
    except TimeoutError:
        raise UploadTimeout(
            f"the body comes too slowly: {received} bytes of {announced or 'an unknown number'} in "
            f"{upload.limit_s(received):.1f} s; it may take {limits.timeout_s * 1000:.0f} ms (upload_timeout_ms)"
        ) from None
    except ClientDisconnect:
        raise ClientGone from None
    if not received:
        raise BadRequest(f"the body is empty; images come as {_FORMS}")


def too_many_bytes(max_upload_bytes: int) -> TooLarge:
    return TooLarge(
        f"the body is over {max_upload_bytes} bytes, the most a request may have (max_upload_bytes)",
        reason="too_many_bytes",
    )


class _ValueCount:
    """Bounds how many values JSON can have, before it is parsed, by counting the signs that separate them."""

    def __init__(self, most: int) -> None:
        self._most, self._found = most, 0

    def add(self, piece: bytes) -> None:
        """Raises `Invalid`. Signs inside strings count too: base64 has none, and other strings are short."""
        self._found += len(piece) - len(piece.translate(None, b",[{"))
        if self._found > self._most:
            raise Invalid(f"the JSON has more than {self._most} values")


def _parse_object(data: bytes) -> dict[str, Any]:
    try:
        content = orjson.loads(data)
    except orjson.JSONDecodeError:
        raise BadRequest("the body is not JSON") from None
    if not isinstance(content, dict):
        raise BadRequest("the body is JSON, but not an object")
    return content


async def keep_base64_images(hold: Hold, texts: list[Any], param: str) -> None:
    """Decodes the images in a thread and gives them to `hold`. Empties `texts`. Raises as `decode_base64_image`."""
    hold.keep_images(await asyncio.to_thread(decode_base64_images, texts, param))


def decode_base64_images(texts: list[Any], param: str) -> list[bytes]:
    """The bytes of each. Empties `texts` on the way, so that at most one image exists both as text and as bytes."""
    images = []
    for index, text in enumerate(texts):
        images.append(decode_base64_image(text, index=index, param=param))
        texts[index] = None
    return images


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
