"""Makes the data of one training step: two views of each picture, all first views in one pack, all second in another.

A step follows from its number and the seed alone, so training continues after an interruption as if there had been
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

from model.checkpoint.tiny import PREPROCESSING
from model.images.patches import patch_rows
from model.pack import pack
from model.sizing.budget import Budget
from model.sizing.plan import ImagePlan, plan_image
from training.draw import Kind
from training.learning.dropping import drop_tokens
from training.learning.pairs import PackedViews, Pairs, pairs_of_views
from training.learning.pool import Pool
from training.learning.schedule import LEAST_TOKENS, Budgets
from training.learning.views import View, part_view, same_view, whole_view

_GEOMETRY = PREPROCESSING.geometry
# Groups of one budget each in a pack: of pictures without words, and of those with words.
_PLAIN_GROUPS, _WRITTEN_GROUPS = 5, 4
_SMALL_BUDGETS = 1.5  # above 1, small budgets are more frequent than large ones
_SAME_SHARE = 0.2  # of pictures, whose views differ in their tokens and little else
# Share of pictures made gray before views are taken, so that more than colour tells them apart.
_GRAY_SHARE = 0.25
_LEAST_KEPT = 48  # tokens of a view, or all if it has fewer

# The kinds of pictures of each sort.
SORTS: tuple[tuple[Kind, ...], ...] = (
    ("scene", "leaves", "noise"),
    ("texture",),
    ("receipt", "page", "table"),
    ("screenshot",),
    ("chart",),
)
_FIRST_WRITTEN = 2  # sorts from here on have words on them

MakeView = Callable[..., View]
Group = tuple[NDArray[np.int64], int]


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """whole, part: one view of each picture. pairs: tokens of both that show the same place.

    same: bool `[B]`, whether the two views differ in their tokens and little else. sort: int64 `[B]`, indices of
    `SORTS`.
    """

    whole: PackedViews
    part: PackedViews
    pairs: Pairs
    same: NDArray[np.bool_]
    sort: NDArray[np.int64]


def make_step(pool: Pool, step: int, *, pictures: int, budgets: Budgets, seed: int) -> Step:
    """Returns the step of that number."""
    random = np.random.Generator(np.random.PCG64([seed, step]))
    # An epoch shows each picture once, in an order of its own.
    epoch, place = divmod(step, len(pool) // pictures)
    shuffled = np.random.Generator(np.random.PCG64([seed, epoch, 1])).permutation(len(pool))
    numbers = shuffled[place * pictures : (place + 1) * pictures].tolist()
    gray = random.random(pictures) < _GRAY_SHARE
    images = [_grayed(pool[number]) if so else pool[number] for number, so in zip(numbers, gray, strict=True)]
    same = random.random(pictures) < _SAME_SHARE
    sort = np.array([_sort(pool.kind(number)) for number in numbers])
    written = sort >= _FIRST_WRITTEN
    whole_views = [same_view if alike else whole_view for alike in same]
    part_views = [same_view if alike else part_view for alike in same]
    whole = _packed_views(images, whole_views, _groups(written, budgets, random), budgets.dropped, random)
    part = _packed_views(images, part_views, _groups(written, budgets, random), budgets.dropped, random)
    return Step(whole, part, pairs_of_views(whole, part, random), same, sort)


def _grayed(picture: Image.Image) -> Image.Image:
    return picture.convert("L").convert("RGB")


def _sort(kind: Kind) -> int:
    return next(number for number, sort in enumerate(SORTS) if kind in sort)


def _groups(written: NDArray[np.bool_], budgets: Budgets, random: Generator) -> list[Group]:
    """Returns all pictures in random order, in groups of one budget each, from small budgets to large.

    written: bool `[B]`, which pictures have words on them.
    """
    order = random.permutation(len(written))
    plain, others = order[~written[order]], order[written[order]]
    plain_caps = _caps(LEAST_TOKENS, budgets.most, _PLAIN_GROUPS, random)
    written_caps = _caps(*budgets.written, _WRITTEN_GROUPS, random, favour=1.0)
    groups = [
        *zip(np.array_split(plain, _PLAIN_GROUPS), plain_caps, strict=True),
        *zip(np.array_split(others, _WRITTEN_GROUPS), written_caps, strict=True),
    ]
    return sorted(groups, key=itemgetter(1))


def _caps(least: int, most: int, count: int, random: Generator, *, favour: float = _SMALL_BUDGETS) -> list[int]:
    """Returns `count` random token caps from small to large, one from each of as many parts of the range.

    They are even over the logarithm for a `favour` of 1. A higher one gives more small caps.
    """
    quantiles = (np.arange(count) + random.random(count)) / count
    return [round(tokens) for tokens in least * (most / least) ** (quantiles**favour)]


def _packed_views(
    images: Sequence[Image.Image],
    make: Sequence[MakeView],
    groups: Sequence[Group],
    dropped: float,
    random: Generator,
) -> PackedViews:
    rows, grids, views = [], [], {}
    for group, budget in groups:
        pixels = budget * _GEOMETRY.patch_size**2
        for number in group.tolist():
            views[number] = make[number](images[number], random, pixels=pixels)
            plan, patches = _rows(views[number].image, budget)
            rows.append(patches)
            grids.append(plan.segments[0].grid)
    order = np.argsort(list(views))
    by_picture = [views[number] for number in range(len(images))]
    batch = pack(rows, grids)
    if dropped:
        batch = drop_tokens(batch, share=dropped, seed=int(random.integers(2**32)), least=_LEAST_KEPT)
    return PackedViews(batch, order, [view.place for view in by_picture], [view.shown for view in by_picture])


def _rows(picture: Image.Image, budget: int) -> tuple[ImagePlan, NDArray[np.uint8]]:
    plan = plan_image(
        (picture.height, picture.width),
        geometry=_GEOMETRY,
        budget=Budget.of_tokens(budget, _GEOMETRY.patch_size),
        strategy="naflex",
    )
    return plan, patch_rows(picture, plan, _GEOMETRY)
