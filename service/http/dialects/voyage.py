"""Voyage's `POST /v1/multimodalembeddings`. `input_type` names a prompt, if the model has it."""

from collections.abc import Sequence
from functools import partial
from math import prod
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from service.errors import Invalid, ServiceError
from service.http.dialects.content import fused, image_input
from service.http.dialects.dialect import INPUT_TYPE, Asked, Body, Dialect, Served, checked, placed
from service.http.dialects.embeddings import (
    check_width,
    image_tokens_of,
    text_tokens_of,
    warning_headers,
    write_embeddings,
)
from service.limits import ModelFacts
from service.requests.parameters import EmbedParameters
from service.requests.request import EmbedRequest, Input, TextInput
from service.requests.results import EmbeddedItem, pictures_of
from service.requests.vectors import VectorFormat

_VIDEO = "Refused: videos are not embedded."


class VoyagePart(BaseModel):
    model_config = ConfigDict(extra="forbid")

    type: str
    text: str | None = None
    image_base64: str | None = Field(None, description="A data URI.")
    image_url: str | None = Field(None, description="A URL, if the server fetches it, or a data URI.")
    video_base64: str | None = Field(None, description=_VIDEO)
    video_url: str | None = Field(None, description=_VIDEO)


class VoyageInput(BaseModel):
    """One part of content is one vector."""

    model_config = ConfigDict(extra="forbid")

    content: Annotated[list[VoyagePart], Field(fail_fast=True)]


class VoyageRequest(BaseModel):
    """A request of Voyage's multimodal API, with two of Packlight's budgets."""

    model_config = ConfigDict(extra="forbid")

    inputs: Annotated[list[VoyageInput], Field(fail_fast=True)] = Field(
        description="Images and texts, each the one part of its content."
    )
    model: str | None = Field(None, description="The served model's name, or one of model_aliases.")
    input_type: str | None = Field(None, description=INPUT_TYPE)
    truncation: bool = Field(True, description="Cut the end of a text that is too long; otherwise it is an error.")
    output_dtype: Literal["float", "int8", "uint8", "binary", "ubinary"] = Field(
        "float", description="The type of the numbers."
    )
    output_dimension: int | None = Field(None, ge=1, description="Cut embeddings to this width.")
    encoding_format: Literal["base64"] | None = Field(
        None, description="The bytes of output_dtype in little-endian order. Voyage's client asks for it."
    )
    output_encoding: Literal["base64"] | None = Field(None, description="Another name of encoding_format.")
    max_pixels: int | None = Field(None, description="Most pixels of an image after resizing.")
    max_tokens: int | None = Field(None, description="Most tokens of an image.")


class VoyageEmbedding(BaseModel):
    object: Literal["embedding"]
    embedding: list[float] | str
    index: int


class VoyageUsage(BaseModel):
    text_tokens: int
    image_pixels: int = Field(description="Pixels of the images as they were sent.")
    video_pixels: Literal[0]
    total_tokens: int = Field(description="Tokens that images and texts were charged.")


class VoyageAnswer(BaseModel):
    """Voyage's shape."""

    object: Literal["list"]
    data: list[VoyageEmbedding]
    model: str
    usage: VoyageUsage


def read(body: Body, served: Served) -> Asked:
    """Raises `ServiceError`."""
    asked = checked(VoyageRequest, body.content)
    served.check_name(asked.model)
    check_width(asked.output_dimension, served, "output_dimension")
    if not asked.inputs:
        raise Invalid("inputs is empty", param="inputs")
    inputs = [
        fused(each.content, index, served, partial(_input, index=index, served=served))
        for index, each in enumerate(asked.inputs)
    ]
    written = VectorFormat(
        asked.output_dtype,
        asked.output_dimension,
        base64="base64" in (asked.encoding_format, asked.output_encoding),
    )
    parameters = EmbedParameters(
        max_tokens=asked.max_tokens,
        max_pixels=asked.max_pixels,
        embedding_type=asked.output_dtype,
        dimensions=asked.output_dimension,
        task=served.task(asked.input_type),
        decode=served.decode,
        truncate="end" if asked.truncation else "error",
    )
    return Asked(
        EmbedRequest(inputs, parameters),
        partial(_answer, written=written, model=served.model),
        warning_headers(asked.output_dimension, served.model),
    )


def error(fault: ServiceError) -> dict[str, Any]:
    return {"detail": placed(fault)}


VOYAGE = Dialect(
    name="voyage",
    paths=("/v1/multimodalembeddings",),
    model=VoyageRequest,
    read=read,
    error=error,
    answer=VoyageAnswer,
    summary="Embed images and texts, in Voyage's shape",
)


def _input(part: VoyagePart, index: int, served: Served) -> Input:
    given = part.model_dump(exclude={"type"}, exclude_none=True)
    if part.type in ("video_base64", "video_url"):
        raise Invalid("videos are not embedded; send frames as images", param="inputs", index=index)
    if given.keys() != {part.type}:
        raise Invalid(
            f"a part of type {part.type[:40]!r}: its type is text, image_base64 or image_url, and names its one other "
            "field",
            param="inputs",
            index=index,
        )
    if part.text is not None:
        return TextInput(part.text, "inputs", index)
    return image_input(given[part.type], served, "inputs", index)


def _answer(embedded: Sequence[EmbeddedItem], *, written: VectorFormat, model: ModelFacts) -> dict[str, Any]:
    vectors = write_embeddings(embedded, written, model)
    return {
        "object": "list",
        "data": [{"object": "embedding", "embedding": vector, "index": index} for index, vector in enumerate(vectors)],
        "model": model.name,
        "usage": {
            "text_tokens": text_tokens_of(embedded),
            "image_pixels": sum(prod(image.plan.size) for item in embedded for image in pictures_of(item)),
            "video_pixels": 0,
            "total_tokens": image_tokens_of(embedded) + text_tokens_of(embedded),
        },
    }
