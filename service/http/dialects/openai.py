"""OpenAI's `POST /v1/embeddings`. An input is a text unless it is a data URI or an address."""

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from service.errors import Invalid, ServiceError
from service.http.answers import encoded
from service.http.dialects.content import ContentPart, image_input, input_of, is_image
from service.http.dialects.dialect import Asked, Body, Dialect, Served, checked
from service.requests.parameters import EmbedParameters
from service.requests.request import EmbedRequest, Input, TextInput
from service.requests.results import EmbeddedImage, EmbeddedItem, normalized


class Message(BaseModel):
    role: str = "user"
    content: str | Annotated[list[ContentPart], Field(fail_fast=True)]


_INPUT_FORMS = (
    "input is a text, a data URI of an image or the ids of a text, or a list of these; in a list a text may be "
    '{"type": "text", "text": "…"}'
)

# One wrong value is named. Without `fail_fast`, an error for each of 10,000 holds the event loop for 150 ms.
TokenId = Annotated[int, Field(ge=0)]
TokenIds = Annotated[list[TokenId], Field(fail_fast=True)]
GivenInput = str | TokenIds | ContentPart
InputList = Annotated[list[GivenInput], Field(fail_fast=True)]


class EmbeddingsRequest(BaseModel):
    """A request of OpenAI's embeddings API whose inputs are images and texts, with two of Packlight's budgets."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = Field(None, description="The served model's name, or one of model_aliases.")
    input: str | TokenIds | InputList | None = Field(
        None,
        description="A text, a data URI of an image, or the ids of a text; or a list of them. A text that begins with "
        '`data:` is sent as `{"type": "text", "text": "…"}`.',
    )
    messages: Annotated[list[Message], Field(fail_fast=True)] | None = Field(
        None, description="Instead of input: messages with image_url parts alone, or with text parts alone."
    )
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(None, ge=1, description="Cut embeddings to this width and normalise them again.")
    user: str | None = None
    max_pixels: int | None = None
    max_tokens: int | None = None


class OpenAIEmbedding(BaseModel):
    object: Literal["embedding"]
    index: int
    embedding: list[float] | str
    repaired: Literal[True] | None = Field(
        None, description="The file of the image has no end marker. It was decoded as if it had one."
    )


class OpenAIUsage(BaseModel):
    prompt_tokens: int
    total_tokens: int


class OpenAIAnswer(BaseModel):
    """OpenAI's shape."""

    object: Literal["list"]
    data: list[OpenAIEmbedding]
    model: str
    usage: OpenAIUsage


def read(body: Body, served: Served) -> Asked:
    """Raises `ServiceError`."""
    asked = _parsed(body.content)
    served.check_name(asked.model)
    if asked.dimensions is not None and asked.dimensions > served.model.dim:
        raise Invalid(f"dimensions is {asked.dimensions}; embeddings have {served.model.dim}", param="dimensions")
    if (asked.input is None) == (asked.messages is None):
        raise Invalid("send either input or messages", param="input")
    inputs = _inputs(asked, served)
    if not inputs:
        raise Invalid("the request has no input", param="messages" if asked.input is None else "input")
    parameters = EmbedParameters(max_pixels=asked.max_pixels, max_tokens=asked.max_tokens, decode=served.decode)
    write = partial(
        _answer, model=served.model.name, dimensions=asked.dimensions, encoding_format=asked.encoding_format
    )
    return Asked(EmbedRequest(inputs, parameters), write)


def error(fault: ServiceError) -> dict[str, Any]:
    """OpenAI's errors have a type beside our fields."""
    kind = "invalid_request_error" if fault.status < 500 else "server_error"
    return {"error": fault.body() | {"type": kind}}


OPENAI = Dialect(
    name="openai",
    paths=("/v1/embeddings",),
    model=EmbeddingsRequest,
    read=read,
    error=error,
    answer=OpenAIAnswer,
    summary="Embed images and texts, in OpenAI's shape",
)


def _parsed(content: dict[str, Any]) -> EmbeddingsRequest:
    try:
        return checked(EmbeddingsRequest, content)
    except Invalid as refusal:
        if refusal.param == "input":
            # The error is about the first form that `input` may have.
            raise Invalid(_INPUT_FORMS, param="input") from None
        raise


def _inputs(asked: EmbeddingsRequest, served: Served) -> list[Input]:
    if asked.messages is not None:
        return _inputs_of_messages(asked.messages, served, asked.max_tokens)
    given = asked.input
    if isinstance(given, str):
        return [_input(given, 0, served, asked.max_tokens)]
    if given and all(isinstance(each, int) for each in given):
        return [TextInput(given, "input", 0)]  # type: ignore[arg-type]
    listed: list[GivenInput] = given or []  # type: ignore[assignment]
    return [_input(each, index, served, asked.max_tokens) for index, each in enumerate(listed)]


def _input(given: GivenInput, index: int, served: Served, max_tokens: int | None) -> Input:
    if isinstance(given, str):
        return image_input(given, served, "input", index) if is_image(given) else TextInput(given, "input", index)
    if isinstance(given, list):
        return TextInput(given, "input", index)
    return input_of(given, served, "input", index, max_tokens=max_tokens)


def _inputs_of_messages(messages: Sequence[Message], served: Served, max_tokens: int | None) -> list[Input]:
    inputs: list[Input] = []
    for message in messages:
        if isinstance(message.content, str):
            inputs.append(TextInput(message.content, "messages", len(inputs)))
            continue
        for part in message.content:
            inputs.append(input_of(part, served, "messages", len(inputs), max_tokens=max_tokens))
    if len({type(each) for each in inputs}) > 1:
        raise Invalid("messages with both text and images cannot become one vector; send them apart", param="messages")
    return inputs


def _answer(
    embedded: Sequence[EmbeddedItem], *, model: str, dimensions: int | None, encoding_format: str
) -> dict[str, Any]:
    tokens = sum(item.charged_tokens for item in embedded)
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": _vector(item, dimensions, encoding_format)}
            | ({"repaired": True} if isinstance(item, EmbeddedImage) and item.repaired else {})
            for index, item in enumerate(embedded)
        ],
        "model": model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def _vector(item: EmbeddedItem, dimensions: int | None, encoding_format: str) -> str | NDArray[np.float32]:
    vector = item.embedding(normalize=True)
    if dimensions is not None:
        vector = normalized(np.ascontiguousarray(vector[None, :dimensions]))[0]
    return encoded(vector, encoding_format)
