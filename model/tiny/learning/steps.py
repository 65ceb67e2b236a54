"""What one step of training sees: two views of each of some pictures, each view in one pack.

A step follows from its number and the seed alone, so that training goes on after an interruption as if there had been
none. Knows nothing of the encoder.

Axes: B pictures of a step.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image

from model.budget import Budget
from model.pack import PackedBatch, pack
from model.patches import patch_rows
from model.sizing import ImagePlan, plan_image
from model.tiny import PREPROCESSING
from model.tiny.draw import Kind
from model.tiny.learning.pool import Pool
from model.tiny.learning.views import part_view, same_view, whole_view

_GEOMETRY = PREPROCESSING.geometry
_GROUPS = 8  # of one budget each, in a pack
_LEAST_TOKENS = 16
_SMALL_BUDGETS = 1.5  # above 1 there are more small budgets than large
_SAME_SHARE = 0.2

# Families that draw pictures of one sort.
SORTS: tuple[tuple[Kind, ...], ...] = (
    ("scene", "leaves", "noise"),
    ("texture",),
    ("receipt", "page", "table"),
    ("screenshot",),
    ("chart",),
)

View = Callable[..., Image.Image]


@dataclass(frozen=True, slots=True, eq=False)
class Views:
    """One view of each picture. order: int64 `[B]`, the place in the pack of each picture's view."""

    pack: PackedBatch
    order: NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """same: bool `[B]`, whose two views differ in their budgets and little else. sort: int64 `[B]`, of `SORTS`."""

    whole: Views
    part: Views
    same: NDArray[np.bool_]
    sort: NDArray[np.int64]


def make_step(pool: Pool, step: int, *, pictures: int, most_tokens: int, seed: int) -> Step:
    """The step of that number. most_tokens: the largest budget of a view; the least is 16."""
    random = np.random.Generator(np.random.PCG64([seed, step]))
    # Each picture once an epoch, in an order of the epoch's own.
    epoch, place = divmod(step, len(pool) // pictures)
    shuffled = np.random.Generator(np.random.PCG64([seed, epoch, 1])).permutation(len(pool))
    numbers = shuffled[place * pictures : (place + 1) * pictures].tolist()
    images = [pool[number] for number in numbers]
    same = random.random(pictures) < _SAME_SHARE
    budgets = Budgets(most_tokens, random)
    return Step(
        whole=_views(images, [same_view if alike else whole_view for alike in same], budgets, random),
        part=_views(images, [same_view if alike else part_view for alike in same], budgets, random),
        same=same,
        sort=np.array([_sort(pool.kind(number)) for number in numbers]),
    )


def _sort(kind: Kind) -> int:
    return next(number for number, sort in enumerate(SORTS) if kind in sort)


class Budgets:
    """Token caps from 16 to a largest, spread evenly over their logarithms but for some favour of the small."""

    def __init__(self, most_tokens: int, random: Generator) -> None:
        self._most_tokens, self._random = most_tokens, random

    def draw(self, count: int) -> list[int]:
        """From small to large, each anywhere in a part of its own of all there are."""
        quantiles = (np.arange(count) + self._random.random(count)) / count
        ratio = self._most_tokens / _LEAST_TOKENS
        return [round(tokens) for tokens in _LEAST_TOKENS * ratio ** (quantiles**_SMALL_BUDGETS)]


def _views(images: Sequence[Image.Image], views: Sequence[View], budgets: Budgets, random: Generator) -> Views:
    order = random.permutation(len(images))
    rows, grids = [], []
    for group, budget in zip(np.array_split(order, _GROUPS), budgets.draw(_GROUPS), strict=True):
        pixels = budget * _GEOMETRY.patch_size**2
        for number in group:
            plan, patches = _rows(views[number](images[number], random, pixels=pixels), budget)
            rows.append(patches)
            grids.append(plan.segments[0].grid)
    return Views(pack(rows, grids), np.argsort(order))


def _rows(picture: Image.Image, budget: int) -> tuple[ImagePlan, NDArray[np.uint8]]:
    plan = plan_image(
        (picture.height, picture.width),
        geometry=_GEOMETRY,
        budget=Budget.of_tokens(budget, _GEOMETRY.patch_size),
        strategy="naflex",
    )
    return plan, patch_rows(picture, plan, _GEOMETRY)
