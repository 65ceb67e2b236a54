"""`POST /v1/embeddings` and `/v1/models` in OpenAI's shape. An input is a text unless it is a data URI."""

from collections.abc import Sequence

import numpy as np
import orjson
from fastapi import APIRouter, Request
from numpy.typing import NDArray
from starlette.responses import Response

from service.errors import Invalid, ModelNotFound
from service.http import schemas
from service.http.answers import Answer, encoded
from service.http.bodies.base64_images import keep_base64_images
from service.http.bodies.json_object import read_json
from service.http.body_schemas import json_body
from service.http.context import RequestContext
from service.http.routes.images import ImageRoute
from service.http.routes.openai_inputs import EmbeddingsRequest, Inputs, parse_request
from service.limits import ModelFacts
from service.requests.parameters import EmbedParameters
from service.requests.results import EmbeddedImage, EmbeddedItem, embedded_of, normalized


def openai_router(images: ImageRoute) -> APIRouter:
    router = APIRouter(prefix="/v1")

    @router.post(
        "/embeddings",
        response_model=None,
        responses={200: schemas.openai_answer(), **schemas.error_responses()},
        openapi_extra=json_body(EmbeddingsRequest),
        summary="Embed images and texts, in OpenAI's shape",
    )
    async def embeddings(request: Request) -> Response:
        hold = RequestContext.of(request.scope).hold
        asked = parse_request(await read_json(request, hold, images.body_limits))
        _check(asked, images.model)
        inputs = Inputs(asked)
        if inputs.texts:
            images.check_takes_text(inputs.source, inputs.first_text)
        # Nothing else refers to the base64 of an image once it is decoded.
        asked = asked.model_copy(update={"input": None, "messages": None})
        parameters = EmbedParameters(
            max_pixels=asked.max_pixels, max_tokens=asked.max_tokens, decode=images.default_decode
        )
        with inputs.naming_faults():
            inputs.check(images.body_limits)
            await keep_base64_images(hold, inputs.images, inputs.source, inputs.texts)
            outcomes = await images.outcomes(request, parameters, "json")
        embedded = inputs.in_order(embedded_of(outcomes))
        headers = {"X-Fingerprint": images.model.fingerprint_of(parameters.decode)}
        if inputs.texts and images.model.text:
            headers["X-Text-Fingerprint"] = images.model.text.fingerprint
        return await images.respond(
            request, outcomes, lambda: _answer(embedded, asked, images.model.name, headers), "json"
        )

    @router.get("/models", summary="The served model, in OpenAI's shape")
    async def models() -> schemas.OpenAIModels:
        return schemas.OpenAIModels(data=[schemas.OpenAIModel(id=images.model.name)])

    # A name may have slashes.
    @router.get(
        "/models/{name:path}",
        responses={404: {"model": schemas.ErrorAnswer, "description": "`not_found`: the server has another model."}},
        openapi_extra={"parameters": [{"in": "path", "name": "name", "required": True, "schema": {"type": "string"}}]},
        summary="The served model by its name, in OpenAI's shape",
    )
    async def model(request: Request) -> schemas.OpenAIModel:
        _check_name(request.path_params["name"], images.model)
        return schemas.OpenAIModel(id=images.model.name)

    return router


def _check(asked: EmbeddingsRequest, model: ModelFacts) -> None:
    if asked.model is not None:
        _check_name(asked.model, model)
    if asked.dimensions is not None and asked.dimensions > model.dim:
        raise Invalid(f"dimensions is {asked.dimensions}; embeddings have {model.dim}", param="dimensions")
    if (asked.input is None) == (asked.messages is None):
        raise Invalid("send either input or messages", param="input")


def _check_name(name: str, model: ModelFacts) -> None:
    if name != model.name:
        raise ModelNotFound(f"model {name[:100]!r} is not served here; {model.name!r} is", param="model")


def _answer(embedded: Sequence[EmbeddedItem], asked: EmbeddingsRequest, model: str, headers: dict[str, str]) -> Answer:
    tokens = sum(item.charged_tokens for item in embedded)
    body = {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": _vector(item, asked)}
            | ({"repaired": True} if isinstance(item, EmbeddedImage) and item.repaired else {})
            for index, item in enumerate(embedded)
        ],
        "model": model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
    return Answer([orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)], headers)


def _vector(item: EmbeddedItem, asked: EmbeddingsRequest) -> str | NDArray[np.float32]:
    vector = item.embedding(normalize=True)
    if asked.dimensions is not None:
        vector = normalized(np.ascontiguousarray(vector[None, : asked.dimensions]))[0]
    return encoded(vector, asked.encoding_format)
