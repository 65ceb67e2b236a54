"""The embeddings of an answer, in the type and width that a dialect asks for, and the warning about a cut."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.errors import Invalid
from service.http.dialects.dialect import Served
from service.limits import ModelFacts
from service.requests.results import EmbeddedItem, pictures_of
from service.requests.vectors import VectorFormat, check_dimensions, cut_warning

WARNING_HEADER = "Packlight-Warning"


def check_width(dimensions: int | None, served: Served, param: str) -> None:
    """Raises `Invalid` for a width that embeddings cannot be cut to. param: how the dialect names it."""
    try:
        check_dimensions(dimensions, served.model.dim, served.model.matryoshka_dimensions)
    except Invalid as refusal:
        refusal.message, refusal.param = refusal.message.replace("dimensions", param, 1), param
        raise


def warning_of(dimensions: int | None, model: ModelFacts, param: str) -> str | None:
    """The warning for a caller who cuts embeddings of a model that does not say that they may be cut.

    param: how the dialect names the width.
    """
    return cut_warning(dimensions, model.dim, model.matryoshka_dimensions, param=param)


def warning_headers(dimensions: int | None, model: ModelFacts, param: str = "dimensions") -> dict[str, str]:
    """The same for answers whose body has no place for it."""
    warning = warning_of(dimensions, model, param)
    return {WARNING_HEADER: warning} if warning else {}


def write_embeddings(
    embedded: Sequence[EmbeddedItem], written: VectorFormat, model: ModelFacts
) -> NDArray[Any] | list[str]:
    """A row or a base64 string for each. They must be what the format can hold, which `EmbedParameters` say."""
    if not embedded:
        return []
    vectors = np.stack([item.embedding(normalize=written.normalize) for item in embedded])
    if not written.base64:
        return written.array(vectors, model.int8)
    return [str(written.write(vector, model.int8)) for vector in vectors]


def image_tokens_of(embedded: Sequence[EmbeddedItem]) -> int:
    return sum(image.charged_tokens for item in embedded for image in pictures_of(item))


def text_tokens_of(embedded: Sequence[EmbeddedItem]) -> int:
    return sum(item.charged_tokens for item in embedded) - image_tokens_of(embedded)
