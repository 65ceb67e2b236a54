"""What came of an image or a text: its vectors, and what an answer says beside them. Float32 numpy, as the engine gave
it.

HTTP answers and the files of the command line are made from these. Knows no format of either.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.sizing.plan import ImagePlan
from service.engine.client import JobResult
from service.errors import ServiceError

_TINY = np.float32(np.finfo(np.float32).tiny)


@dataclass(frozen=True, slots=True, eq=False)
class EmbeddedImage:
    """One image's result and its plan. decode_s: from admission to patch rows, the wait for a thread included.

    repaired, format: as in `ImageHeader`. fetch_s: until all images of its request were fetched, if any came from a
    URL. cached: its vectors were computed for an earlier request; result then has the time until they were found.
    """

    plan: ImagePlan
    result: JobResult
    decode_s: float
    repaired: bool = False
    fetch_s: float | None = None
    format: str = ""
    cached: bool = False

    @property
    def stages_s(self) -> dict[str, float]:
        """Seconds in each stage."""
        result = self.result
        fetch = {} if self.fetch_s is None else {"fetch": self.fetch_s}
        if self.cached:
            return fetch | {"cache": result.queue_s}
        return fetch | {
            "decode": self.decode_s,
            "queue": result.queue_s,
            "pack": result.pack_s,
            "forward": result.forward_s,
        }

    @property
    def vector_bytes(self) -> int:
        """The size of all its vectors."""
        tokens = self.result.tokens
        return self.result.pooled.nbytes + (0 if tokens is None else tokens.nbytes)

    @property
    def charged_tokens(self) -> int:
        return self.plan.tokens

    @property
    def token_vectors(self) -> NDArray[np.float32]:
        """float32 `[N, D]`: a vector for each output token."""
        assert self.result.tokens is not None, "tokens were asked for, and the engine gave none"
        return self.result.tokens

    def embedding(self, *, normalize: bool) -> NDArray[np.float32]:
        """float32 `[E]`: the image's one vector."""
        return image_embedding(self.result.pooled, normalize=normalize)

    def segment_embeddings(self, *, normalize: bool) -> NDArray[np.float32]:
        """float32 `[S, E]`: a vector for each segment."""
        return normalized(self.result.pooled) if normalize else self.result.pooled


@dataclass(frozen=True, slots=True, eq=False)
class EmbeddedText:
    """One text's result. truncated: its end was cut off. tokenize_s: from admission of its bytes to its ids."""

    charged_tokens: int
    truncated: bool
    result: JobResult
    tokenize_s: float

    @property
    def stages_s(self) -> dict[str, float]:
        """Seconds in each stage."""
        result = self.result
        return {
            "tokenize": self.tokenize_s, "queue": result.queue_s, "pack": result.pack_s, "forward": result.forward_s,
        }  # fmt: skip

    @property
    def vector_bytes(self) -> int:
        """The size of its vector."""
        return self.result.pooled.nbytes

    def embedding(self, *, normalize: bool) -> NDArray[np.float32]:
        """float32 `[E]`."""
        return image_embedding(self.result.pooled, normalize=normalize)


@dataclass(frozen=True, slots=True, eq=False)
class EmbeddedDocument:
    """The result of texts and images that became one vector. images: without results of their own. text_tokens: 0
    without a text. truncated: a text was cut off. tokenize_s: until all documents of the request had their ids.
    decode_s: from admission to patch rows."""

    images: tuple[EmbeddedImage, ...]
    text_tokens: int
    truncated: bool
    result: JobResult
    tokenize_s: float
    decode_s: float

    @property
    def stages_s(self) -> dict[str, float]:
        """Seconds in each stage."""
        result = self.result
        tokenize = {"tokenize": self.tokenize_s} if self.text_tokens else {}
        decode = {"decode": self.decode_s} if self.images else {}
        return tokenize | decode | {"queue": result.queue_s, "pack": result.pack_s, "forward": result.forward_s}

    @property
    def vector_bytes(self) -> int:
        """The size of its vector."""
        return self.result.pooled.nbytes

    @property
    def image_tokens(self) -> int:
        return sum(image.plan.tokens for image in self.images)

    @property
    def charged_tokens(self) -> int:
        return self.image_tokens + self.text_tokens

    def embedding(self, *, normalize: bool) -> NDArray[np.float32]:
        """float32 `[E]`."""
        return image_embedding(self.result.pooled, normalize=normalize)


EmbeddedItem = EmbeddedImage | EmbeddedText | EmbeddedDocument
Outcome = EmbeddedItem | ServiceError


def embedded_of(outcomes: Sequence[Outcome]) -> list[EmbeddedItem]:
    """Those that are no errors."""
    return [outcome for outcome in outcomes if not isinstance(outcome, ServiceError)]


def images_of(outcomes: Sequence[Outcome]) -> list[EmbeddedImage]:
    """The images that are embedded, alone."""
    return [outcome for outcome in outcomes if isinstance(outcome, EmbeddedImage)]


def pictures_of(item: EmbeddedItem) -> list[EmbeddedImage]:
    """The image that an item is, or those that are in it."""
    match item:
        case EmbeddedImage():
            return [item]
        case EmbeddedDocument():
            return list(item.images)
        case _:
            return []


def cached_tokens_of(items: Sequence[EmbeddedItem]) -> int:
    """Tokens that were charged and not computed."""
    return sum(item.plan.tokens for item in items if isinstance(item, EmbeddedImage) and item.cached)


def cached_indices(items: Sequence[EmbeddedItem]) -> str:
    """The places of the images that were embedded before, separated by commas; empty if none was."""
    return ",".join(str(index) for index, item in enumerate(items) if isinstance(item, EmbeddedImage) and item.cached)


def repaired_indices(items: Sequence[EmbeddedItem]) -> str:
    """The places of the images that were repaired, separated by commas; empty if none was."""
    return ",".join(str(index) for index, item in enumerate(items) if any(each.repaired for each in pictures_of(item)))


def normalized(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each row of float32 `[B, D]` divided by its Euclidean length, in float32. A row of zeros stays as it is."""
    # As `np.linalg.norm` computes it, which takes twice as long, to find out what it is asked for.
    lengths: NDArray[np.float32] = np.sqrt(np.add.reduce(vectors * vectors, axis=-1, keepdims=True))
    divisors: NDArray[np.float32] = np.maximum(lengths, _TINY)
    scaled: NDArray[np.float32] = vectors / divisors
    return scaled


def image_embedding(pooled: NDArray[np.float32], *, normalize: bool) -> NDArray[np.float32]:
    """float32 `[E]`: the one vector of an image from those of its segments, `pooled` `[S, E]`.

    One segment's vector is the image's. Several count equally, however long they are: the image's vector is the mean of
    their normalised ones. `normalize` scales the result to length 1.
    """
    vector: NDArray[np.float32] = pooled[0] if len(pooled) == 1 else normalized(pooled).mean(axis=0)
    return _unit(vector) if normalize else vector


def _unit(vector: NDArray[np.float32]) -> NDArray[np.float32]:
    """`normalized` of one row, with the same bits. The root of a float32 rounds to the same one from a double."""
    length = math.sqrt(np.add.reduce(vector * vector))
    unit: NDArray[np.float32] = vector / max(length, float(_TINY))
    return unit


def describe_plan(plan: ImagePlan) -> dict[str, Any]:
    """What every answer says of an image, beside its vectors. Sizes in pixels and grids in patches, rows first."""
    capped = {"capped_by": "max_image_tokens"} if plan.budget.capped else {}
    return {
        "tokens": plan.tokens,
        "grid": plan.segments[0].grid,
        "size": plan.size,
        "resized": plan.resized,
        "strategy": plan.strategy,
        "token_cap": plan.token_cap,
    } | capped


def describe_segments(plan: ImagePlan) -> list[dict[str, Any]]:
    """Each segment's kind, place, grid and tokens; `offset` is its first token's place among the image's."""
    return [
        asdict(segment) | {"tokens": segment.tokens, "offset": offset}
        for segment, offset in zip(plan.segments, plan.offsets[:-1], strict=True)
    ]


def grid_tensors(plans: Sequence[ImagePlan]) -> dict[str, NDArray[Any]]:
    """grids: int32 `[B, 2]`, the grid of each image's first segment.

    If any image has several segments, also segment_grids: int32 `[S, 2]`, of all segments end to end, and cu_segments:
    int32 `[B+1]`, where each image's segments begin, and where the last image's end.
    """
    tensors = {"grids": np.array([plan.segments[0].grid for plan in plans], np.int32).reshape(-1, 2)}
    counts = [len(plan.segments) for plan in plans]
    if any(count > 1 for count in counts):
        grids = [segment.grid for plan in plans for segment in plan.segments]
        tensors["segment_grids"] = np.array(grids, np.int32)
        tensors["cu_segments"] = np.cumsum([0, *counts], dtype=np.int32)
    return tensors
