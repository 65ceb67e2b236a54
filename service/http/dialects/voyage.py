"""Voyage's `POST /v1/multimodalembeddings`, and `POST /v1/embeddings` for texts, a path that it shares with OpenAI.

`input_type` names a prompt, if the model has it.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from math import prod
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from service.errors import Invalid, ServiceError
from service.http.dialects.content import fused, image_input, string_input
from service.http.dialects.dialect import INPUT_TYPE, Asked, Body, Dialect, Served, checked, placed
from service.http.dialects.embeddings import (
    check_width,
    image_tokens_of,
    text_tokens_of,
    warning_headers,
    write_embeddings,
)
from service.http.dialects.openai import OpenAIAnswer, usage_of
from service.limits import ModelFacts
from service.requests.parameters import EmbedParameters
from service.requests.request import EmbedRequest, Input, TextInput
from service.requests.results import EmbeddedItem, pictures_of
from service.requests.vectors import VectorFormat

_VIDEO = "Refused: videos are not embedded."
_TEXT_FORM = '{"type": "text", "text": "…"} to /v1/multimodalembeddings'
# Fields that no other dialect of the path has. The client always sends the first.
_OWN = ("truncation", "output_dtype", "output_dimension")


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


class VoyageOptions(BaseModel):
    """What both of Voyage's requests have beside their inputs, with two of Packlight's budgets."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = Field(None, description="The served model's name, or one of model_aliases.")
    input_type: str | None = Field(None, description=INPUT_TYPE)
    truncation: bool = Field(True, description="Cut the end of a text that is too long; otherwise it is an error.")
    output_dtype: Literal["float", "int8", "uint8", "binary", "ubinary"] = Field(
        "float", description="The type of the numbers."
    )
    output_dimension: int | None = Field(None, ge=1, description="Cut embeddings to this width.")
    encoding_format: Literal["float", "base64"] | None = Field(
        None, description="base64: the bytes of output_dtype in little-endian order. Voyage's client asks for it."
    )
    max_pixels: int | None = Field(None, description="Most pixels of an image after resizing.")
    max_tokens: int | None = Field(None, description="Most tokens of an image.")

    @property
    def vectors(self) -> VectorFormat:
        return VectorFormat(self.output_dtype, self.output_dimension, base64=self.encoding_format == "base64")

    def parameters(self, served: Served) -> EmbedParameters:
        """Raises `ServiceError` for another model, or a width that embeddings cannot be cut to."""
        served.check_name(self.model)
        check_width(self.output_dimension, served, "output_dimension")
        return EmbedParameters(
            max_tokens=self.max_tokens,
            max_pixels=self.max_pixels,
            embedding_type=self.output_dtype,
            dimensions=self.output_dimension,
            task=served.task(self.input_type),
            decode=served.decode,
            truncate="end" if self.truncation else "error",
        )


class VoyageRequest(VoyageOptions):
    """A request of Voyage's multimodal API."""

    inputs: Annotated[list[VoyageInput], Field(fail_fast=True)] = Field(
        description="Images and texts, each the one part of its content."
    )
    output_encoding: Literal["base64"] | None = Field(None, description="Another name of encoding_format.")

    @property
    def vectors(self) -> VectorFormat:
        return replace(super().vectors, base64="base64" in (self.encoding_format, self.output_encoding))


class VoyageTextsRequest(VoyageOptions):
    """A request of Voyage's API for texts."""

    input: str | Annotated[list[str], Field(fail_fast=True)] = Field(
        description="Texts. One that begins like a data URI or a URL is an image."
    )


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
    parameters = asked.parameters(served)
    if not asked.inputs:
        raise Invalid("inputs is empty", param="inputs")
    inputs = [
        fused(each.content, index, served, partial(_input, index=index, served=served))
        for index, each in enumerate(asked.inputs)
    ]
    return _asked(asked, inputs, parameters, served, _usage)


def are_texts(body: Body) -> bool:
    """Whether a body of the path that several dialects share is in this one."""
    return any(name in body.content for name in _OWN)


def read_texts(body: Body, served: Served) -> Asked:
    """Raises `ServiceError`."""
    asked = checked(VoyageTextsRequest, body.content)
    parameters = asked.parameters(served)
    listed = asked.input if isinstance(asked.input, list) else [asked.input]
    if not listed:
        raise Invalid("input is empty", param="input")
    inputs = [string_input(each, served, "input", index, text_form=_TEXT_FORM) for index, each in enumerate(listed)]
    return _asked(asked, inputs, parameters, served, usage_of)


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
VOYAGE_TEXTS = Dialect(
    name="voyage",
    # LiteLLM's provider for infinity asks the second for `output_dimension`.
    paths=("/v1/embeddings", "/embeddings"),
    model=VoyageTextsRequest,
    read=read_texts,
    error=error,
    answer=OpenAIAnswer,
    summary="Embed texts, in Voyage's shape",
    is_meant=are_texts,
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


def _asked(
    asked: VoyageOptions,
    inputs: Sequence[Input],
    parameters: EmbedParameters,
    served: Served,
    usage: Callable[[Sequence[EmbeddedItem]], dict[str, Any]],
) -> Asked:
    write = partial(_answer, written=asked.vectors, model=served.model, usage=usage)
    warning = warning_headers(asked.output_dimension, served.model, "output_dimension")
    return Asked(EmbedRequest(inputs, parameters), write, warning)


def _answer(
    embedded: Sequence[EmbeddedItem],
    *,
    written: VectorFormat,
    model: ModelFacts,
    usage: Callable[[Sequence[EmbeddedItem]], dict[str, Any]],
) -> dict[str, Any]:
    vectors = write_embeddings(embedded, written, model)
    return {
        "object": "list",
        "data": [{"object": "embedding", "embedding": vector, "index": index} for index, vector in enumerate(vectors)],
        "model": model.name,
        "usage": usage(embedded),
    }


def _usage(embedded: Sequence[EmbeddedItem]) -> dict[str, Any]:
    return {
        "text_tokens": text_tokens_of(embedded),
        "image_pixels": sum(prod(image.plan.size) for item in embedded for image in pictures_of(item)),
        "video_pixels": 0,
        "total_tokens": image_tokens_of(embedded) + text_tokens_of(embedded),
    }
