"""Responses: large answers in slices, and errors, which get their status here and nowhere else."""

import asyncio
from collections.abc import Iterator, Sequence
from http import HTTPStatus

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.errors import ServiceError, let_go, packlight_error
from service.http.answers import Answer
from service.http.context import RequestContext
from service.http.formats import MEDIA_TYPES, Format

CLIENT_GONE_STATUS = 499
PACKS_HEADER = "Packlight-Packs"
CACHED_HEADER = "X-Cached-Tokens"
_PACKS, _CACHED = PACKS_HEADER.lower().encode(), CACHED_HEADER.lower().encode()
# A request of very many texts may be spread over more.
_NAMED_PACKS = 32
_SLICE_BYTES = 64 * 1024


def error_response(error: ServiceError, context: RequestContext) -> Response:
    """In the dialect of the request, with the status and headers of the error's class."""
    context.error_code, context.refusal = error.code, error.reason
    let_go(error)
    body = orjson.dumps(context.error_body(error))
    return Response(body, error.status, headers=error.headers(), media_type=MEDIA_TYPES["json"])


def error_on_the_wire(error: ServiceError) -> bytes:
    """In our own shape and as bytes, for a connection on which no request could be read. It closes afterwards."""
    body = orjson.dumps(packlight_error(error))
    fields = {"Content-Type": MEDIA_TYPES["json"], "Content-Length": str(len(body)), "Connection": "close"}
    lines = [f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}"]
    lines += [f"{name}: {value}" for name, value in (fields | error.headers()).items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def server_timing(stages_s: dict[str, float]) -> str:
    """The value of a `Server-Timing` header: each stage in milliseconds."""
    return ", ".join([f"{stage};dur={seconds * 1000:.3f}" for stage, seconds in stages_s.items()])


class AnswerResponse(Response):
    """Sends a large answer piece by piece: joining the pieces would make another copy.

    Making it frees the request's place in the queue. From then on the bytes charged are those of the answer.
    """

    def __init__(self, answer: Answer, chosen: Format, context: RequestContext) -> None:
        self.status_code = 200
        headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers.items()]
        headers.append((b"server-timing", server_timing(context.stages_s).encode()))
        headers.append((b"content-length", b"%d" % answer.size))
        if context.pack_ids:
            headers.append((_PACKS, ", ".join(context.pack_ids[:_NAMED_PACKS]).encode()))
        if context.cached_tokens:
            headers.append((_CACHED, b"%d" % context.cached_tokens))
        headers.append((b"content-type", (answer.media_type or MEDIA_TYPES[chosen]).encode()))
        self.raw_headers = headers
        self._pieces = answer.pieces
        context.hold.hand_over(answer.size)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Slices are small: the transport holds what it is handed, and `send` waits only for earlier slices."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        for body, more in _slices(self._pieces):
            await send({"type": "http.response.body", "body": body, "more_body": more})
            if more:
                # With a fast reader `send` never waits, and 74 MB held the loop for up to 7 ms.
                await asyncio.sleep(0)


def _slices(pieces: Sequence[bytes]) -> Iterator[tuple[bytes, bool]]:
    """Each slice to send, and whether more follow. A small answer is one message: a lone caller waits for each."""
    if sum(map(len, pieces)) <= _SLICE_BYTES:
        yield b"".join(pieces), False
        return
    for piece in pieces:
        for start in range(0, len(piece), _SLICE_BYTES):
            yield piece[start : start + _SLICE_BYTES], True
    yield b"", False


def client_gone_response(error: BaseException, context: RequestContext) -> Response:
    """For the log and the metrics only: nobody receives it. nginx logs 499 too."""
    context.error_code = "client_gone"
    let_go(error)
    return Response(status_code=CLIENT_GONE_STATUS)
