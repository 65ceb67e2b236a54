"""OpenAI's `POST /v1/embeddings`, as vLLM and infinity speak it. An input is a text unless it is a data URI or URL."""

import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from service.errors import Invalid, ServiceError
from service.http.dialects.content import ContentPart, image_input, input_of, string_input
from service.http.dialects.conversations import HEADERS, Message, are_separate, inputs_of_messages
from service.http.dialects.dialect import Asked, Body, Dialect, Octets, Served, checked, placed
from service.http.dialects.embeddings import warning_headers
from service.http.dialects.vllm_options import ChatOptions, RequestOptions, VectorOptions, check_inputs, parameters_of
from service.limits import ModelFacts
from service.requests.request import DocumentInput, EmbedRequest, ImageInput, Input, TextInput
from service.requests.results import EmbeddedImage, EmbeddedItem, cached_tokens_of
from service.requests.vectors import VectorFormat

_INPUT_FORMS = (
    "input is a text, a data URI of an image or the ids of a text, or a list of these; in a list a text may be "
    '{"type": "text", "text": "…"}'
)
# aiohttp, which vLLM's clients use, reads a header of 8,190 bytes; an input takes about 100 of it.
_MOST_DESCRIBED = 64

# One wrong value is named. Without `fail_fast`, an error for each of 10,000 holds the event loop for 150 ms.
TokenId = Annotated[int, Field(ge=0)]
TokenIds = Annotated[list[TokenId], Field(fail_fast=True)]
GivenInput = str | TokenIds | ContentPart
InputList = Annotated[list[GivenInput], Field(fail_fast=True)]


class EmbeddingsRequest(RequestOptions, VectorOptions, ChatOptions):
    """A request of OpenAI's embeddings API whose inputs are images and texts, with the fields that vLLM adds."""

    input: str | TokenIds | InputList | None = Field(
        None,
        description="A text, a data URI of an image, or the ids of a text; or a list of them. A text that begins with "
        '`data:` is sent as `{"type": "text", "text": "…"}`.',
    )
    messages: Annotated[list[Message], Field(fail_fast=True)] | None = Field(
        None,
        description="Instead of input: a conversation of one image or one text, which has one vector. With the header "
        "`Packlight-Parts: separate` each image and text has one.",
    )
    modality: str | Annotated[list[str], Field(fail_fast=True)] | None = Field(
        None, description="What the strings of input are, as infinity has it: image or text. A list has one for each."
    )


class OpenAIEmbedding(BaseModel):
    object: Literal["embedding"]
    index: int
    embedding: list[float] | str
    repaired: Literal[True] | None = Field(
        None, description="The file of the image has no end marker. It was decoded as if it had one."
    )


class OpenAITokenDetails(BaseModel):
    cached_tokens: int = Field(description="Those of the tokens whose images were embedded before.")


class OpenAIUsage(BaseModel):
    prompt_tokens: int = Field(description="Tokens that were charged.")
    total_tokens: int
    prompt_tokens_details: OpenAITokenDetails | None = Field(None, description="If any tokens were cached.")


class OpenAIAnswer(BaseModel):
    """OpenAI's shape."""

    id: str | None = Field(None, description="The request_id, if one was sent.")
    object: Literal["list"]
    data: list[OpenAIEmbedding]
    model: str
    usage: OpenAIUsage


def read(body: Body, served: Served) -> Asked:
    """Raises `ServiceError`."""
    return asked_of(parsed(EmbeddingsRequest, body.content), body, served)


def parsed(model: type[EmbeddingsRequest], content: dict[str, Any]) -> EmbeddingsRequest:
    """Raises `Invalid`."""
    try:
        return checked(model, content)
    except Invalid as refusal:
        place = "input" if refusal.index is None else f"input[{refusal.index}]"
        if refusal.param == "input" and refusal.message.startswith(f"{place}: "):
            # `input` and its items have several forms, and not what is within them is wrong.
            raise Invalid(_INPUT_FORMS, param="input", index=refusal.index) from None
        raise


def asked_of(
    given: EmbeddingsRequest, body: Body, served: Served, *, kind: str = "embedding", field: str = "embedding"
) -> Asked:
    """kind, field: what the answer calls an item, and the vector in it. Raises `ServiceError`."""
    served.check_name(given.model)
    vectors = given.format(served)
    if (given.input is None) == (given.messages is None):
        raise Invalid("send either input or messages", param="input")
    parameters = parameters_of(given, served, vectors)
    inputs = _inputs(given, served, separate=are_separate(body.headers), max_tokens=parameters.max_tokens)
    if not inputs:
        raise Invalid("the request has no input", param="messages" if given.input is None else "input")
    check_inputs(given, inputs, served)
    if given.encoding_format == "bytes" and len(inputs) > _MOST_DESCRIBED:
        raise Invalid(
            f"the header of encoding_format=bytes has room for {_MOST_DESCRIBED} inputs; ask for bytes_only or base64",
            param="encoding_format",
        )
    about = given.answer_id | {"object": "list", "model": served.model.name}
    write: Callable[[Sequence[EmbeddedItem]], Any] = partial(
        _answer, about=about, vectors=vectors, model=served.model, kind=kind, field=field
    )
    if given.encoding_format in ("bytes", "bytes_only"):
        described = given.embed_dtype if given.encoding_format == "bytes" else None
        write = partial(_octets, about=about, vectors=vectors, model=served.model, described=described)
    return Asked(EmbedRequest(inputs, parameters), write, warning_headers(vectors.dimensions, served.model))


def error(fault: ServiceError) -> dict[str, Any]:
    """The JSON of an error: our fields, and a type as OpenAI's errors have."""
    kind = "invalid_request_error" if fault.status < 500 else "server_error"
    return {"error": fault.body() | {"type": kind}}


def shared_error(fault: ServiceError) -> dict[str, Any]:
    """The same on paths that are Jina's and Voyage's too, whose clients read `detail`: a body of strings alone could be
    anybody's."""
    return error(fault) | {"detail": placed(fault)}


OPENAI = Dialect(
    name="openai",
    paths=("/v1/embeddings", "/embeddings"),
    model=EmbeddingsRequest,
    read=read,
    error=shared_error,
    answer=OpenAIAnswer,
    summary="Embed images and texts, in OpenAI's shape",
    headers=HEADERS,
    gives_octets=True,
)


def usage_of(embedded: Sequence[EmbeddedItem]) -> dict[str, Any]:
    """OpenAI's usage: what was charged, and what of it was not computed."""
    tokens = sum(item.charged_tokens for item in embedded)
    usage: dict[str, Any] = {"prompt_tokens": tokens, "total_tokens": tokens}
    if cached := cached_tokens_of(embedded):
        usage["prompt_tokens_details"] = {"cached_tokens": cached}
    return usage


def _inputs(given: EmbeddingsRequest, served: Served, *, separate: bool, max_tokens: int | None) -> list[Input]:
    if given.messages is not None:
        inputs = inputs_of_messages(given.messages, served, separate=separate, max_tokens=max_tokens)
        _check_modalities(inputs, _modalities(given.modality, len(inputs)))
        return inputs
    listed = _listed(given.input)
    modalities = _modalities(given.modality, len(listed))
    inputs = [
        _input(each, index, served, modality, max_tokens)
        for index, (each, modality) in enumerate(zip(listed, modalities, strict=True))
    ]
    _check_modalities(inputs, modalities)
    return inputs


def _listed(given: str | list[Any] | None) -> list[GivenInput]:
    """One text, one image and the ids of one text are lists of one."""
    if isinstance(given, list) and not (given and all(isinstance(each, int) for each in given)):
        return given
    return [] if given is None or given == [] else [given]


def _input(given: GivenInput, index: int, served: Served, modality: str | None, max_tokens: int | None) -> Input:
    if isinstance(given, str) and modality is None:
        return string_input(given, served, "input", index)
    if isinstance(given, str):
        image = modality == "image"
        return image_input(given, served, "input", index) if image else TextInput(given, "input", index)
    if isinstance(given, list):
        return TextInput(given, "input", index)
    return input_of(given, served, "input", index, max_tokens=max_tokens)


def _modalities(given: str | list[str] | None, count: int) -> list[str | None]:
    """One for each input. Raises `Invalid`."""
    if given is None:
        return [None] * count
    listed = given if isinstance(given, list) else [given] * count
    if len(listed) != count:
        raise Invalid(f"modality has {len(listed)} values for {count} inputs", param="modality")
    if others := [each for each in listed if each not in ("image", "text")]:
        raise Invalid(f"modality is image or text, not {others[0][:40]!r}; nothing else is embedded", param="modality")
    return [*listed]


def _check_modalities(inputs: Sequence[Input], modalities: Sequence[str | None]) -> None:
    """Raises `Invalid` for an input that is something else than it is said to be."""
    for each, modality in zip(inputs, modalities, strict=True):
        found = "image" if isinstance(each, ImageInput) else "text"
        found = "several parts" if isinstance(each, DocumentInput) else found
        if modality not in (None, found):
            raise Invalid(f"modality says {modality}, and this is {found}", param="modality", index=each.index)


def _answer(
    embedded: Sequence[EmbeddedItem],
    *,
    about: dict[str, Any],
    vectors: VectorFormat,
    model: ModelFacts,
    kind: str,
    field: str,
) -> dict[str, Any]:
    return about | {
        "data": [
            {
                "object": kind,
                "index": index,
                field: vectors.write(item.embedding(normalize=vectors.normalize), model.int8),
            }
            | ({"repaired": True} if isinstance(item, EmbeddedImage) and item.repaired else {})
            for index, item in enumerate(embedded)
        ],
        "usage": usage_of(embedded),
    }


def _octets(
    embedded: Sequence[EmbeddedItem],
    *,
    about: dict[str, Any],
    vectors: VectorFormat,
    model: ModelFacts,
    described: str | None,
) -> Octets:
    """vLLM's binary answer: the vectors end to end, and if `described`, their type, in a header what they are."""
    pieces = [vectors.octets(item.embedding(normalize=vectors.normalize), model.int8) for item in embedded]
    if described is None:
        return Octets(pieces)
    items: list[dict[str, Any]] = []
    end = 0
    for index, piece in enumerate(pieces):
        start, end = end, end + len(piece)
        place = {"index": index, "start": start, "end": end, "shape": [vectors.dimensions or model.dim]}
        items.append(place | {"embed_dtype": described, "endianness": vectors.endianness})
    metadata = about | {"data": items, "usage": usage_of(embedded)}
    return Octets(pieces, {"metadata": json.dumps(metadata, separators=(",", ":"))})
