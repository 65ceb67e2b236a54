"""Cohere's `POST /v2/embed` and, for its older client, `POST /v1/embed`.

An answer has every type of embedding that was asked for. `input_type` names a prompt, if the model has it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from service.errors import Invalid, ServiceError
from service.http.dialects.content import ContentPart, fused, image_input, input_of
from service.http.dialects.dialect import INPUT_TYPE, Asked, Body, Dialect, Served, checked, placed
from service.http.dialects.embeddings import (
    check_width,
    image_tokens_of,
    text_tokens_of,
    warning_of,
    write_embeddings,
)
from service.limits import ModelFacts
from service.priority import Priority, named
from service.requests.parameters import EmbedParameters
from service.requests.request import EmbedRequest, ImageInput, Input, TextInput, parts_of
from service.requests.results import EmbeddedDocument, EmbeddedImage, EmbeddedItem, EmbeddedText, pictures_of
from service.requests.vectors import VectorFormat

_V1 = "/v1/embed"
# What Cohere answers for an image of three colours, which every image is when it is embedded.
_BIT_DEPTH = 24

EmbeddingType = Literal["float", "float16", "int8", "uint8", "binary", "ubinary", "base64"]


class CohereInput(BaseModel):
    """One vector: of one part, or of all of them if the model fuses texts and images."""

    model_config = ConfigDict(extra="forbid")

    content: Annotated[list[ContentPart], Field(fail_fast=True)]


class CohereRequest(BaseModel):
    """A request of Cohere's embed API, with Packlight's `max_pixels`. It has texts, images or inputs."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = Field(None, description="The served model's name, or one of model_aliases.")
    texts: Annotated[list[str], Field(fail_fast=True)] | None = Field(None, description="Texts alone.")
    images: Annotated[list[str], Field(fail_fast=True)] | None = Field(None, description="Data URIs.")
    inputs: Annotated[list[CohereInput], Field(fail_fast=True)] | None = Field(
        None, description="Images and texts. Several parts of one content are for models that fuse them."
    )
    input_type: str | None = Field(None, description=INPUT_TYPE)
    embedding_types: Annotated[list[EmbeddingType], Field(fail_fast=True)] | None = Field(
        None, description="float if left out. base64 is of float32."
    )
    output_dimension: int | None = Field(None, ge=1, description="Cut embeddings to this width.")
    truncate: Literal["NONE", "START", "END"] = Field(
        "END", description="NONE: a text that is too long is an error. START is refused."
    )
    max_tokens: int | None = Field(None, description="Most tokens of an image.")
    max_pixels: int | None = Field(None, description="Most pixels of an image after resizing.")
    priority: int | Priority | None = Field(
        None, description="0, the default: interactive. More: bulk, which goes later."
    )


class CohereImage(BaseModel):
    width: int
    height: int
    format: str
    bit_depth: int = Field(description="Always 24: that of the image as it was embedded.")


class CohereAnswer(BaseModel):
    """Cohere's shape."""

    id: str
    response_type: Literal["embeddings_by_type", "embeddings_floats"]
    embeddings: dict[EmbeddingType, list[list[float]] | list[str]] | list[list[float]] = Field(
        description="By type. /v1/embed without embedding_types answers the vectors themselves."
    )
    texts: list[str]
    images: list[CohereImage]
    meta: dict[str, Any] = Field(description="api_version, billed_units and, if there are any, warnings.")


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What the answer needs of the request."""

    id: str
    version: str
    types: tuple[EmbeddingType, ...]
    dimensions: int | None
    texts: tuple[str, ...]
    warning: str | None


def read(body: Body, served: Served) -> Asked:
    """Raises `ServiceError`."""
    asked = checked(CohereRequest, body.content)
    served.check_name(asked.model)
    check_width(asked.output_dimension, served, "output_dimension")
    inputs = _inputs(asked, served)
    texts = [each for each in inputs if isinstance(each, TextInput)]
    parts = [part for each in inputs for part in parts_of(each)]
    if any(isinstance(part, TextInput) for part in parts):
        # Beside images that share its vectors, a text leaves `max_tokens` to them.
        _check_texts(asked, served, cuts=not (served.fuses and any(isinstance(part, ImageInput) for part in parts)))
    if asked.embedding_types == []:
        raise Invalid("embedding_types is empty; leave it out for float", param="embedding_types")
    version = "1" if body.path == _V1 else "2"
    # Without types, version 1 answers bare vectors.
    types = tuple(dict.fromkeys(asked.embedding_types or (() if version == "1" else ("float",))))
    wanted = _Wanted(
        id=body.request_id,
        version=version,
        types=types,
        dimensions=asked.output_dimension,
        texts=tuple(str(text.content) for text in texts),
        warning=warning_of(asked.output_dimension, served.model, "output_dimension"),
    )
    parameters = EmbedParameters(
        max_tokens=asked.max_tokens,
        max_pixels=asked.max_pixels,
        embedding_type="float16" if "float16" in types else "float",
        dimensions=asked.output_dimension,
        task=served.task(asked.input_type),
        decode=served.decode,
        truncate="error" if asked.truncate == "NONE" else "end",
        priority=named(asked.priority or 0),
    )
    return Asked(EmbedRequest(inputs, parameters), partial(_answer, wanted=wanted, model=served.model))


def error(fault: ServiceError) -> dict[str, Any]:
    return {"message": placed(fault)}


COHERE = Dialect(
    name="cohere",
    paths=("/v2/embed", _V1),
    model=CohereRequest,
    read=read,
    error=error,
    answer=CohereAnswer,
    summary="Embed images and texts, in Cohere's shape",
)


def _inputs(asked: CohereRequest, served: Served) -> list[Input]:
    given = [name for name in ("texts", "images", "inputs") if getattr(asked, name) is not None]
    if len(given) != 1:
        sent = f"it has {' and '.join(given)}" if given else "it has none of them"
        raise Invalid(f"a request has one of texts, images and inputs; {sent}", param=given[-1] if given else "inputs")
    inputs: list[Input]
    if asked.texts is not None:
        inputs = [TextInput(text, "texts", index) for index, text in enumerate(asked.texts)]
    elif asked.images is not None:
        inputs = [image_input(image, served, "images", index) for index, image in enumerate(asked.images)]
    else:
        inputs = [_input(each, index, asked, served) for index, each in enumerate(asked.inputs or ())]
    if not inputs:
        raise Invalid(f"{given[0]} is empty", param=given[0])
    return inputs


def _input(given: CohereInput, index: int, asked: CohereRequest, served: Served) -> Input:
    return fused(
        given.content, index, served, lambda part: input_of(part, served, "inputs", index, max_tokens=asked.max_tokens)
    )


def _check_texts(asked: CohereRequest, served: Served, *, cuts: bool) -> None:
    """Raises `Invalid` for what no text is cut by. cuts: whether max_tokens is said of texts."""
    if asked.truncate == "START":
        raise Invalid(
            "truncate=START is not offered: a text is cut at its end (END), or refused (NONE)", param="truncate"
        )
    context = served.model.text.context if served.model.text else 0
    if cuts and asked.max_tokens is not None and asked.max_tokens < context:
        raise Invalid(
            f"max_tokens is {asked.max_tokens}; a text takes up to {context} tokens, and is not cut to fewer",
            param="max_tokens",
        )


def _answer(embedded: Sequence[EmbeddedItem], *, wanted: _Wanted, model: ModelFacts) -> dict[str, Any]:
    by_type = {each: write_embeddings(embedded, _format(each, wanted.dimensions), model) for each in wanted.types}
    plain = None if by_type else write_embeddings(embedded, _format("float", wanted.dimensions), model)
    return {
        "id": wanted.id,
        "response_type": "embeddings_by_type" if by_type else "embeddings_floats",
        "embeddings": by_type or plain,
        "texts": wanted.texts,
        "images": [_image(image) for item in embedded for image in pictures_of(item)],
        "meta": _meta(embedded, wanted),
    }


def _format(given: EmbeddingType, dimensions: int | None) -> VectorFormat:
    if given == "base64":
        return VectorFormat(dimensions=dimensions, base64=True)
    return VectorFormat(given, dimensions)


def _image(image: EmbeddedImage) -> dict[str, Any]:
    height, width = image.plan.size
    return {"width": width, "height": height, "format": image.format.lower(), "bit_depth": _BIT_DEPTH}


def _meta(embedded: Sequence[EmbeddedItem], wanted: _Wanted) -> dict[str, Any]:
    billed: dict[str, int] = {}
    if images := sum(len(pictures_of(item)) for item in embedded):
        billed |= {"images": images, "image_tokens": image_tokens_of(embedded)}
    if wanted.texts or text_tokens_of(embedded):
        billed["input_tokens"] = text_tokens_of(embedded)
    meta: dict[str, Any] = {"api_version": {"version": wanted.version}, "billed_units": billed}
    cut = [
        index
        for index, item in enumerate(embedded)
        if isinstance(item, EmbeddedText | EmbeddedDocument) and item.truncated
    ]
    warnings = [wanted.warning] if wanted.warning else []
    warnings += [f"the text {index} was too long, and its end was cut off" for index in cut]
    return meta | ({"warnings": warnings} if warnings else {})
