"""Receives request bodies as streams, within their limits. Nothing goes to disk."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO

from starlette.requests import ClientDisconnect, Request

from service.errors import BadRequest, ClientGone, TooLarge, UploadTimeout
from service.http.bodies.inflate import coding_of, inflate
from service.http.bodies.pace import Upload
from service.requests.admission.hold import Hold
from service.watching.timers import TimeLimit


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """hash_images: whether images are known by their digests later."""

    max_upload_bytes: int
    max_held_bytes: int
    max_images: int
    max_texts: int
    timeout_s: float
    max_text_chars: int = 0
    hash_images: bool = False


async def receive(
    request: Request, hold: Hold, limits: BodyLimits, write: Callable[[bytes], object], *, copies: int = 1
) -> None:
    """Passes a body to `write` piece by piece, decoded. Raises `ServiceError` if it is too long or too slow.

    `hold` is charged for each piece before it is written, and for some of an announced body before it comes.
    """
    coding = coding_of(request.headers)
    if coding is None:
        await _receive(request, hold, limits, write, copies)
        return
    # A coded body is decoded when all of it has come. Otherwise a client could hold much with a few bytes, and stall.
    coded = BytesIO()
    await _receive(request, hold, limits, coded.write, copies=1)
    pieces, decoded = inflate(coded.getvalue(), coding), 0
    while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
        decoded += len(piece)
        if decoded > limits.max_upload_bytes:
            raise too_many_bytes(limits.max_upload_bytes, "the decoded body")
        # Never more than could be admitted, as in `Upload`.
        hold.reserve_bytes(min(coded.tell() + copies * decoded, max(decoded, limits.max_held_bytes)))
        write(piece)
    if not decoded:
        raise BadRequest("the decoded body is empty")


async def _receive(
    request: Request, hold: Hold, limits: BodyLimits, write: Callable[[bytes], object], copies: int
) -> None:
    announced = request.headers.get("content-length")
    upload = Upload(
        announced_bytes=None if announced is None else int(announced),
        copies=copies,
        max_bytes=limits.max_upload_bytes,
        max_held_bytes=limits.max_held_bytes,
        timeout_s=limits.timeout_s,
    )
    began_s = time.monotonic()
    received = 0
    hold.reserve_bytes(upload.held_bytes(0))
    try:
        with TimeLimit(began_s + upload.limit_s(0)) as limit:
            async for piece in request.stream():
                received += len(piece)
                if received > limits.max_upload_bytes:
                    raise too_many_bytes(limits.max_upload_bytes)
                hold.reserve_bytes(upload.held_bytes(received))
                write(piece)
                if received != upload.announced_bytes:
                    limit.move(began_s + upload.limit_s(received))
    except TimeoutError:
        raise UploadTimeout(
            f"the body comes too slowly: {received} bytes of {announced or 'an unknown number'} in "
            f"{upload.limit_s(received):.1f} s; it may take {limits.timeout_s * 1000:.0f} ms (upload_timeout_ms)"
        ) from None
    except ClientDisconnect:
        raise ClientGone from None
    if not received:
        raise BadRequest("the body is empty")


def too_many_bytes(max_upload_bytes: int, what: str = "the body") -> TooLarge:
    return TooLarge(
        f"{what} is over {max_upload_bytes} bytes, the most a request may have (max_upload_bytes)",
        reason="too_many_bytes",
    )


def check_text_count(texts: int, limits: BodyLimits) -> None:
    """Raises `TooLarge` for more texts than one request may have."""
    if texts > limits.max_texts:
        raise TooLarge(
            f"the request has more than {limits.max_texts} texts (max_texts_per_request)",
            param="texts",
            reason="too_many_texts",
        )
