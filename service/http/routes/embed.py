"""`POST /embed`: images and parameters in, vectors and true token counts out."""

import asyncio
import time
from collections.abc import Awaitable
from typing import TypeVar

from fastapi import APIRouter, Request
from starlette.responses import Response

from model.images.decode import DecodeMode
from service.errors import ClientGone, Invalid, let_go
from service.http import schemas
from service.http.answers import Answer, write_answer
from service.http.body import BodyLimits, read_body
from service.http.context import RequestContext
from service.http.formats import Format, check_size, choose_format
from service.http.responses import AnswerResponse
from service.limits import ModelFacts
from service.requests.embedder import Embedder
from service.requests.parameters import EmbedParameters, merged, read_parameters
from service.requests.results import EmbeddedImage, ImageOutcome

# An answer of more than this many bytes of vectors is written in a thread.
_LARGE_ANSWER_BYTES = 256 * 1024

T = TypeVar("T")


class ImageRoute:
    """What both embedding routes do with the images of a request once its body and parameters are read."""

    def __init__(
        self,
        embedder: Embedder,
        model: ModelFacts,
        *,
        body_limits: BodyLimits,
        default_timeout_s: float,
        default_decode: DecodeMode,
    ) -> None:
        self._embedder = embedder
        self.model = model
        self.body_limits = body_limits
        self.default_decode = default_decode
        self._default_timeout_s = default_timeout_s

    async def outcomes(self, request: Request, parameters: EmbedParameters, chosen: Format) -> list[ImageOutcome]:
        """One outcome an image. The work stops when the client leaves, which raises `ClientGone`."""
        context = RequestContext.of(request.scope)
        if not context.hold.images:
            raise Invalid("the request has no image", param="image")
        context.images = len(context.hold.images)
        context.stages_s["receive"] = time.monotonic() - context.started_s
        timeout_s = parameters.timeout_ms / 1000 if parameters.timeout_ms else self._default_timeout_s
        work = self._embedder.embed(
            context.hold,
            parameters,
            deadline_s=context.started_s + timeout_s,
            approve=lambda tokens: check_size(tokens, self.model, parameters, chosen),
        )
        outcomes = await _unless_gone(request, work)
        self._note(context, outcomes)
        return outcomes

    def _note(self, context: RequestContext, outcomes: list[ImageOutcome]) -> None:
        """Stage times are those of the image that took longest: the stages that the caller waited for."""
        embedded = [outcome for outcome in outcomes if isinstance(outcome, EmbeddedImage)]
        context.tokens = sum(image.plan.tokens for image in embedded)
        if embedded:
            context.stages_s |= max(embedded, key=lambda image: sum(image.stages_s.values())).stages_s


def embed_router(images: ImageRoute) -> APIRouter:
    router = APIRouter()

    @router.post(
        "/embed",
        response_model=None,
        responses={200: schemas.embed_answer(), **schemas.error_responses()},
        openapi_extra=schemas.embed_body(),
        summary="Embed images",
    )
    async def embed(request: Request) -> Response:
        context = RequestContext.of(request.scope)
        body = await read_body(request, context.hold, images.body_limits)
        texts = merged(request.query_params.multi_items(), body.fields)
        parameters = read_parameters(texts, body.json, decode=images.default_decode)
        parameters.check_positions(images.model.geometry)
        chosen = choose_format(", ".join(request.headers.getlist("accept")), parameters)
        outcomes = await images.outcomes(request, parameters, chosen)
        answer = await _written(outcomes, parameters, images.model, chosen, context)
        return AnswerResponse(answer, chosen, context)

    return router


async def _written(
    outcomes: list[ImageOutcome],
    parameters: EmbedParameters,
    model: ModelFacts,
    chosen: Format,
    context: RequestContext,
) -> Answer:
    began_s = time.monotonic()
    images = [outcome for outcome in outcomes if isinstance(outcome, EmbeddedImage)]
    values = sum(image.result.pooled.size for image in images)
    if parameters.wants_tokens:
        values += model.output_tokens(context.tokens) * model.token_dim
    if values * 4 > _LARGE_ANSWER_BYTES:
        answer = await asyncio.to_thread(write_answer, outcomes, parameters, model, chosen)
    else:
        answer = write_answer(outcomes, parameters, model, chosen)
    context.stages_s["respond"] = time.monotonic() - began_s
    return answer


async def _unless_gone(request: Request, work: Awaitable[T]) -> T:
    """The result of `work`, which is cancelled when the client closes the connection."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGone
        return task.result()
    finally:
        for waiting in (task, gone):
            waiting.cancel()
        # What was begun is unwound before the request gives back what it holds.
        await asyncio.wait((task, gone))
        if task.cancelled():
            try:
                task.result()
            except asyncio.CancelledError as error:
                let_go(error)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
