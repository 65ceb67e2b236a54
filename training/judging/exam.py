"""The exam of an image encoder (`set_exam`) and the figures it gets (`judge`).

An encoder is any function from pictures to vectors, so one in training, a served one and a baseline are all judged
alike. Everything is drawn from seeds: the same pictures give the same exam.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.draw import Kind, draw
from training.judging.probes import PROBES
from training.judging.real_pictures import Picture

Embed = Callable[[Sequence[Image.Image], int], NDArray[np.float32]]
"""Takes pictures in mode RGB and each one's token cap. Returns vectors, float32 `[B, D]` of length 1."""

LEAST_GALLERY = 301
"""Pictures that each query is searched among: its own and at least 300 others."""
LOW_TOKENS, HIGH_TOKENS = 64, 576
DRAWN_KINDS: tuple[Kind, ...] = ("chart", "screenshot", "texture")
FIRST_DRAWN_SEED = 1_000_000_000
"""Training uses only seeds below this one."""

Item = TypeVar("Item")

_SEED = 20261127
# At most so many pictures, chosen evenly. Most time goes into crops, which are the hardest to tell apart.
_KIND_PICTURES = 40  # of each kind
_WHOLE_PICTURES = 100  # for each probe except crops
# At least so many in all: with one crop of each of 60 pictures, recall is uncertain by a twentieth.
_CROPS = 300
_BUDGET_PICTURES = 60  # at most
_CHUNK = 64  # pictures at once
_TIE = 1e-6  # similarities no further apart count as equal


@dataclass(frozen=True, slots=True, eq=False)
class KindPicture:
    """A picture of a known kind, and its source."""

    kind: str
    source: str
    image: Image.Image


@dataclass(frozen=True, slots=True, eq=False)
class Exam:
    """Pictures, and the queries made from them.

    gallery: the pictures to judge by, `judged` of them, then others that may be mistaken for them. queries: by probe,
    the place in the gallery of each judged picture that it changes, and the changed picture. kinds: the pictures of the
    kind test.
    """

    gallery: tuple[Image.Image, ...]
    judged: int
    queries: dict[str, list[tuple[int, Image.Image]]]
    kinds: tuple[KindPicture, ...]

    def budget_pictures(self) -> list[Image.Image]:
        """Returns the pictures that are embedded with few tokens and with many."""
        return _evenly(self.gallery[: self.judged], _BUDGET_PICTURES)

    def embeddings(self) -> int:
        """Returns how many pictures `judge` embeds for an encoder with budgets."""
        queries = sum(map(len, self.queries.values()))
        return len(self.gallery) + queries + 2 * len(self.budget_pictures()) + len(self.kinds)


@dataclass(frozen=True, slots=True)
class Figures:
    """All are from 0 to 1, except cosines, which are from -1 to 1.

    recall: by probe, how often the nearest picture of the gallery is the queried one.
    same_picture: mean cosine of a picture at 64 tokens and itself at 576, None for an encoder without budgets.
    different_pictures: mean cosine of two different judged pictures, None if there is only one.
    kinds: by kind, how often the nearest picture of another source has the same kind. kind: the mean over kinds.
    """

    recall: dict[str, float]
    same_picture: float | None
    different_pictures: float | None
    kind: float
    kinds: dict[str, float]


def set_exam(pictures: Sequence[Picture], others: Sequence[Picture] = ()) -> Exam:
    """Returns the exam on `pictures`. If they are fewer than 301, evenly chosen `others` fill the gallery."""
    images = [picture.image for picture in pictures]
    queries = {
        name: [
            (place, probe(images[place], np.random.default_rng([_SEED, number, place, time])))
            for time, place in _asked(name, len(images))
        ]
        for number, (name, probe) in enumerate(PROBES.items())
    }
    filling = _evenly(others, max(0, LEAST_GALLERY - len(images)))
    gallery = (*images, *(picture.image for picture in filling))
    return Exam(gallery, len(images), queries, _kind_pictures(pictures))


def _asked(probe: str, pictures: int) -> list[tuple[int, int]]:
    """Returns `(time, place)` of each change by a probe. Each picture is cropped often enough for 300 crops in all."""
    if probe != "crop":
        return [(0, place) for place in _evenly(range(pictures), _WHOLE_PICTURES)]
    times = -(-_CROPS // pictures)
    return [(time, place) for time in range(times) for place in range(pictures)]


def _kind_pictures(pictures: Sequence[Picture]) -> tuple[KindPicture, ...]:
    real = [
        KindPicture(kind, picture.source, picture.image)
        for kind in ("photo", "document")
        for picture in _evenly([picture for picture in pictures if picture.kind == kind], _KIND_PICTURES)
    ]
    drawn = [
        KindPicture(kind, f"{kind} {seed}", draw(seed, kind).convert("RGB"))
        for kind in DRAWN_KINDS
        for seed in range(FIRST_DRAWN_SEED, FIRST_DRAWN_SEED + _KIND_PICTURES)
    ]
    return (*real, *drawn)


def _evenly(items: Sequence[Item], most: int) -> list[Item]:
    """Returns at most `most` of the items, spread evenly over all of them, in order."""
    count = min(most, len(items))
    return [items[len(items) * number // count] for number in range(count)]


def judge(embed: Embed, exam: Exam, *, max_tokens: int = 256, uses_budget: bool = True) -> Figures:
    """Returns the figures of `embed`. uses_budget: whether more tokens may change a vector; not so for baselines."""
    gallery = _embed_all(embed, exam.gallery, max_tokens)
    recall = {
        name: recall_at_1(
            _embed_all(embed, [image for _, image in queries], max_tokens), gallery, [place for place, _ in queries]
        )
        for name, queries in exam.queries.items()
    }
    same = None
    if uses_budget:
        low, high = (_embed_all(embed, exam.budget_pictures(), tokens) for tokens in (LOW_TOKENS, HIGH_TOKENS))
        same = float((low * high).sum(axis=1).mean())
    kinds = kind_accuracy(
        _embed_all(embed, [picture.image for picture in exam.kinds], max_tokens),
        [picture.kind for picture in exam.kinds],
        [picture.source for picture in exam.kinds],
    )
    return Figures(
        recall=recall,
        same_picture=same,
        different_pictures=mean_cosine(gallery[: exam.judged]),
        kind=float(np.mean(list(kinds.values()))),
        kinds=kinds,
    )


def _embed_all(embed: Embed, pictures: Sequence[Image.Image], max_tokens: int) -> NDArray[np.float32]:
    """Returns float32 `[B, D]`, embedded in chunks."""
    return np.concatenate(
        [embed(pictures[start : start + _CHUNK], max_tokens) for start in range(0, len(pictures), _CHUNK)]
    )


def recall_at_1(queries: NDArray[np.float32], gallery: NDArray[np.float32], places: Sequence[int]) -> float:
    """Returns how often the nearest row of `gallery` is the query's own. In a tie of n rows, its own counts 1/n.

    queries: float32 `[Q, D]`, gallery: float32 `[B, D]`, both of length 1. places: Q indices of rows of `gallery`.
    """
    similarity = queries @ gallery.T
    own = similarity[np.arange(len(places)), list(places)][:, None]
    beaten = (similarity > own + _TIE).any(axis=1)
    tied = (np.abs(similarity - own) <= _TIE).sum(axis=1)
    return float(np.where(beaten, 0, 1 / tied).mean())


def mean_cosine(vectors: NDArray[np.float32]) -> float | None:
    """Returns the mean cosine of two different rows, None for fewer than two rows.

    vectors: float32 `[B, D]` of length 1.
    """
    count = len(vectors)
    if count < 2:
        return None
    total = vectors.sum(axis=0, dtype=np.float64)
    return float((total @ total - count) / (count * (count - 1)))


def kind_accuracy(vectors: NDArray[np.float32], kinds: Sequence[str], sources: Sequence[str]) -> dict[str, float]:
    """Returns, by kind, how often the nearest other row has the same kind. Rows of one source are not compared.

    vectors: float32 `[B, D]` of length 1. kinds, sources: of each row.
    """
    similarity = vectors @ vectors.T
    names, origins = np.array(kinds), np.array(sources)
    similarity[origins[:, None] == origins[None, :]] = -np.inf
    right = names[similarity.argmax(axis=1)] == names
    return {kind: float(right[names == kind].mean()) for kind in dict.fromkeys(kinds)}
