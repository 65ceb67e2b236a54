"""Jina's `POST /v1/embeddings`, a path that it shares with OpenAI: its inputs are objects with a `text` or an `image`.

Its models have adapters for `task`; ours have prompts, or none.
"""

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from service.errors import Invalid, ServiceError
from service.http.dialects.content import image_input, string_input
from service.http.dialects.dialect import Asked, Body, Dialect, Served, checked, placed
from service.http.dialects.embeddings import check_width, warning_headers, write_embeddings
from service.http.dialects.openai import OpenAIAnswer, usage_of
from service.limits import ModelFacts
from service.requests.parameters import EmbedParameters
from service.requests.request import EmbedRequest, Input, TextInput
from service.requests.results import EmbeddedItem
from service.requests.vectors import VectorFormat

EmbeddingType = Literal["float", "base64", "int8", "uint8", "binary", "ubinary"]

# Fields that no other dialect of the path has, but for the first.
_OWN = ("embedding_type", "encoding_type", "normalized", "task", "late_chunking", "return_multivector")
# The last three are Jina's too, and are refused.
_KINDS = ("text", "image", "url", "bytes", "pdf", "video", "audio")


class JinaInput(BaseModel):
    """A text or an image, by its one field."""

    model_config = ConfigDict(extra="forbid")

    text: str | None = None
    image: str | None = Field(None, description="Base64, a data URI, or a URL if the server fetches it.")
    url: str | None = Field(None, description="Another name of image.")
    bytes: str | None = Field(None, description="Another name of image.")


class JinaRequest(BaseModel):
    """A request of Jina's embeddings API, with two of Packlight's budgets."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = Field(None, description="The served model's name, or one of model_aliases.")
    input: str | JinaInput | Annotated[list[str | JinaInput], Field(fail_fast=True)] = Field(
        description="A string is a text, unless it is a data URI or a URL."
    )
    embedding_type: EmbeddingType | Annotated[list[EmbeddingType], Field(min_length=1, max_length=1)] | None = Field(
        None, description="float if left out. base64 is of float32. A list has one of them."
    )
    encoding_type: EmbeddingType | None = Field(None, description="embedding_type, as LlamaIndex names it.")
    encoding_format: Literal["float", "base64"] | None = Field(
        None, description="OpenAI's name of embedding_type, which goes before it."
    )
    dimensions: int | None = Field(None, ge=1, description="Cut embeddings to this width.")
    normalized: bool = Field(True, description="Scale embeddings to length 1.")
    task: str | None = Field(
        None,
        description="Puts the model's prompt of that name before texts. A model with other prompts refuses it; "
        "without prompts it changes nothing.",
    )
    truncate: bool = Field(False, description="Cut the end of a text that is too long; otherwise it is an error.")
    late_chunking: bool = Field(False, description="True is refused.")
    return_multivector: bool = Field(False, description="True is refused.")
    user: str | None = Field(None, description="Changes nothing.")
    max_pixels: int | None = Field(None, description="Most pixels of an image after resizing.")
    max_tokens: int | None = Field(None, description="Most tokens of an image.")


def is_meant(body: Body) -> bool:
    """An object of OpenAI's inputs has a type. NIM has an embedding_type too; its truncate is a word."""
    content = body.content
    nims = "input_type" in content or isinstance(content.get("truncate"), str)
    own = [name for name in _OWN if not (nims and name == "embedding_type")]
    if any(name in content for name in own) or isinstance(content.get("truncate"), bool):
        return True
    given = content.get("input")
    return any(_is_object(each) for each in (given if isinstance(given, list) else [given]))


def read(body: Body, served: Served) -> Asked:
    """Raises `ServiceError`."""
    asked = checked(JinaRequest, body.content)
    served.check_name(asked.model)
    check_width(asked.dimensions, served, "dimensions")
    for name in ("late_chunking", "return_multivector"):
        if getattr(asked, name):
            raise Invalid(f"{name} is not offered: each input has one vector of its own", param=name)
    listed = asked.input if isinstance(asked.input, list) else [asked.input]
    if not listed:
        raise Invalid("input is empty", param="input")
    inputs = [_input(each, index, served) for index, each in enumerate(listed)]
    kind = _kind(asked)
    element = "float" if kind == "base64" else kind
    parameters = EmbedParameters(
        max_tokens=asked.max_tokens,
        max_pixels=asked.max_pixels,
        embedding_type=element,
        dimensions=asked.dimensions,
        normalize=asked.normalized,
        task=served.task(asked.task) or (asked.task if served.fuses else None),
        decode=served.decode,
        truncate="end" if asked.truncate else "error",
    )
    _check_length(asked, element)
    written = VectorFormat(element, asked.dimensions, asked.normalized, base64=kind == "base64")
    write = partial(_answer, written=written, model=served.model)
    return Asked(EmbedRequest(inputs, parameters), write, warning_headers(asked.dimensions, served.model))


def error(fault: ServiceError) -> dict[str, Any]:
    return {"detail": placed(fault)}


JINA = Dialect(
    name="jina",
    paths=("/v1/embeddings",),
    model=JinaRequest,
    read=read,
    error=error,
    answer=OpenAIAnswer,
    summary="Embed images and texts, in Jina's shape",
    is_meant=is_meant,
)


def _is_object(given: object) -> bool:
    return isinstance(given, dict) and "type" not in given and any(kind in given for kind in _KINDS)


def _kind(asked: JinaRequest) -> EmbeddingType:
    """Raises `Invalid` if it is given twice."""
    if None not in (asked.embedding_type, asked.encoding_type):
        raise Invalid("embedding_type and encoding_type are one type; send one of them", param="encoding_type")
    given = asked.embedding_type or asked.encoding_type or asked.encoding_format or "float"
    return given[0] if isinstance(given, list) else given


def _check_length(asked: JinaRequest, element: str) -> None:
    """Raises `Invalid` for 8-bit integers of vectors of any length: their scale is for vectors of length 1."""
    if element in ("int8", "uint8") and not asked.normalized:
        raise Invalid(f"embedding_type={element} has a scale for vectors of length 1", param="normalized")


def _input(given: str | JinaInput, index: int, served: Served) -> Input:
    if isinstance(given, str):
        return string_input(given, served, "input", index, text_form='{"text": "…"}')
    fields = given.model_dump(exclude_none=True)
    if len(fields) != 1:
        raise Invalid(
            f"an input has one field, text or image; this one has {' and '.join(fields) or 'none'}",
            param="input",
            index=index,
        )
    if given.text is not None:
        return TextInput(given.text, "input", index)
    return image_input(next(iter(fields.values())), served, "input", index)


def _answer(embedded: Sequence[EmbeddedItem], *, written: VectorFormat, model: ModelFacts) -> dict[str, Any]:
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": vector}
            for index, vector in enumerate(write_embeddings(embedded, written, model))
        ],
        "model": model.name,
        "usage": usage_of(embedded),
    }
