"""vLLM's `POST /pooling`: the request of `/v1/embeddings`, and an answer that calls a vector `data`."""

from typing import Literal

from pydantic import BaseModel, Field

from service.errors import Invalid
from service.http.dialects.conversations import HEADERS
from service.http.dialects.dialect import Asked, Body, Dialect, Served
from service.http.dialects.openai import EmbeddingsRequest, OpenAIUsage, asked_of, error, parsed


class PoolingRequest(EmbeddingsRequest):
    """A request of vLLM's pooling API, answered with embeddings."""

    task: str | None = Field(None, description="embed, the default. Others are refused.")


class PoolingItem(BaseModel):
    object: Literal["pooling"]
    index: int
    data: list[float] | str
    repaired: Literal[True] | None = None


class PoolingAnswer(BaseModel):
    """vLLM's shape."""

    id: str | None = None
    object: Literal["list"]
    data: list[PoolingItem]
    model: str
    usage: OpenAIUsage


def read(body: Body, served: Served) -> Asked:
    """Raises `ServiceError`."""
    given = parsed(PoolingRequest, body.content)
    if isinstance(given, PoolingRequest) and given.task not in (None, "embed"):
        hint = "; POST /embed with output=tokens gives a vector for each token" if "token" in given.task else ""
        raise Invalid(f"task is embed, not {given.task[:40]!r}{hint}", param="task")
    return asked_of(given, body, served, kind="pooling", field="data")


POOLING = Dialect(
    name="pooling",
    paths=("/pooling",),
    model=PoolingRequest,
    read=read,
    error=error,
    answer=PoolingAnswer,
    summary="Embed images and texts, in the shape of vLLM's pooling",
    headers=HEADERS,
    gives_octets=True,
)
