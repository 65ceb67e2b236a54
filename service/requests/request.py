"""What a caller asks for, whatever the words: inputs in order, each an image or a text, and the parameters.

Every dialect makes one of these. An input remembers where it stood in the caller's body, so that an error can say so.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from service.errors import Invalid, ServiceError
from service.requests.documents.rows import Document
from service.requests.parameters import EmbedParameters
from service.requests.results import EmbeddedItem


@dataclass(frozen=True, slots=True)
class ImageBounds:
    """What one image may become, in place of the bounds of its request. None: the request's."""

    max_tokens: int | None = None
    max_pixels: int | None = None
    min_pixels: int | None = None


@dataclass(slots=True)
class ImageInput:
    """encoded: base64, a data URI or a URL, given up when it is decoded; None if the body brought the bytes.

    param, index: the field and the place in it that errors name.
    """

    encoded: Any
    param: str
    index: int | None = None
    bounds: ImageBounds | None = None


@dataclass(slots=True)
class TextInput:
    """content: a text, or the ids of one. param, index: the field and the place in it that errors name."""

    content: str | list[int]
    param: str
    index: int | None = None


@dataclass(slots=True)
class DocumentInput:
    """Texts and images that become one vector. param, index: as of the others."""

    parts: list[ImageInput | TextInput]
    param: str
    index: int | None = None


Input = ImageInput | TextInput | DocumentInput


class EmbedRequest:
    """Inputs in the caller's order, and parameters that hold for all of them."""

    def __init__(self, inputs: Sequence[Input], parameters: EmbedParameters) -> None:
        self.parameters = parameters
        self._inputs = list(inputs)
        # Where one input is a document, all are: `Hold` has nothing else beside them.
        fuses = any(isinstance(each, DocumentInput) for each in inputs)
        parts = [parts_of(each) for each in inputs]
        self.images = [part for own in parts for part in own if isinstance(part, ImageInput)]
        self.texts = [] if fuses else [part for own in parts for part in own if isinstance(part, TextInput)]
        self.documents = _documents(parts) if fuses else []
        # `Hold` has the images first. Sorting keeps the order within each kind.
        self._places = list(range(len(inputs)))
        if not fuses:
            self._places.sort(key=lambda place: isinstance(inputs[place], TextInput))

    @property
    def bounds(self) -> list[ImageBounds | None]:
        """One for each image."""
        return [image.bounds for image in self.images]

    def in_order(self, embedded: Sequence[EmbeddedItem]) -> list[EmbeddedItem]:
        """Items that came as `Hold` has them, in the caller's order."""
        return [item for _, item in sorted(zip(self._places, embedded, strict=True), key=lambda pair: pair[0])]

    @contextmanager
    def naming_faults(self) -> Iterator[None]:
        """Errors of an image or a text name the field, and the place in it, that the caller wrote."""
        try:
            yield
        except ServiceError as error:
            if error.index is not None:
                inputs: list[Input] = self._inputs if self.documents else [*self.images, *self.texts]
                given = inputs[error.index]
                error.index, error.param = given.index, given.param
            # The last of several fields has the most: documents, and not the query.
            elif error.param in ("image", "images") and self.images:
                error.param = self.images[-1].param
            elif error.param == "texts" and self.texts:
                error.param = self.texts[-1].param
            raise


def parts_of(given: Input) -> list[ImageInput | TextInput]:
    """An image or a text alone is one part."""
    return given.parts if isinstance(given, DocumentInput) else [given]


def _documents(parts: Sequence[Sequence[ImageInput | TextInput]]) -> list[Document]:
    """Raises `Invalid` for the ids of a text among other parts."""
    documents: list[Document] = []
    images = 0
    for own in parts:
        document: list[int | str] = []
        for part in own:
            if isinstance(part, ImageInput):
                document.append(images)
                images += 1
            elif isinstance(part.content, str):
                document.append(part.content)
            else:
                raise Invalid("the ids of a text cannot stand beside images; send the text", param=part.param)
        documents.append(tuple(document))
    return documents
