"""What is asked of an encoder of pictures, and the figures that it gets: `judge`.

An encoder is known here by what it makes of pictures alone, so one in training, one that is served, and a baseline are
all judged alike. Everything is drawn from seeds: the same pictures give the same exam.
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
"""Pictures in mode RGB and the most tokens of each, to vectors: float32 `[B, D]` of length 1."""

LEAST_GALLERY = 301
"""Pictures that a query is looked for among: its own and at least 300 others."""
LOW_TOKENS, HIGH_TOKENS = 64, 576
DRAWN_KINDS: tuple[Kind, ...] = ("chart", "screenshot", "texture")
FIRST_DRAWN_SEED = 1_000_000_000
"""Training draws from seeds below."""

Item = TypeVar("Item")

_SEED = 20261127
# At most so many, evenly over what there is: time goes into the crops, which are told apart the least.
_KIND_PICTURES = 40  # of each kind
_WHOLE_PICTURES = 100  # changed in each other way
# At least, of all pictures together: by one crop of each of 60 a recall is uncertain by a twentieth.
_CROPS = 300
_BUDGET_PICTURES = 60
_CHUNK = 64  # pictures at once
_TIE = 1e-6  # similarities no further apart are equal


@dataclass(frozen=True, slots=True, eq=False)
class KindPicture:
    """A picture whose kind is known, and where it comes from."""

    kind: str
    source: str
    image: Image.Image


@dataclass(frozen=True, slots=True, eq=False)
class Exam:
    """Pictures and what was made of them.

    gallery: those judged, `judged` of them, and behind them others that may be taken for them. queries: by the name of
    a probe, what it makes of judged pictures, behind their places in the gallery. kinds: what that test compares.
    """

    gallery: tuple[Image.Image, ...]
    judged: int
    queries: dict[str, list[tuple[int, Image.Image]]]
    kinds: tuple[KindPicture, ...]

    def budget_pictures(self) -> list[Image.Image]:
        """Those that are looked at with fewer tokens and with more."""
        return _evenly(self.gallery[: self.judged], _BUDGET_PICTURES)

    def embeddings(self) -> int:
        """How many pictures `judge` has embedded, where budgets are heeded."""
        queries = sum(map(len, self.queries.values()))
        return len(self.gallery) + queries + 2 * len(self.budget_pictures()) + len(self.kinds)


@dataclass(frozen=True, slots=True)
class Figures:
    """All from 0 to 1, but cosines from -1.

    recall: by probe, how often the picture itself is the nearest of the gallery.
    same_picture: mean cosine of a picture at 64 tokens and itself at 576; None where no budget is heeded.
    different_pictures: mean cosine of any two judged pictures; None of one alone.
    kinds: of each kind, how often the nearest picture, of another source, is of the same; kind: the mean over kinds.
    """

    recall: dict[str, float]
    same_picture: float | None
    different_pictures: float | None
    kind: float
    kinds: dict[str, float]


def set_exam(pictures: Sequence[Picture], others: Sequence[Picture] = ()) -> Exam:
    """The exam on `pictures`; of `others` as many as fill the gallery up to 301, evenly over them."""
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
    """`(time, place)` of each change by a probe: each picture is cropped as often as makes enough."""
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
    """At most so many of the items, spread over all of them, in order."""
    count = min(most, len(items))
    return [items[len(items) * number // count] for number in range(count)]


def judge(embed: Embed, exam: Exam, *, max_tokens: int = 256, heeds_budget: bool = True) -> Figures:
    """What `embed` is worth. heeds_budget: whether more tokens may change a vector; a baseline takes none."""
    gallery = _embed_all(embed, exam.gallery, max_tokens)
    recall = {
        name: recall_at_1(
            _embed_all(embed, [image for _, image in queries], max_tokens), gallery, [place for place, _ in queries]
        )
        for name, queries in exam.queries.items()
    }
    same = None
    if heeds_budget:
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
    """float32 `[B, D]`, embedded some at a time."""
    return np.concatenate(
        [embed(pictures[start : start + _CHUNK], max_tokens) for start in range(0, len(pictures), _CHUNK)]
    )


def recall_at_1(queries: NDArray[np.float32], gallery: NDArray[np.float32], places: Sequence[int]) -> float:
    """How often the nearest row of `gallery` is the one at the query's place; of several as near, it is one by chance.

    queries: float32 `[Q, D]`, gallery: float32 `[B, D]`, both of length 1; places: Q indices of rows of `gallery`.
    """
    similarity = queries @ gallery.T
    own = similarity[np.arange(len(places)), list(places)][:, None]
    beaten = (similarity > own + _TIE).any(axis=1)
    tied = (np.abs(similarity - own) <= _TIE).sum(axis=1)
    return float(np.where(beaten, 0, 1 / tied).mean())


def mean_cosine(vectors: NDArray[np.float32]) -> float | None:
    """Of any two different rows of length 1; None for fewer than two."""
    count = len(vectors)
    if count < 2:
        return None
    total = vectors.sum(axis=0, dtype=np.float64)
    return float((total @ total - count) / (count * (count - 1)))


def kind_accuracy(vectors: NDArray[np.float32], kinds: Sequence[str], sources: Sequence[str]) -> dict[str, float]:
    """By kind, how often the nearest other row is of the same kind; rows of one source are not compared."""
    similarity = vectors @ vectors.T
    names, origins = np.array(kinds), np.array(sources)
    similarity[origins[:, None] == origins[None, :]] = -np.inf
    right = names[similarity.argmax(axis=1)] == names
    return {kind: float(right[names == kind].mean()) for kind in dict.fromkeys(kinds)}
