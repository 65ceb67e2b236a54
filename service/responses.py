"""Turns errors into responses: the one place in which an exception gets a status."""

import asyncio

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.answers import MEDIA_TYPES, Answer, Format
from service.context import RequestContext
from service.errors import ClientGone, ServiceError

CLIENT_GONE_STATUS = 499

# How long a client may take to receive its answer.
_PATIENCE_S = 60.0


def error_response(error: ServiceError, context: RequestContext) -> Response:
    """`{"error": {"code", "message", "param", "index"}}` with the status and headers of the error's class."""
    context.error_code = error.code
    body = orjson.dumps({"error": error.body()})
    return Response(body, error.status, headers=error.headers(), media_type=MEDIA_TYPES["json"])


def server_timing(stages_s: dict[str, float]) -> str:
    """The value of a `Server-Timing` header: each stage in milliseconds."""
    return ", ".join(f"{stage};dur={seconds * 1000:.3f}" for stage, seconds in stages_s.items())


class AnswerResponse(Response):
    """Sends an answer piece by piece, without first joining it into one more copy."""

    def __init__(self, answer: Answer, chosen: Format, context: RequestContext) -> None:
        timing = {"Server-Timing": server_timing(context.stages_s), "Content-Length": str(answer.size)}
        super().__init__(media_type=MEDIA_TYPES[chosen], headers=answer.headers | timing)
        self._pieces = answer.pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises `ClientGone` for a client that does not take its answer in: what it holds is wanted by others."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        last = len(self._pieces) - 1
        try:
            async with asyncio.timeout(_PATIENCE_S):
                for number, piece in enumerate(self._pieces):
                    await send({"type": "http.response.body", "body": piece, "more_body": number < last})
        except TimeoutError:
            raise ClientGone from None


def client_gone_response(context: RequestContext) -> Response:
    """For the log and the metrics alone: nobody receives it. 499 is what nginx logs for the same."""
    context.error_code = "client_gone"
    return Response(status_code=CLIENT_GONE_STATUS)
