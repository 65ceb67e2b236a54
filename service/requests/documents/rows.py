"""The documents of a request: which images and texts become one vector, and the row of ids that they make."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.sizing.plan import ImagePlan
from service.limits import DocumentFacts

Part = int | str
"""The number of an image among those of the request, or a text."""
Document = tuple[Part, ...]


@dataclass(frozen=True, slots=True, eq=False)
class DocumentRow:
    """ids: int32 `[N]`, as in `DocumentJob`. text_tokens: those that are counted. truncated: a text was cut. plans: of
    its images."""

    ids: NDArray[np.int32]
    text_tokens: int
    truncated: bool
    plans: tuple[ImagePlan, ...]

    @property
    def image_tokens(self) -> int:
        return sum(plan.tokens for plan in self.plans)

    @property
    def tokens(self) -> int:
        return self.text_tokens + self.image_tokens


def images_of_document(document: Document) -> list[int]:
    return [part for part in document if isinstance(part, int)]


def texts_alone(documents: Sequence[Document]) -> int:
    """How many documents have no image."""
    return sum(not images_of_document(document) for document in documents)


def owners(documents: Sequence[Document]) -> dict[int, int]:
    """The number of the document that each image is in."""
    return {image: number for number, document in enumerate(documents) for image in images_of_document(document)}


def texts_of(document: Document, *, prompt: str) -> list[str]:
    """The texts around the images, `[images + 1]`: before the first, between any two, and behind the last.

    Neighbouring texts are one. Two images with nothing between them have a space there, as the model's own processor
    puts one. The prompt begins a document that has a text.
    """
    texts = [""]
    for part in document:
        if isinstance(part, str):
            texts[-1] += part
        else:
            texts.append("")
    if any(isinstance(part, str) for part in document):
        texts[0] = prompt + texts[0]
    inner = [text or " " for text in texts[1:-1]]
    return [texts[0], *inner, texts[-1]] if len(texts) > 1 else texts


def row_of(
    ids: Sequence[Sequence[int]], plans: Sequence[ImagePlan], facts: DocumentFacts, *, has_text: bool, truncated: bool
) -> DocumentRow:
    """ids: of the texts around the images. has_text: otherwise none of the ids is counted."""
    row = list(ids[0])
    for plan, after in zip(plans, ids[1:], strict=True):
        row += [*facts.frame.image(plan.tokens // facts.pooled**2), *after]
    soft = sum(plan.tokens // facts.pooled**2 for plan in plans)
    whole = facts.frame.document(row)
    return DocumentRow(whole, len(whole) - soft if has_text else 0, truncated, tuple(plans))
