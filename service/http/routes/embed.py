"""`POST /embed`: images and parameters in, vectors and exact token counts out."""

from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from service.errors import Invalid
from service.http import schemas
from service.http.answers import write_answer
from service.http.bodies.body import BodyParameters, read_body
from service.http.context import RequestContext
from service.http.formats import choose_format
from service.http.routes.embedding import EmbeddingRoute
from service.requests.parameters import EmbedParameters, merged, read_parameters, read_query

# The most that a body has whose parameters are remembered.
_MOST_FIELDS, _MOST_CHARACTERS = 16, 64
# What is often put into a query, or a form, that cannot bring it.
_IN_BODIES = {
    "texts": 'come in a JSON body, as {"texts": ["…"]}',
    "inputs": 'come in a JSON body, as {"inputs": [[{"text": "…"}, {"image": "…"}]]}',
    "images": "come in the body, as JSON or as parts of a form named image",
    "image": "comes in the body: the file itself, a part of a form, or base64 in JSON",
}


def embed_router(route: EmbeddingRoute) -> APIRouter:
    router = APIRouter()

    def read(
        query: Sequence[tuple[str, str]], fields: Sequence[tuple[str, str]], json: Mapping[str, Any]
    ) -> EmbedParameters:
        """The parameters of a query, a form and JSON. Raises `Invalid`."""
        texts = merged(query, fields)
        for name, how in _IN_BODIES.items():
            if name in texts:
                raise Invalid(f"{name} {how}", param=name)
        parameters = read_parameters(texts, json, decode=route.default_decode)
        parameters.check_positions(route.model.geometry)
        parameters.check_vectors(route.model)
        return parameters

    # Clients send the same parameters again and again.
    read_again = lru_cache(maxsize=64)(
        lambda query, fields, json: read(query, fields, {each[0]: each[1] for each in json})
    )

    @router.post(
        "/embed",
        response_model=None,
        responses={200: schemas.embed_answer(), **schemas.error_responses()},
        summary="Embed images and texts",
    )
    async def embed(request: Request) -> Response:
        query = read_query(request.scope["query_string"])
        body = await read_body(request, RequestContext.of(request.scope).hold, route.body_limits, route.url_images)
        known = _hashable(body)
        parameters = read(query, body.fields, body.json) if known is None else read_again(query, *known)
        chosen = choose_format(", ".join(request.headers.getlist("accept")), parameters)
        outcomes = await route.outcomes(request, parameters, chosen)
        write = partial(write_answer, outcomes, parameters, route.model, chosen)
        return await route.respond(request, outcomes, write, chosen)

    return router


def _hashable(body: BodyParameters) -> tuple[tuple[tuple[str, str], ...], tuple[tuple[str, object, type], ...]] | None:
    """The fields of a form and those of JSON; None if they are many, long or nested."""
    given = [*body.fields, *body.json.items()]
    if len(given) > _MOST_FIELDS:
        return None
    for name, value in given:
        if not isinstance(value, str | int) or len(name) + len(str(value)) > _MOST_CHARACTERS:
            return None
    # With its type: otherwise True would be found as 1.
    return tuple(body.fields), tuple((name, value, type(value)) for name, value in body.json.items())
