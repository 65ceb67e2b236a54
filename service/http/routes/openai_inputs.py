"""The inputs of `POST /v1/embeddings`, in OpenAI's shape. An input is a text unless it is a data URI."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.errors import Invalid, ServiceError, from_validation_error
from service.http.bodies.form import check_count
from service.http.bodies.receive import BodyLimits, check_text_count
from service.requests.results import EmbeddedItem

_ADDRESSES = ("http://", "https://")


class ImageUrl(BaseModel):
    url: str


class ContentPart(BaseModel):
    type: str
    text: str | None = None
    image_url: ImageUrl | None = None


class Message(BaseModel):
    role: str = "user"
    content: str | Annotated[list[ContentPart], Field(fail_fast=True)]


_INPUT_FORMS = (
    "input is a text, a data URI of an image or the ids of a text, or a list of these; in a list a text may be "
    '{"type": "text", "text": "…"}'
)

# One wrong value is named. Without `fail_fast`, an error for each of 10,000 holds the event loop for 150 ms.
TokenId = Annotated[int, Field(ge=0)]
TokenIds = Annotated[list[TokenId], Field(fail_fast=True)]
Input = str | TokenIds | ContentPart
InputList = Annotated[list[Input], Field(fail_fast=True)]


class EmbeddingsRequest(BaseModel):
    """A request of OpenAI's embeddings API whose inputs are images and texts, with two of Packlight's budgets."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = Field(None, description="The served model's name.")
    input: str | TokenIds | InputList | None = Field(
        None,
        description="A text, a data URI of an image, or the ids of a text; or a list of them. A text that begins with "
        '`data:` is sent as `{"type": "text", "text": "…"}`.',
    )
    messages: Annotated[list[Message], Field(fail_fast=True)] | None = Field(
        None, description="Instead of input: messages with image_url parts alone, or with text parts alone."
    )
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(None, ge=1, description="Cut embeddings to this width and normalise them again.")
    user: str | None = None
    max_pixels: int | None = None
    max_tokens: int | None = None

    @property
    def source(self) -> str:
        """The field that the inputs come in."""
        return "messages" if self.input is None else "input"


def parse_request(content: dict[str, Any]) -> EmbeddingsRequest:
    try:
        return EmbeddingsRequest.model_validate(content, strict=True)
    except ValidationError as error:
        refusal = from_validation_error(error, EmbeddingsRequest)
        if refusal.param == "input":
            # The error is about the first form that `input` may have.
            raise Invalid(_INPUT_FORMS, param="input") from None
        raise refusal from None


@dataclass(frozen=True, slots=True)
class _Text:
    """A text, or the ids of one."""

    content: str | list[int]


class Inputs:
    """The inputs of a request, images apart from texts. source: the field that they came in.

    images: data URIs, which decoding takes out. The places of both among the inputs are kept.
    """

    def __init__(self, asked: EmbeddingsRequest) -> None:
        """Raises `Invalid` for a wrong input, or for none."""
        self.source = asked.source
        parts = _parts(asked)
        if not parts:
            raise Invalid("the request has no input", param=self.source)
        self.images: list[Any] = [part for part in parts if isinstance(part, str)]
        self.texts = [part.content for part in parts if isinstance(part, _Text)]
        # The order of `Hold`: images, then texts.
        self._places = sorted(range(len(parts)), key=lambda place: isinstance(parts[place], _Text))

    @property
    def first_text(self) -> int:
        return self._places[len(self._places) - len(self.texts)]

    def in_order(self, embedded: Sequence[EmbeddedItem]) -> list[EmbeddedItem]:
        return [item for _, item in sorted(zip(self._places, embedded, strict=True), key=lambda pair: pair[0])]

    def check(self, limits: BodyLimits) -> None:
        """Raises `TooLarge` for too many inputs, and `Invalid` for an address, from which no image is fetched."""
        check_count(len(self.images), limits.max_images)
        check_text_count(len(self.texts), limits)
        for index, image in enumerate(self.images):
            if image[:8].lower().startswith(_ADDRESSES):
                raise Invalid(
                    "images are not fetched from URLs; send a data URI. A text that begins like one is sent as "
                    '{"type": "text", "text": "…"}',
                    param=self.source,
                    index=index,
                )

    @contextmanager
    def naming_faults(self) -> Iterator[None]:
        """Errors of an image or a text name the field and its place among the inputs."""
        try:
            yield
        except ServiceError as error:
            if error.index is not None:
                error.index, error.param = self._places[error.index], self.source
            elif error.param in ("image", "texts"):
                error.param = self.source
            raise


def _parts(asked: EmbeddingsRequest) -> list[str | _Text]:
    """The inputs of a request, in order: the URI of an image, or a text."""
    if asked.messages is not None:
        return _parts_of_messages(asked.messages)
    given = asked.input
    if isinstance(given, str):
        return [_part(given, 0)]
    if given and all(isinstance(each, int) for each in given):
        return [_Text(given)]  # type: ignore[arg-type]
    return [_part(each, index) for index, each in enumerate(given or [])]  # type: ignore[arg-type]


def _part(given: Input, index: int) -> str | _Text:
    if isinstance(given, str):
        return given if is_image(given) else _Text(given)
    if isinstance(given, list):
        return _Text(given)
    if given.type == "text" and given.text is not None:
        return _Text(given.text)
    if given.type == "image_url" and given.image_url is not None:
        return given.image_url.url
    raise Invalid(
        f'an input of type {given.type[:40]!r}: a text is {{"type": "text", "text": …}}, an image '
        '{"type": "image_url", "image_url": {"url": …}}',
        param="input",
        index=index,
    )


def is_image(given: str) -> bool:
    """Whether a string stands for an image. Looks at its first letters only: uploads are long."""
    return given[:8].lower().startswith(("data:", *_ADDRESSES))


def _parts_of_messages(messages: Sequence[Message]) -> list[str | _Text]:
    parts: list[str | _Text] = []
    for message in messages:
        if isinstance(message.content, str):
            parts.append(_Text(message.content))
            continue
        for part in message.content:
            if part.type == "image_url" and part.image_url is not None:
                parts.append(part.image_url.url)
            elif part.type == "text" and part.text is not None:
                parts.append(_Text(part.text))
            else:
                raise Invalid(
                    f"a part of type {part.type[:40]!r}: only text and image_url parts are embedded", param="messages"
                )
    if len({type(part) for part in parts}) > 1:
        raise Invalid("messages with both text and images cannot become one vector; send them apart", param="messages")
    return parts
