"""Every route in a dialect: its body becomes an `EmbedRequest`, which goes the way of `/embed`."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import orjson
from fastapi import APIRouter, Request
from starlette.responses import Response

from service.errors import UnsupportedMedia
from service.http import schemas
from service.http.answers import Answer
from service.http.bodies.base64_images import keep_images
from service.http.bodies.form import Form, check_count, read_content_type
from service.http.bodies.json_object import read_json
from service.http.bodies.receive import BodyLimits, check_text_count, receive
from service.http.context import RequestContext
from service.http.dialects.dialect import Asked, Body, Dialect, Octets, Served
from service.http.formats import OCTETS
from service.http.routes.embedding import EmbeddingRoute
from service.limits import ModelFacts
from service.requests.admission.hold import Hold
from service.requests.documents.rows import texts_alone
from service.requests.parameters import check_query, merged
from service.requests.request import EmbedRequest
from service.requests.results import Outcome, embedded_of
from service.requests.url_images import UrlImages


def dialects_router(route: EmbeddingRoute, served: Served, dialects: Sequence[Dialect]) -> APIRouter:
    """Where several dialects share a path, the first that recognises a body reads it."""
    router = APIRouter()
    for path, spoken in by_path(dialects).items():
        _add(router, path, spoken, route, served)
    return router


def by_path(dialects: Sequence[Dialect]) -> dict[str, list[Dialect]]:
    """The dialects that share each path, in their order."""
    spoken = sorted(((path, dialect) for dialect in dialects for path in dialect.paths), key=lambda pair: pair[0])
    return {path: [dialect for _, dialect in pairs] for path, pairs in groupby(spoken, key=lambda pair: pair[0])}


def _add(router: APIRouter, path: str, spoken: Sequence[Dialect], route: EmbeddingRoute, served: Served) -> None:
    async def embed(request: Request) -> Response:
        return await _embed(request, spoken, route, served)

    usual = spoken[-1]
    router.add_api_route(
        path,
        embed,
        methods=["POST"],
        name=path,
        response_model=None,
        responses={
            200: schemas.dialect_answer(usual.answer, octets=usual.gives_octets),
            **schemas.dialect_errors(),
        },
        summary=usual.summary,
    )


async def _embed(request: Request, spoken: Sequence[Dialect], route: EmbeddingRoute, served: Served) -> Response:
    context = RequestContext.of(request.scope)
    asked = await _asked(request, context, spoken, route.body_limits, served)
    wanted = asked.request
    if wanted.texts:
        route.check_takes_text(wanted.texts[0].param, wanted.texts[0].index)
    with wanted.naming_faults():
        _check_counts(wanted, route.body_limits)
        await _keep(wanted, context.hold, route.url_images)
        outcomes = await route.outcomes(request, wanted.parameters, "json", bounds=wanted.bounds)
    return await route.respond(request, outcomes, lambda: _answer(asked, outcomes, served.model), "json")


async def _asked(
    request: Request, context: RequestContext, spoken: Sequence[Dialect], limits: BodyLimits, served: Served
) -> Asked:
    read = _read_form if spoken[-1].takes == "form" else _read_json
    body = await read(request, context.hold, limits)
    dialect = next(each for each in spoken if each.is_meant(body))
    context.speak(dialect.name, dialect.error)
    check_query(request.scope["query_string"], dialect.model.model_fields)
    return dialect.read(body, served)


async def _read_json(request: Request, hold: Hold, limits: BodyLimits) -> Body:
    return _body(request, await read_json(request, hold, limits))


async def _read_form(request: Request, hold: Hold, limits: BodyLimits) -> Body:
    kind, boundary = read_content_type(request.headers.get("content-type", ""))
    if kind != b"multipart/form-data":
        raise UnsupportedMedia(f"{request.scope['path']} takes multipart/form-data")
    # A character of a text has at most four bytes.
    form = Form(
        boundary,
        max_images=limits.max_images,
        max_text_bytes=4 * limits.max_text_chars,
        hash_images=limits.hash_images,
    )
    await receive(request, hold, limits, form.write)
    form.close()
    hold.keep(form.images, digests=form.digests)
    return _body(request, dict(merged(form.fields)), len(form.images))


def _body(request: Request, content: dict[str, Any], form_images: int = 0) -> Body:
    request_id = RequestContext.of(request.scope).request_id
    return Body(content, dict(request.headers), form_images, request.scope["path"], request_id)


def _check_counts(wanted: EmbedRequest, limits: BodyLimits) -> None:
    """Raises `TooLarge` for too many inputs."""
    check_count(len(wanted.images), limits.max_images)
    check_text_count(len(wanted.texts) + texts_alone(wanted.documents), limits)


async def _keep(wanted: EmbedRequest, hold: Hold, url_images: UrlImages) -> None:
    """Gives the images and texts to `hold`. Afterwards nothing else refers to the images as they came."""
    texts = [text.content for text in wanted.texts]
    if hold.images:  # a form brought them
        hold.keep(hold.images, texts)
        return
    encoded = [image.encoded for image in wanted.images]
    for image in wanted.images:
        image.encoded = None
    await keep_images(hold, encoded, "image", texts, url_images=url_images, documents=wanted.documents)


def _answer(asked: Asked, outcomes: Sequence[Outcome], model: ModelFacts) -> Answer:
    embedded = asked.request.in_order(embedded_of(outcomes))
    headers = {"X-Fingerprint": model.fingerprint_of(asked.request.parameters.decode)}
    if (asked.request.texts or asked.request.documents) and model.text:
        headers["X-Text-Fingerprint"] = model.text.fingerprint
    headers |= asked.headers
    written = asked.write(embedded)
    if isinstance(written, Octets):
        return Answer(written.pieces, headers | written.headers, OCTETS)
    return Answer([orjson.dumps(written, option=orjson.OPT_SERIALIZE_NUMPY)], headers)
