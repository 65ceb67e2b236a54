"""What `/docs` says of answers and errors. Schemas for readers: nothing is validated by them."""

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, Field

from model.sizing.geometry import Strategy
from service.errors import ERRORS, BadRequest, HeadersTooLarge, ServiceError, Unauthorized, Unavailable, UploadTimeout
from service.http.dialects.embeddings import WARNING_HEADER
from service.http.formats import MEDIA_TYPES, OCTETS
from service.http.responses import CACHED_HEADER, PACKS_HEADER
from service.priority import PRIORITY_HEADER


class ErrorDetails(BaseModel):
    code: str = Field(examples=["invalid"])
    message: str = Field(examples=["max_tokens is 0; an image takes at least 1 token"])
    param: str | None = Field(None, description="The parameter, setting or field at fault.")
    index: int | None = Field(None, description="The image or text at fault, counted from 0.")
    type: Literal["invalid_request_error"] | None = Field(
        None, description="As in OpenAI's API, of a model that is not served here."
    )


class ErrorAnswer(BaseModel):
    error: ErrorDetails


class TokenVectors(BaseModel):
    shape: tuple[int, int]
    data: list[list[float]] | str


class Positions(BaseModel):
    shape: tuple[int, int] | tuple[int] = Field(description="mrope: [N, 3], time, row and column. Others: [N].")
    dtype: Literal["int32", "float32"]
    data: list[list[int]] | list[float] | str


class SegmentAnswer(BaseModel):
    kind: Literal["image", "thumbnail", "tile"]
    row: int
    column: int
    grid: tuple[int, int]
    tokens: int
    offset: int = Field(description="The place of its first token among the image's tokens.")
    embedding: list[float] | str | None = Field(None, description="With output=segments.")


_CAPPED = "Only if the request asked for a larger cap than the server's setting of this name, which applied instead."
_REPAIRED = "Only if true: the file is a JPEG without its end marker, and at most its last row of blocks is missing."


class ImageAnswer(BaseModel):
    index: int
    kind: Literal["image"]
    embedding: list[float] | str | None = Field(None, description="With output=embedding or both.")
    token_embeddings: TokenVectors | None = Field(None, description="With output=tokens or both.")
    positions: Positions | None = Field(
        None,
        description="Positions of the token vectors: with positions=…, or by default for towers of language models.",
    )
    segments: list[SegmentAnswer] | None = Field(
        None, description="With output=segments, and for every image that has more than one."
    )
    tokens: int = Field(description="Tokens that the image took and was charged.")
    output_tokens: int = Field(description="Token vectors of output=tokens: fewer if the model merges tokens.")
    grid: tuple[int, int] = Field(description="Patches of the first segment, rows first.")
    size: tuple[int, int] = Field(description="Height and width in pixels of the image as sent, upright.")
    resized: tuple[int, int] = Field(
        description="Height and width in pixels of what was cut into patches. With anyres, of all tiles together."
    )
    strategy: Strategy
    token_cap: int = Field(description="The cap that applied: the smallest of what was asked for and allowed.")
    capped_by: Literal["max_image_tokens"] | None = Field(None, description=_CAPPED)
    cached: Literal[True] | None = Field(
        None, description="Only if true: an earlier request had the same picture embedded, with these vectors."
    )
    repaired: Literal[True] | None = Field(None, description=_REPAIRED)


class TextAnswer(BaseModel):
    index: int
    kind: Literal["text"]
    embedding: list[float] | str
    tokens: int = Field(description="Tokens that the text took and was charged.")
    truncated: bool = Field(description="The text had more tokens than the model takes, and its end was cut off.")


class InputImage(BaseModel):
    """An image of an input, as in `ImageAnswer`."""

    tokens: int
    output_tokens: int
    grid: tuple[int, int]
    size: tuple[int, int]
    resized: tuple[int, int]
    strategy: Strategy
    token_cap: int
    capped_by: Literal["max_image_tokens"] | None = Field(None, description=_CAPPED)
    repaired: Literal[True] | None = Field(None, description=_REPAIRED)


class InputAnswer(BaseModel):
    """The vector of texts and images."""

    index: int
    kind: Literal["input"]
    embedding: list[float] | str
    tokens: int = Field(description="Patches of its images, and ids of its text: what it was charged.")
    text_tokens: int
    truncated: bool = Field(description="Its texts had more tokens than the model takes, and their end was cut off.")
    images: list[InputImage]


class FailedItem(BaseModel):
    """An image or a text that could not be embedded, among others that could (partial=true)."""

    index: int
    error: ErrorDetails


class Usage(BaseModel):
    images: int
    texts: int | None = Field(None, description="Texts that were embedded, if there were any.")
    tokens: int = Field(description="Tokens that were charged.")
    cached_tokens: int | None = Field(
        None, description="Those of them that were not computed, since their images were embedded before, if any were."
    )
    inputs: int | None = Field(None, description="Inputs that were embedded, if there were any.")
    image_tokens: int | None = Field(None, description="Of inputs.")
    text_tokens: int | None = Field(None, description="Of inputs.")


class EmbedAnswer(BaseModel):
    model: str
    dim: int = Field(description="Width of an embedding, after it was cut. binary and ubinary have a bit for each.")
    embedding_type: str | None = Field(None, description="The one that was asked for, unless that is float.")
    fingerprint: str = Field(
        description="Of images' vectors. What stands before the hyphen must be equal within one index; what follows is "
        "the dtype, with -fast for that decode mode, and moves vectors by rounding alone.",
        examples=["4ba8656fa140374a-bfloat16"],
    )
    text_fingerprint: str | None = Field(None, description="Of texts' vectors, if the answer has any.")
    data: list[ImageAnswer | TextAnswer | InputAnswer | FailedItem] = Field(
        description="The images, and then the texts; or the inputs."
    )
    usage: Usage


class ClassifiedImage(BaseModel):
    index: int
    label: str = Field(description="The label with the highest probability.")
    probabilities: list[float] = Field(description="One for each label, in order.")
    logits: list[float] | None = Field(None, description="With raw=true.")
    tokens: int = Field(description="Tokens that the image took and was charged.")


class ClassifyAnswer(BaseModel):
    model: str
    fingerprint: str
    labels: list[str]
    data: list[ClassifiedImage | FailedItem]
    usage: Usage


class StatusAnswer(BaseModel):
    status: str


class OpenAIModel(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "packlight"
    root: str = Field(description="The same name, where vLLM's load test looks for a tokenizer.")
    parent: None = None
    max_model_len: int | None = Field(None, description="Most tokens of a text, if the model takes texts.")


class OpenAIModels(BaseModel):
    object: Literal["list"] = "list"
    data: list[OpenAIModel]


class InfinityModel(BaseModel):
    """Without an owner: infinity's client takes no other than infinity."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    stats: dict[str, int] = Field({}, description="Empty; the client requires it. /metrics has figures.")


class InfinityModels(BaseModel):
    object: Literal["list"] = "list"
    data: list[InfinityModel]


_HEADERS = {
    "X-Request-ID": {"description": "The caller's own, or a new one.", "schema": {"type": "string"}},
    "Server-Timing": {"description": "Milliseconds in each stage: `receive;dur=1.2, …`.", "schema": {"type": "string"}},
    CACHED_HEADER: {
        "description": "Tokens that were charged and not computed, if their images were embedded before.",
        "schema": {"type": "integer", "minimum": 1},
    },
    PRIORITY_HEADER: {"description": "`bulk`, if the request was of that class.", "schema": {"const": "bulk"}},
    PACKS_HEADER: {
        "description": "The packs that ran the request's items, by their ids in `/stats`, separated by commas.",
        "schema": {"type": "string"},
    },
}
_WARNING = {
    WARNING_HEADER: {
        "description": "With dimensions, if the model does not say that its vectors may be cut.",
        "schema": {"type": "string"},
    }
}
_NPY_HEADERS = {
    "X-Image-Tokens": {
        "description": "With application/x-npy: the tokens of each image and then of each text, separated by commas.",
        "schema": {"type": "string"},
    },
    "X-Image-Cached": {
        "description": "With application/x-npy: the indices of images that were embedded before, if any was.",
        "schema": {"type": "string"},
    },
    "X-Image-Repaired": {
        "description": "With application/x-npy: the indices of images that were repaired, if any was.",
        "schema": {"type": "string"},
    },
}
_FINGERPRINT = {"X-Fingerprint": {"description": "Of the images' vectors.", "schema": {"type": "string"}}}
_FINGERPRINTS = _FINGERPRINT | {
    "X-Text-Fingerprint": {"description": "Of the texts' vectors, if there are any.", "schema": {"type": "string"}},
}
_FILE = {"schema": {"type": "string", "format": "binary"}}
_RETRY_AFTER = {
    "Retry-After": {
        "description": "Seconds until there would be room if no new work arrived.",
        "schema": {"type": "integer", "minimum": 1},
    }
}


def embed_answer() -> dict[str, Any]:
    """The three formats of an answer of `POST /embed`."""
    return {
        "model": EmbedAnswer,
        "description": "JSON, or the arrays that `Accept` asks for.",
        "headers": _HEADERS | _FINGERPRINTS | _NPY_HEADERS | _WARNING,
        "content": {MEDIA_TYPES["npy"]: _FILE, MEDIA_TYPES["safetensors"]: _FILE},
    }


def dialect_answer(model: type[BaseModel], *, octets: bool) -> dict[str, Any]:
    """An answer in a dialect's shape. octets: it may be bytes instead."""
    description = (model.__doc__ or "").strip()
    described = {"model": model, "description": description, "headers": _HEADERS | _FINGERPRINTS}
    return described | ({"content": {OCTETS: _FILE}} if octets else {})


def dialect_errors() -> dict[int | str, dict[str, Any]]:
    """Every status but 200 of a route whose errors have the shape of its dialect."""
    described = error_responses()
    for answer in described.values():
        answer["content"] = {"application/json": {"schema": {"type": "object", "additionalProperties": True}}}
    return described


def classify_answer() -> dict[str, Any]:
    return {"model": ClassifyAnswer, "description": "Probabilities of the labels.", "headers": _HEADERS | _FINGERPRINT}


def status_answer(example: str) -> dict[str, Any]:
    return {"model": StatusAnswer, "description": f"For example `{example}`."}


def error_responses() -> dict[int | str, dict[str, Any]]:
    """Every status but 200 of an embedding route."""
    answers = described(ERRORS)
    answers[500]["description"] = "`engine_fault` or `internal`: the fault is the server's."
    return answers


def common_responses() -> dict[int | str, dict[str, Any]]:
    """The statuses that any route may answer with."""
    return described((BadRequest, Unauthorized, UploadTimeout, HeadersTooLarge, Unavailable))


def described(errors: Sequence[type[ServiceError]]) -> dict[int | str, dict[str, Any]]:
    """The answers of these errors, by their status."""
    return {
        error.status: {
            # By its name: FastAPI makes a field of its own of each model that it is given, 250 of this one.
            "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{ErrorAnswer.__name__}"}}},
            "description": f"`{error.code}`: {(error.__doc__ or '').strip()}",
            **({"headers": _RETRY_AFTER} if error.status in (429, 503) else {}),
        }
        for error in errors
    }
