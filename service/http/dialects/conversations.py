"""A conversation becomes one input, as in vLLM: its image, or its text.

Most models that are served read an image or a text, never both together. One that fuses them (EmbeddingGemma 2) makes
one vector of all that is left. Two rules say what may stand beside what is embedded:

- instruction: a message of the role system or developer speaks to the model about its task. So does a text beside an
  image that is one of `INSTRUCTIONS`, as clients of instructed models send it. The served models take no
  instructions, so it is left out.
- empty text: a text of nothing but space beside an image says nothing, and is left out.

For other models, whatever is left must be one image or one text. `Packlight-Parts: separate` makes each a vector of
its own instead.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import count, repeat
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from service.errors import Invalid
from service.http.dialects.content import ContentPart, input_of
from service.http.dialects.dialect import Served
from service.requests.request import DocumentInput, ImageInput, Input, TextInput

INSTRUCTIONS = frozenset({"represent the given image.", "represent the given image", "represent the user's input."})

PARTS_HEADER = "Packlight-Parts"
HEADERS = {
    PARTS_HEADER: "separate: a vector for each image and text of a conversation. one, the default: one for all of it."
}

_SEPARATE, _ONE = "separate", "one"
_INSTRUCTING = ("system", "developer")

Content = str | Annotated[list[ContentPart], Field(fail_fast=True)]


class Message(BaseModel):
    """A message of a chat."""

    model_config = ConfigDict(extra="forbid")

    role: str = Field("user", description="system and developer give instructions, which are left out.")
    content: Content = Field(description="A text, or parts.")
    name: str | None = Field(None, description="Taken, and changes nothing.")


def are_separate(headers: Mapping[str, str]) -> bool:
    """Whether each part of a conversation is to have a vector of its own. Raises `Invalid` for an unknown wish."""
    wish = headers.get(PARTS_HEADER.lower(), _ONE).strip().lower()
    if wish not in (_SEPARATE, _ONE):
        raise Invalid(f"{PARTS_HEADER} is {_SEPARATE} or {_ONE}, not {wish[:40]!r}", param=PARTS_HEADER)
    return wish == _SEPARATE


def inputs_of_messages(
    messages: Sequence[Message], served: Served, *, separate: bool, max_tokens: int | None
) -> list[Input]:
    """One input, or if `separate` one for each image and text that is no instruction. Raises `Invalid`.

    max_tokens: of the request.
    """
    inputs: list[Input] = []
    instructions = 0
    for message in messages:
        instructing = message.role in _INSTRUCTING
        parts = _parts(message.content, served, "messages", count(len(inputs)), max_tokens)
        kept = [each for each in parts if not (instructing and isinstance(each, TextInput))]
        instructions += len(parts) - len(kept)
        inputs += kept
    if instructions and not inputs:
        raise Invalid("messages have instructions alone, and no image or text to embed", param="messages")
    return _chosen(inputs, served, "messages", separate=separate)


def inputs_of_content(
    content: Content, served: Served, param: str, index: int | None, *, separate: bool, max_tokens: int | None
) -> list[Input]:
    """The same for the content of one message, whose faults are those of `index`. Raises `Invalid` for no parts."""
    if not content:
        raise Invalid("content has no parts; send an image or a text", param=param, index=index)
    parts = _parts(content, served, param, repeat(index), max_tokens)
    return _chosen(parts, served, param, separate=separate, index=index)


def _parts(
    content: Content, served: Served, param: str, indices: Iterator[int | None], max_tokens: int | None
) -> list[Input]:
    """indices: of the parts, for their faults."""
    if isinstance(content, str):
        return [TextInput(content, param, next(indices))]
    return [
        input_of(part, served, param, index, max_tokens=max_tokens)
        for part, index in zip(content, indices, strict=False)
    ]


def _chosen(
    inputs: list[Input], served: Served, param: str, *, separate: bool, index: int | None = None
) -> list[Input]:
    left = _without_empty_and_instructing(inputs)
    if separate or len(left) <= 1:
        for place, each in enumerate(left):
            each.index = place if index is None else index
        return left
    if served.fuses:
        return [DocumentInput([each for each in left if not isinstance(each, DocumentInput)], param, index)]
    images = sum(isinstance(each, ImageInput) for each in left)
    texts = len(left) - images
    raise Invalid(
        f"the conversation has {images} image(s) and {texts} text(s) to embed, and one vector is its answer: the "
        "model reads one image or one text at a time. Send them as items of a list, each alone, or one conversation "
        f"with the header {PARTS_HEADER}: {_SEPARATE} for a vector of each",
        param=param,
        index=index,
    )


def _without_empty_and_instructing(inputs: list[Input]) -> list[Input]:
    """By the two rules. If all texts are empty, one is left: the empty text has a vector too."""
    if any(isinstance(each, ImageInput) for each in inputs):
        return [each for each in inputs if not (isinstance(each, TextInput) and _is_beside(each.content))]
    said: list[Input] = [each for each in inputs if isinstance(each, TextInput) and each.content]
    return said or inputs[:1]


def _is_beside(text: str | list[int]) -> bool:
    return isinstance(text, str) and (not text.strip() or text.strip().lower() in INSTRUCTIONS)
