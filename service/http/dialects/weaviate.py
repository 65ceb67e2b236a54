"""`POST /vectorize`, as Weaviate's module multi2vec-clip asks its inference service.

It names no model, and sends null for the list that it has not.
"""

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from service.errors import ServiceError
from service.http.dialects.content import image_input
from service.http.dialects.dialect import Asked, Body, Dialect, Served, checked, placed
from service.http.dialects.embeddings import write_embeddings
from service.limits import ModelFacts
from service.requests.parameters import EmbedParameters
from service.requests.request import EmbedRequest, Input, TextInput
from service.requests.results import EmbeddedItem, EmbeddedText, images_of
from service.requests.vectors import VectorFormat


class WeaviateRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    texts: Annotated[list[str], Field(fail_fast=True)] = Field([], description="Their vectors are textVectors.")
    images: Annotated[list[str], Field(fail_fast=True)] = Field([], description="Base64, or data URIs.")


class WeaviateAnswer(BaseModel):
    """As Weaviate's module reads it."""

    textVectors: list[list[float]]
    imageVectors: list[list[float]]
    error: str = Field(description="Empty. An answer with another status says here what was wrong.")


def read(body: Body, served: Served) -> Asked:
    """Raises `ServiceError`."""
    asked = checked(WeaviateRequest, body.content)
    inputs: list[Input] = [image_input(image, served, "images", index) for index, image in enumerate(asked.images)]
    inputs += [TextInput(text, "texts", index) for index, text in enumerate(asked.texts)]
    return Asked(EmbedRequest(inputs, EmbedParameters(decode=served.decode)), partial(_answer, model=served.model))


def error(fault: ServiceError) -> dict[str, Any]:
    return {"error": placed(fault)}


WEAVIATE = Dialect(
    name="weaviate",
    paths=("/vectorize",),
    model=WeaviateRequest,
    read=read,
    error=error,
    answer=WeaviateAnswer,
    summary="Embed images and texts, as Weaviate's multi2vec-clip asks",
    any_model=True,
)


def _answer(embedded: Sequence[EmbeddedItem], *, model: ModelFacts) -> dict[str, Any]:
    images = images_of(embedded)
    texts = [item for item in embedded if isinstance(item, EmbeddedText)]
    return {
        "textVectors": write_embeddings(texts, VectorFormat(), model),
        "imageVectors": write_embeddings(images, VectorFormat(), model),
        "error": "",
    }
