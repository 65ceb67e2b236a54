"""What one step of training sees: two views of each of some pictures, each view in one pack.

A step follows from its number and the seed alone, so that training goes on after an interruption as if there had been
none. Knows nothing of the encoder.

Axes: B pictures of a step.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import itemgetter

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
from model.tiny.learning.schedule import LEAST_TOKENS, Budgets
from model.tiny.learning.views import part_view, same_view, whole_view

_GEOMETRY = PREPROCESSING.geometry
# Groups of one budget each, in a pack: of pictures alike, or of those without words and of those with.
_GROUPS, _PLAIN_GROUPS, _WRITTEN_GROUPS = 8, 5, 4
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
_FIRST_WRITTEN = 2  # sorts from here on have words on them

View = Callable[..., Image.Image]
Group = tuple[NDArray[np.int64], int]


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


def make_step(pool: Pool, step: int, *, pictures: int, budgets: Budgets, seed: int) -> Step:
    """The step of that number."""
    random = np.random.Generator(np.random.PCG64([seed, step]))
    # Each picture once an epoch, in an order of the epoch's own.
    epoch, place = divmod(step, len(pool) // pictures)
    shuffled = np.random.Generator(np.random.PCG64([seed, epoch, 1])).permutation(len(pool))
    numbers = shuffled[place * pictures : (place + 1) * pictures].tolist()
    images = [pool[number] for number in numbers]
    same = random.random(pictures) < _SAME_SHARE
    sort = np.array([_sort(pool.kind(number)) for number in numbers])
    written = sort >= _FIRST_WRITTEN
    whole_views = [same_view if alike else whole_view for alike in same]
    part_views = [same_view if alike else part_view for alike in same]
    return Step(
        whole=_views(images, whole_views, _groups(written, budgets, random), random),
        part=_views(images, part_views, _groups(written, budgets, random), random),
        same=same,
        sort=sort,
    )


def _sort(kind: Kind) -> int:
    return next(number for number, sort in enumerate(SORTS) if kind in sort)


def _groups(written: NDArray[np.bool_], budgets: Budgets, random: Generator) -> list[Group]:
    """All pictures in a random order, in groups of one budget each, from small budgets to large.

    written: bool `[B]`, which pictures have words on them."""
    order = random.permutation(len(written))
    if budgets.written is None:
        return list(
            zip(np.array_split(order, _GROUPS), _caps(LEAST_TOKENS, budgets.most, _GROUPS, random), strict=True)
        )
    plain, others = order[~written[order]], order[written[order]]
    plain_caps = _caps(LEAST_TOKENS, budgets.most, _PLAIN_GROUPS, random)
    written_caps = _caps(*budgets.written, _WRITTEN_GROUPS, random, favour=1.0)
    groups = [
        *zip(np.array_split(plain, _PLAIN_GROUPS), plain_caps, strict=True),
        *zip(np.array_split(others, _WRITTEN_GROUPS), written_caps, strict=True),
    ]
    return sorted(groups, key=itemgetter(1))


def _caps(least: int, most: int, count: int, random: Generator, *, favour: float = _SMALL_BUDGETS) -> list[int]:
    """Token caps from `least` to `most`, spread evenly over their logarithms but for some favour of the small.

    From small to large, each anywhere in a part of its own of all there are."""
    quantiles = (np.arange(count) + random.random(count)) / count
    return [round(tokens) for tokens in least * (most / least) ** (quantiles**favour)]


def _views(images: Sequence[Image.Image], views: Sequence[View], groups: Sequence[Group], random: Generator) -> Views:
    rows, grids = [], []
    for group, budget in groups:
        pixels = budget * _GEOMETRY.patch_size**2
        for number in group:
            plan, patches = _rows(views[number](images[number], random, pixels=pixels), budget)
            rows.append(patches)
            grids.append(plan.segments[0].grid)
    order = np.concatenate([group for group, _ in groups])
    return Views(pack(rows, grids), np.argsort(order))


def _rows(picture: Image.Image, budget: int) -> tuple[ImagePlan, NDArray[np.uint8]]:
    plan = plan_image(
        (picture.height, picture.width),
        geometry=_GEOMETRY,
        budget=Budget.of_tokens(budget, _GEOMETRY.patch_size),
        strategy="naflex",
    )
    return plan, patch_rows(picture, plan, _GEOMETRY)
