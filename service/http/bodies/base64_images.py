"""Images as text: base64, or data URIs."""

import asyncio
import binascii
from collections.abc import Sequence
from typing import Any

from service.errors import BadRequest, Invalid
from service.requests.admission import Hold

# Base64 is decoded in pieces of this many characters: each holds the interpreter's lock, which other threads need.
_BASE64_PIECE = 1024**2


async def keep_base64_images(hold: Hold, encoded: list[Any], param: str, texts: Sequence[str] = ()) -> None:
    """Decodes the images in a thread and gives them to `hold`, beside texts. Empties `encoded`.

    Raises as `decode_base64_image`.
    """
    hold.keep(await asyncio.to_thread(decode_base64_images, encoded, param) if encoded else [], texts)


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
