"""`POST /embed`: images and parameters in, vectors and exact token counts out."""

from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from service.errors import Invalid
from service.http import schemas
from service.http.answers import write_answer
from service.http.bodies.body import read_body
from service.http.context import RequestContext
from service.http.formats import choose_format
from service.http.routes.embedding import EmbeddingRoute
from service.requests.parameters import EmbedParameters, merged, read_parameters, read_query


def embed_router(route: EmbeddingRoute) -> APIRouter:
    router = APIRouter()

    def read(
        query: Sequence[tuple[str, str]], fields: Sequence[tuple[str, str]], json: Mapping[str, Any]
    ) -> EmbedParameters:
        """The parameters of a query, a form and JSON. Raises `Invalid`."""
        texts = merged(query, fields)
        if "texts" in texts:
            raise Invalid('texts come in a JSON body, as {"texts": ["…"]}', param="texts")
        parameters = read_parameters(texts, json, decode=route.default_decode)
        parameters.check_positions(route.model.geometry)
        parameters.check_vectors(route.model)
        return parameters

    # Clients send the same query again and again. With a raw image it has all parameters.
    read_alone = lru_cache(maxsize=64)(lambda query: read(query, (), {}))

    @router.post(
        "/embed",
        response_model=None,
        responses={200: schemas.embed_answer(), **schemas.error_responses()},
        summary="Embed images and texts",
    )
    async def embed(request: Request) -> Response:
        query = read_query(request.scope["query_string"])
        body = await read_body(request, RequestContext.of(request.scope).hold, route.body_limits, route.url_images)
        parameters = read(query, body.fields, body.json) if body.fields or body.json else read_alone(query)
        chosen = choose_format(", ".join(request.headers.getlist("accept")), parameters)
        outcomes = await route.outcomes(request, parameters, chosen)
        write = partial(write_answer, outcomes, parameters, route.model, chosen)
        return await route.respond(request, outcomes, write, chosen)

    return router
