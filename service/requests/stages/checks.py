"""Vectors that no answer may carry."""

from service.engine.forward import have_directions
from service.errors import EngineFault
from service.requests.parameters import EmbedParameters
from service.requests.results import EmbeddedImage, EmbeddedItem


def check_image(image: EmbeddedImage, parameters: EmbedParameters) -> None:
    """Raises `Invalid` if its vector would be written as zeros, and `EngineFault` if it has none."""
    if parameters.output == "segments":
        parameters.vector_format.check(image.segment_embeddings(normalize=parameters.normalize))
    elif parameters.wants_embedding:
        if len(image.plan.segments) > 1 and not have_directions(image.embedding(normalize=False)[None]):
            raise EngineFault("the vectors of this image's segments cancel one another out: it has no vector")
        check_embedding(image, parameters)


def check_embedding(item: EmbeddedItem, parameters: EmbedParameters) -> None:
    """Raises `Invalid` if it would be written as zeros."""
    form = parameters.vector_format
    if form.may_lose_vectors:
        form.check(item.embedding(normalize=parameters.normalize)[None])
