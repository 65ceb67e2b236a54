"""Bodies that are a JSON object."""

import asyncio
from io import BytesIO
from typing import Any

import orjson
from starlette.requests import Request

from service.errors import BadRequest, Invalid
from service.http.bodies.receive import BodyLimits, receive
from service.requests.admission import Hold

# JSON exists three times while it is parsed: as it came, as the parser's copy, and as strings. Measured: 2.99 times.
_JSON_COPIES = 3
# Each JSON value becomes an object of up to 100 bytes. An image needs one value, or in messages a dozen.
_MAX_JSON_VALUES, _JSON_VALUES_AN_IMAGE = 1024, 16


async def read_json(request: Request, hold: Hold, limits: BodyLimits) -> dict[str, Any]:
    """Reads a JSON object, whatever the Content-Type. Afterwards `hold` is charged for its bytes."""
    data = BytesIO()
    count = _ValueCount(_MAX_JSON_VALUES + _JSON_VALUES_AN_IMAGE * limits.max_images)

    def write(piece: bytes) -> None:
        count.add(piece)
        data.write(piece)

    await receive(request, hold, limits, write, copies=_JSON_COPIES)
    size = data.tell()
    content = await asyncio.to_thread(_parse_object, data.getvalue())
    hold.reserve_bytes(size)
    return content


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
