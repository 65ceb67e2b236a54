"""`POST /v1/embeddings` and `/v1/models` in OpenAI's shape: images only, no text."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import orjson
from fastapi import APIRouter, Request
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.responses import Response

from service.errors import Invalid, ModelNotFound, from_validation_error
from service.http import schemas
from service.http.answers import Answer, encoded
from service.http.bodies.base64_images import keep_base64_images
from service.http.bodies.form import check_count
from service.http.bodies.json_object import read_json
from service.http.body_schemas import json_body
from service.http.context import RequestContext
from service.http.routes.images import ImageRoute
from service.limits import ModelFacts
from service.requests.parameters import EmbedParameters
from service.requests.results import EmbeddedImage, embedded_of, normalized


class ImageUrl(BaseModel):
    url: str


class ContentPart(BaseModel):
    type: str
    image_url: ImageUrl | None = None


class Message(BaseModel):
    role: str = "user"
    content: str | list[ContentPart]


class EmbeddingsRequest(BaseModel):
    """A request of OpenAI's embeddings API whose inputs are images, with two of Packlight's budgets."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = Field(None, description="The served model's name.")
    input: str | list[str] | None = Field(None, description="A data URI of an image, or a list of them.")
    messages: list[Message] | None = Field(None, description="Instead of input: messages with image_url parts.")
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(None, ge=1, description="Cut embeddings to this width and normalise them again.")
    user: str | None = None
    max_pixels: int | None = None
    max_tokens: int | None = None

    @property
    def source(self) -> str:
        """The field that the images come in."""
        return "messages" if self.input is None else "input"


def openai_router(images: ImageRoute) -> APIRouter:
    router = APIRouter(prefix="/v1")

    @router.post(
        "/embeddings",
        response_model=None,
        responses={200: schemas.openai_answer(), **schemas.error_responses()},
        openapi_extra=json_body(EmbeddingsRequest),
        summary="Embed images, in OpenAI's shape",
    )
    async def embeddings(request: Request) -> Response:
        hold = RequestContext.of(request.scope).hold
        asked = _parse(await read_json(request, hold, images.body_limits))
        _check(asked, images.model)
        source, texts = asked.source, _texts(asked)
        if not texts:
            raise Invalid("the request has no image", param=source)
        check_count(len(texts), images.body_limits.max_images)
        check_no_text(texts, source)
        # Nothing else refers to the base64 of an image once it is decoded.
        asked = asked.model_copy(update={"input": None, "messages": None})
        await keep_base64_images(hold, texts, source)
        parameters = EmbedParameters(
            max_pixels=asked.max_pixels, max_tokens=asked.max_tokens, decode=images.default_decode
        )
        outcomes = await images.outcomes(request, parameters, "json")
        fingerprint = images.model.fingerprint_of(parameters.decode)
        return await images.respond(
            request, outcomes, lambda: _answer(embedded_of(outcomes), asked, images.model.name, fingerprint), "json"
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


def _parse(content: dict[str, Any]) -> EmbeddingsRequest:
    try:
        return EmbeddingsRequest.model_validate(content, strict=True)
    except ValidationError as error:
        raise from_validation_error(error, EmbeddingsRequest) from None


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


def _texts(asked: EmbeddingsRequest) -> list[str]:
    """The data URIs of a request, in order."""
    if asked.input is not None:
        return [asked.input] if isinstance(asked.input, str) else asked.input
    texts = []
    for message in asked.messages or []:
        for part in message.content if isinstance(message.content, list) else [ContentPart(type="text")]:
            if part.type != "image_url" or part.image_url is None:
                raise Invalid(f"a part of type {part.type[:40]!r}: only image_url parts are embedded", param="messages")
            texts.append(part.image_url.url)
    return texts


def check_no_text(texts: Sequence[str], param: str) -> None:
    """Raises `Invalid` for what is neither a data URI nor a URL. Looks at the first letters only: uploads are long."""
    for index, text in enumerate(texts):
        if not text[:8].lower().startswith(("data:", "http://", "https://")):
            raise Invalid("text is not embedded; send a data URI of an image", param=param, index=index)


def _answer(embedded: Sequence[EmbeddedImage], asked: EmbeddingsRequest, model: str, fingerprint: str) -> Answer:
    tokens = sum(image.plan.tokens for image in embedded)
    body = {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": _vector(image, asked)}
            | ({"repaired": True} if image.repaired else {})
            for index, image in enumerate(embedded)
        ],
        "model": model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
    return Answer([orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)], {"X-Fingerprint": fingerprint})


def _vector(image: EmbeddedImage, asked: EmbeddingsRequest) -> str | NDArray[np.float32]:
    vector = image.embedding(normalize=True)
    if asked.dimensions is not None:
        vector = normalized(np.ascontiguousarray(vector[None, : asked.dimensions]))[0]
    return encoded(vector, asked.encoding_format)
