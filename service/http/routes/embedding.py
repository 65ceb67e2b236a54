"""What every embedding route does with a request's images and texts, once its body and parameters are read."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from fastapi import Request
from starlette.responses import Response

from model.images.decode import DecodeMode
from service.errors import ClientGone, Invalid, let_go
from service.http.answers import Answer
from service.http.bodies.receive import BodyLimits
from service.http.context import RequestContext
from service.http.formats import Format, check_size
from service.http.protocol.departure import Departure
from service.http.responses import AnswerResponse
from service.limits import ModelFacts, no_text
from service.requests.admission.hold import Hold
from service.requests.documents.rows import owners
from service.requests.embedder import Embedder
from service.requests.parameters import EXPECTATION, EmbedParameters
from service.requests.request import ImageBounds
from service.requests.results import Outcome, cached_tokens_of, embedded_of
from service.requests.url_images import UrlImages

# An answer of more than this many bytes of vectors is written in a thread.
_LARGE_ANSWER_BYTES = 256 * 1024

T = TypeVar("T")


class EmbeddingRoute:
    """Embeds a request's images and texts, and sends the answer that a route writes."""

    def __init__(
        self,
        embedder: Embedder,
        model: ModelFacts,
        *,
        url_images: UrlImages,
        body_limits: BodyLimits,
        default_timeout_s: float,
        default_decode: DecodeMode,
    ) -> None:
        self._embedder = embedder
        self.model = model
        self.url_images = url_images
        self.body_limits = body_limits
        self.default_decode = default_decode
        self._default_timeout_s = default_timeout_s

    async def outcomes(
        self,
        request: Request,
        parameters: EmbedParameters,
        chosen: Format,
        *,
        bounds: Sequence[ImageBounds | None] = (),
    ) -> list[Outcome]:
        """One outcome for each image that the request holds, and then for each text. The client's leaving stops the
        work: `ClientGone`. bounds: as in `Embedder.embed`."""
        context = RequestContext.of(request.scope)
        hold = context.hold
        if hold.faults and not parameters.partial:
            index, fault = min(hold.faults.items())
            fault.index = owners(hold.documents).get(index, index)
            raise fault
        hold.bulk = hold.bulk or parameters.priority == "bulk"
        self._check_expected(request, parameters)
        self._check_inputs(hold, parameters)
        context.images, context.texts = len(hold.images), len(hold.texts)
        context.dimensions = parameters.dimensions or self.model.dim
        if hold.documents:
            context.texts = sum(any(isinstance(part, str) for part in document) for document in hold.documents)
        context.stages_s["receive"] = time.monotonic() - context.started_s
        timeout_s = parameters.timeout_ms / 1000 if parameters.timeout_ms else self._default_timeout_s
        work = self._embedder.embed(
            hold,
            parameters,
            bounds=bounds,
            deadline_s=context.started_s + timeout_s,
            approve=lambda tokens: check_size(tokens, self.model, parameters, chosen),
        )
        outcomes = await _unless_gone(request, work)
        embedded = embedded_of(outcomes)
        context.tokens = sum(item.charged_tokens for item in embedded)
        context.cached_tokens = cached_tokens_of(embedded)
        if embedded:
            # The caller waited for the slowest item.
            context.stages_s |= max(embedded, key=lambda item: sum(item.stages_s.values())).stages_s
            context.pack_ids = list(dict.fromkeys(item.result.pack_id for item in embedded if item.result.pack_id))
        return outcomes

    def _check_expected(self, request: Request, parameters: EmbedParameters) -> None:
        """Raises `FingerprintMismatch` if the caller expects other vectors, in a header or a parameter."""
        expected = [named for header in EXPECTATION for named in request.headers.getlist(header)]
        if parameters.expect_fingerprint is not None:
            expected.append(parameters.expect_fingerprint)
        for named in expected:
            self.model.check_expected(named, parameters.decode)

    def _check_inputs(self, hold: Hold, parameters: EmbedParameters) -> None:
        """Raises `Invalid` for none, and for what the model does not take or has no such output of."""
        if not hold.images and not hold.texts and not hold.documents:
            raise Invalid("the request has no image and no text", param="image")
        self._check_documents(hold, parameters)
        if hold.texts:
            self.check_takes_text("texts")
            if parameters.output != "embedding":
                raise Invalid(f"output={parameters.output} is for images; a text has one vector", param="output")

    def _check_documents(self, hold: Hold, parameters: EmbedParameters) -> None:
        """Raises `Invalid` for inputs of several parts, and for a task, that the model does not take."""
        text = self.model.text
        if hold.documents and (text is None or text.documents is None):
            raise Invalid(
                f"{self.model.name} makes a vector of one image or one text and cannot fuse several: send images and "
                "texts; inputs of both are for EmbeddingGemma 2",
                param="inputs",
            )
        if hold.documents and parameters.output != "embedding":
            raise Invalid(f"output={parameters.output} is for images; an input has one vector", param="output")
        if parameters.task is not None and (text is None or text.documents is None):
            raise Invalid(f"{self.model.name} has no prompts", param="task")
        if text is not None and text.documents is not None:
            text.documents.prompt(parameters.task)

    def check_takes_text(self, param: str, index: int | None = None) -> None:
        """Raises `Invalid` if the model has no text tower."""
        if self.model.text is None:
            raise Invalid(no_text(self.model.name), param=param, index=index)

    async def respond(
        self,
        request: Request,
        outcomes: list[Outcome],
        write: Callable[[], Answer],
        chosen: Format,
        *,
        large: bool = False,
    ) -> Response:
        """Writes the answer, in a thread if it is large, so that it does not hold the event loop. large: is known to
        be so, although its vectors are few."""
        context = RequestContext.of(request.scope)
        began_s = time.monotonic()
        large = large or sum(item.vector_bytes for item in embedded_of(outcomes)) > _LARGE_ANSWER_BYTES
        answer = await asyncio.to_thread(write) if large else write()
        context.stages_s["respond"] = time.monotonic() - began_s
        return AnswerResponse(answer, chosen, context)


async def _unless_gone(request: Request, work: Awaitable[T]) -> T:
    """The result of `work`, which is cancelled if the client closes the connection."""
    working = asyncio.current_task()
    assert working is not None, "requests run in tasks"
    gone = False

    def leave() -> None:
        nonlocal gone
        gone = True
        working.cancel()

    with _watched(request, leave):
        try:
            return await work
        except asyncio.CancelledError as error:
            # The server, too, cancels a request, when it stops.
            if not gone or working.uncancel():
                raise
            let_go(error)
            raise ClientGone from None


@contextmanager
def _watched(request: Request, leave: Callable[[], object]) -> Iterator[None]:
    """Calls `leave` if the client closes the connection meanwhile."""
    if (departure := Departure.of(request.scope)) is not None:
        departure.watch(leave)
        try:
            yield
        finally:
            departure.unwatch()
        return

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        leave()

    watching = asyncio.ensure_future(watch())
    try:
        yield
    finally:
        watching.cancel()
