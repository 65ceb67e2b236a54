"""The parameters of a request: read from strings (query, form) or JSON values, and checked."""

import re
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal
from urllib.parse import parse_qsl

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from model.images.decode import DecodeMode
from model.sizing.geometry import Geometry, Strategy
from service.errors import Invalid, from_validation_error
from service.limits import ModelFacts
from service.priority import NAMES, PRIORITIES, PRIORITY_HEADER, Priority, named
from service.requests.token_positions import V2PE_DELTAS
from service.requests.vectors import VectorFormat, check_dimensions

# A query of 32 KiB may have thousands, which would hold the event loop for 70 ms.
_MAX_QUERY_FIELDS = 64
_V2PE = "v2pe:"
_POSITIONS = rf"^(mrope|sequence|{_V2PE}({'|'.join(map(re.escape, V2PE_DELTAS))}))$"

_EXPECTED = (
    "The fingerprint of the vectors that the answer's are to be stored or compared with: whole, or up to the hyphen "
    "for any dtype and decode mode. 409 if the server's vectors have another. Several, separated by commas, may name "
    "that of images and that of texts."
)
EXPECTATION = {"X-Expect-Fingerprint": _EXPECTED}
"""The header that says the same as the parameter `expect_fingerprint`, in every dialect."""
_PRIORITY = (
    f"Whether somebody waits for the answer: {NAMES}. A request is bulk if its key, this or the header "
    f"{PRIORITY_HEADER} says so."
)
HEADERS = EXPECTATION | {PRIORITY_HEADER: _PRIORITY}
"""Headers that say the same as a parameter, in every dialect, and what they do."""

OF_VECTORS = ("embedding_type", "dimensions")
"""Parameters that only change how embeddings are written."""

PRIORITY_SCHEMA: dict[str, Any] = {"anyOf": [{"type": "string", "enum": [*PRIORITIES]}, {"type": "integer"}]}


def _without_default(schema: dict[str, Any]) -> None:
    """The server's settings decide the default."""
    del schema["default"]


class EmbedParameters(BaseModel):
    """Parameters of `POST /embed`. Every one may be left out."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_tokens: int | None = Field(None, description="Most tokens of an image. The server's max_image_tokens caps it.")
    max_pixels: int | None = Field(None, description="Most pixels of an image after resizing.")
    max_request_tokens: int | None = Field(None, description="Most tokens of the request's images together.")
    min_pixels: int | None = Field(
        None, description="Fewest pixels of an image after resizing. For strategy=native only."
    )
    strategy: Strategy | None = Field(
        None,
        description="How an image is resized under its cap. /info lists the model's strategies, default first.",
    )
    output: Literal["embedding", "tokens", "both", "segments"] = Field(
        "embedding", description="A vector for each image, for each token, both, or for each segment."
    )
    positions: str | None = Field(
        None,
        pattern=_POSITIONS,
        description="Positions for a language model beside token vectors: mrope, sequence or v2pe:<delta>, "
        "delta one of 1, 1/2, 1/4, … 1/256. The default of a language model's tower is how that model counts.",
    )
    embedding_type: Literal["float", "float16", "int8", "uint8", "binary", "ubinary"] = Field(
        "float",
        description="Type of an embedding's numbers; binary and ubinary have a bit for each. Token vectors are float.",
    )
    dimensions: int | None = Field(
        None,
        ge=1,
        description="How many of its first numbers an embedding keeps, scaled to length 1 again. /info says whether "
        "the model's vectors may be cut.",
    )
    normalize: bool = Field(True, description="Scale embeddings to length 1. Token vectors are never scaled.")
    encoding: Literal["float", "base64"] = Field("float", description="JSON numbers, or base64 of little-endian ones.")
    decode: DecodeMode = Field(
        "exact",
        description="fast decodes JPEGs much larger than their resized image at a fraction of their size. The default "
        "is the server's setting.",
        json_schema_extra=_without_default,
    )
    truncate: Literal["end", "error"] = Field(
        "end", description="What becomes of a text with too many tokens: its end is cut off, or it is refused."
    )
    task: str | None = Field(
        None,
        description="What a text is for, by the name of one of the model's prompts, which is put before it. /info "
        "lists them, and the default.",
    )
    expect_fingerprint: str | None = Field(None, description=_EXPECTED)
    priority: Priority = Field(
        "interactive", description=_PRIORITY, json_schema_extra=lambda schema: schema.update(PRIORITY_SCHEMA)
    )
    timeout_ms: int | None = Field(
        None, ge=1, le=3_600_000, description="Deadline of the request, counted from its first byte."
    )
    partial: bool = Field(False, description="Answer the good images and texts, with an error for each bad one.")

    @field_validator("priority", mode="before")
    @classmethod
    def _name_priority(cls, value: Any) -> Any:
        return named(value)

    @property
    def v2pe_delta(self) -> float | None:
        """The delta of `positions=v2pe:<delta>`."""
        return V2PE_DELTAS.get((self.positions or "").removeprefix(_V2PE))

    def check_positions(self, geometry: Geometry) -> None:
        """Raises `Invalid` for positions that the answer could not hold."""
        if self.positions is not None and not self.wants_tokens:
            raise Invalid("positions belong to token vectors; ask for output=tokens or both", param="positions")
        if self.positions == "mrope" and (self.strategy or geometry.default_strategy) == "anyres":
            raise Invalid("mrope has no positions for the tiles of strategy=anyres; v2pe does", param="positions")

    def check_vectors(self, model: ModelFacts) -> None:
        """Raises `Invalid` for embeddings that the model does not have, or that would mean nothing."""
        check_dimensions(self.dimensions, model.dim, model.matryoshka_dimensions)
        for name in OF_VECTORS:
            if self.wants_tokens and getattr(self, name) not in ("float", None):
                raise Invalid(f"output={self.output} has no {name}: token vectors are float32 and whole", param=name)
        if self.embedding_type in ("int8", "uint8") and not self.normalize:
            raise Invalid(
                f"embedding_type={self.embedding_type} has a scale for vectors of length 1; leave out normalize",
                param="normalize",
            )

    @property
    def vector_format(self) -> VectorFormat:
        """How embeddings are written."""
        return VectorFormat(self.embedding_type, self.dimensions, self.normalize, base64=self.encoding == "base64")

    @property
    def wants_tokens(self) -> bool:
        return self.output in ("tokens", "both")

    @property
    def wants_embedding(self) -> bool:
        return self.output in ("embedding", "both")


def read_parameters(
    texts: Mapping[str, str], json: Mapping[str, Any] | None = None, *, decode: DecodeMode = "exact"
) -> EmbedParameters:
    """Parameters from the strings of a query or form, and from JSON, where a string is no number.

    decode: the server's setting, for a request that gives none. Raises `Invalid`, which names the parameter.
    """
    json = json or {}
    if twice := texts.keys() & json.keys():
        name = min(twice)[:40]
        raise Invalid(f"{name} is given more than once, in the query and in the body", param=name)
    values = {"decode": decode, **texts, **json}
    try:
        if json:
            values |= EmbedParameters.model_validate(json, strict=True).model_dump(exclude_unset=True)
        return EmbedParameters.model_validate(values)
    except ValidationError as error:
        raise from_validation_error(error, EmbedParameters) from None


@lru_cache(maxsize=64)
def read_query(query: bytes) -> tuple[tuple[str, str], ...]:
    """Names and values, in order. Raises `Invalid` for more than any request has parameters for."""
    try:
        return tuple(parse_qsl(query.decode("latin-1"), keep_blank_values=True, max_num_fields=_MAX_QUERY_FIELDS))
    except ValueError:
        raise Invalid(f"the query has more than {_MAX_QUERY_FIELDS} parameters") from None


def check_query(query: bytes, fields: Collection[str]) -> None:
    """Raises `Invalid` for one of `fields` in the query of a route that reads them from its body alone.

    `priority` is read from any query. Other names are let be: SDKs and gateways put versions and the like there.
    """
    if not query:
        return
    for name, _ in read_query(query):
        if name != "priority" and (name in fields or name in EmbedParameters.model_fields):
            raise Invalid(f"{name} is in the query, and this path reads it in the body alone", param=name)


def merged(query: Sequence[tuple[str, str]], form: Sequence[tuple[str, str]] = ()) -> dict[str, str]:
    """Parameters of the query and of the form. Raises `Invalid` for a name that is given twice."""
    values: dict[str, str] = {}
    for name, value in (*query, *form):
        if name in values:
            name = name[:40]
            raise Invalid(f"{name} is given more than once, in the query, the form or both", param=name)
        values[name] = value
    return values
