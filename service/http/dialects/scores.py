"""vLLM's `POST /score`: how alike the images and texts of each pair are.

A score is the cosine of the two vectors, from -1 to 1. The model's logit of an image and a text is
`logit_scale * score + logit_bias`, as `/info` names them, and for SigLIP its sigmoid is the model's probability.
"""

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from service.errors import Invalid
from service.http.dialects.content import ContentPart, input_of, string_input
from service.http.dialects.conversations import HEADERS, are_separate, inputs_of_content
from service.http.dialects.dialect import Asked, Body, Dialect, Served, checked
from service.http.dialects.openai import OpenAIUsage, error, usage_of
from service.http.dialects.vllm_options import RequestOptions, check_inputs, parameters_of
from service.requests.request import EmbedRequest, Input, TextInput, parts_of
from service.requests.results import EmbeddedItem

# What two sides may be called, the first side first.
_SIDES = (("text_1", "text_2"), ("data_1", "data_2"), ("queries", "documents"), ("queries", "items"))


class ScoredPart(ContentPart):
    """An image or a text: as a part of a message, as `{"image": …}`, or as the content of a message."""

    model_config = ConfigDict(extra="forbid")

    image: str | None = Field(None, description="A data URI, base64, or a URL if the server fetches it.")
    content: Annotated[list[ContentPart], Field(fail_fast=True)] | None = Field(
        None, description="Parts, by the rules of a conversation: one image or one text."
    )


Scored = str | ScoredPart
ScoredList = Annotated[list[Scored], Field(fail_fast=True)]


class ScoringOptions(RequestOptions):
    """Fields that requests for scores and rankings share."""

    use_activation: bool | None = Field(None, description="Taken, and changes nothing: a score is a cosine.")
    max_tokens_per_query: int | None = Field(
        None, ge=0, description="0, or at least the model's own length: a text is cut there. Fewer are refused."
    )
    max_tokens_per_doc: int | None = Field(None, ge=0, description="The same, of a document.")
    instruction: str | None = Field(None, description="Refused for texts unless it is empty.")
    chat_template_kwargs: dict[str, Any] | None = Field(None, description="Refused for texts unless it is empty.")


class ScoreRequest(ScoringOptions):
    """Two sides. The first is one for all of the second, or has as many as the second."""

    text_1: Scored | ScoredList | None = Field(None, description="The first side: a text, an image, or a list.")
    text_2: Scored | ScoredList | None = Field(None, description="The second side.")
    data_1: Scored | ScoredList | None = Field(None, description="Another name of text_1.")
    data_2: Scored | ScoredList | None = Field(None, description="Another name of text_2.")
    queries: Scored | ScoredList | None = Field(None, description="Another name of text_1.")
    documents: Scored | ScoredList | None = Field(None, description="Another name of text_2.")
    items: Scored | ScoredList | None = Field(None, description="Another name of text_2, beside queries.")


class ScoreItem(BaseModel):
    object: Literal["score"]
    index: int
    score: float = Field(description="The cosine of the two vectors.")


class ScoreAnswer(BaseModel):
    """vLLM's shape."""

    id: str | None = None
    object: Literal["list"]
    data: list[ScoreItem]
    model: str
    usage: OpenAIUsage


def read(body: Body, served: Served) -> Asked:
    """Raises `ServiceError`."""
    given = checked(ScoreRequest, body.content)
    served.check_name(given.model)
    first, second = _sides(given)
    request, sides = request_of(given, [(name, getattr(given, name)) for name in (first, second)], body, served)
    ones, others = map(len, sides)
    if ones not in (1, others):
        raise Invalid(
            f"{first} has {ones} and {second} {others}; the first is one for all of the second, or as many", param=first
        )
    about = given.answer_id | {"object": "list", "model": served.model.name}
    return Asked(request, partial(_answer, about=about, first=ones))


def request_of(
    given: ScoringOptions, sides: Sequence[tuple[str, Any]], body: Body, served: Served
) -> tuple[EmbedRequest, list[list[Input]]]:
    """The request of all sides, one side after the other, and the inputs of each. sides: names and values.

    Raises `Invalid`.
    """
    parameters = parameters_of(given, served)
    separate = are_separate(body.headers)
    read_sides: list[list[Input]] = []
    for name, value in sides:
        listed = value if isinstance(value, list) else [value]
        # In a list each item is one input, so that a result's index is its place there.
        splits = separate and not isinstance(value, list)
        found = [
            each
            for index, one in enumerate(listed)
            for each in _inputs(one, name, index, served, separate=splits, max_tokens=parameters.max_tokens)
        ]
        if not found:
            raise Invalid(f"{name} is empty", param=name)
        read_sides.append(found)
    inputs = [each for side in read_sides for each in side]
    check_inputs(given, inputs, served)
    _check_texts(given, inputs, served)
    return EmbedRequest(inputs, parameters), read_sides


def cosines(first: Sequence[EmbeddedItem], second: Sequence[EmbeddedItem]) -> list[float]:
    """One for each of the second: with the only one of the first, or with that in the same place."""
    ones = np.stack([item.embedding(normalize=True) for item in first]).astype(np.float64)
    others = np.stack([item.embedding(normalize=True) for item in second]).astype(np.float64)
    found: list[float] = np.clip((ones * others).sum(axis=1), -1.0, 1.0).tolist()
    return found


def _sides(given: ScoreRequest) -> tuple[str, str]:
    """The names of the two that are sent. Raises `Invalid`."""
    names = {name for pair in _SIDES for name in pair if getattr(given, name) is not None}
    for first, second in _SIDES:
        if names == {first, second}:
            return first, second
    known = ", ".join(f"{first} and {second}" for first, second in _SIDES)
    raise Invalid(f"send two sides, and no more: {known}", param=min(names, default="text_1"))


def _inputs(
    given: Scored, param: str, index: int, served: Served, *, separate: bool, max_tokens: int | None
) -> list[Input]:
    if isinstance(given, str):
        return [string_input(given, served, param, index, text_form='{"text": "…"}')]
    kinds = [name for name in ("content", "image", "text", "image_url") if getattr(given, name) is not None]
    if len(kinds) != 1:
        raise Invalid("an object has one of content, image, text and image_url", param=param, index=index)
    if given.content is not None:
        return inputs_of_content(given.content, served, param, index, separate=separate, max_tokens=max_tokens)
    if given.image is not None:
        part = given.model_copy(update={"image_url": given.image, "type": None})
        return [input_of(part, served, param, index, max_tokens=max_tokens)]
    return [input_of(given, served, param, index, max_tokens=max_tokens)]


def _check_texts(given: ScoringOptions, inputs: Sequence[Input], served: Served) -> None:
    """Raises `Invalid` for a field that would change the vector of a text."""
    text = served.model.text
    if text is None or not any(isinstance(part, TextInput) for each in inputs for part in parts_of(each)):
        return
    for name in ("max_tokens_per_query", "max_tokens_per_doc"):
        if 0 < (getattr(given, name) or 0) < text.context:
            raise Invalid(
                f"{name} would change the vectors of texts: they are cut to the model's {text.context} tokens",
                param=name,
            )
    for name in ("instruction", "chat_template_kwargs"):
        if getattr(given, name):
            raise Invalid(f"{name} would change the vectors of texts; the model takes no instructions", param=name)


def _answer(embedded: Sequence[EmbeddedItem], *, about: dict[str, Any], first: int) -> dict[str, Any]:
    scores = cosines(embedded[:first], embedded[first:])
    data = [{"object": "score", "index": index, "score": score} for index, score in enumerate(scores)]
    return about | {"data": data, "usage": usage_of(embedded)}


SCORES = Dialect(
    name="score",
    paths=("/score", "/v1/score"),
    model=ScoreRequest,
    read=read,
    error=error,
    answer=ScoreAnswer,
    summary="Cosines of pairs of images and texts, in vLLM's shape",
    headers=HEADERS,
)
