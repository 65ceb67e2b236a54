"""What one training step sees: which pictures, at which budgets, in which order."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from training.draw import KINDS
from training.learning import steps, views
from training.learning.pairs import PackedViews
from training.learning.pool import Pool
from training.learning.schedule import Budgets
from training.learning.steps import SORTS, make_step
from training.learning.views import View

UNIT = np.array([[0.0, 0.0], [1.0, 1.0]])


def test_a_step_follows_from_its_number(pool: Pool) -> None:
    first, again, other = (make_step(pool, n, pictures=12, budgets=Budgets(100, (16, 100)), seed=3) for n in (5, 5, 6))
    assert np.array_equal(first.whole.pack.rows, again.whole.pack.rows)
    assert np.array_equal(first.part.order, again.part.order)
    assert not np.array_equal(first.whole.pack.cu_seqlens, other.whole.pack.cu_seqlens)


def test_a_step_shows_each_picture_twice_within_the_budgets(pool: Pool) -> None:
    step = make_step(pool, 0, pictures=12, budgets=Budgets(100, (16, 100)), seed=3)
    for shown in (step.whole, step.part):
        lengths = np.diff(shown.pack.cu_seqlens)
        assert sorted(shown.order) == list(range(12))
        assert lengths.max() <= 100
        assert len(lengths) == 12
    assert sorted(kind for sort in SORTS for kind in sort) == sorted(KINDS)
    assert set(step.sort) <= set(range(len(SORTS)))


def test_pictures_with_words_have_budgets_of_their_own(pool: Pool) -> None:
    step = make_step(pool, 0, pictures=12, budgets=Budgets(30, written=(64, 100)), seed=3)
    written = np.isin(
        [pool.kind(number) for number in _order_of_epoch(pool, seed=3)], [*SORTS[2], *SORTS[3], *SORTS[4]]
    )
    assert 0 < written.sum() < 12
    for shown in (step.whole, step.part):
        lengths = np.diff(shown.pack.cu_seqlens)[shown.order]
        assert lengths[~written].max() <= 30 < lengths[written].min()
        assert sorted(shown.order) == list(range(12))


def test_larger_views_lose_tokens_and_keep_at_least_48(pool: Pool) -> None:
    budgets = Budgets(30, written=(100, 200), dropped=0.5)
    step = make_step(pool, 0, pictures=12, budgets=budgets, seed=3)
    for shown in (step.whole, step.part):
        whole = np.array([h * w for h, w in shown.pack.grids])
        assert whole.max() > 96
        left = np.maximum(np.minimum(whole, 48), whole - np.round(whole / 2))
        assert np.array_equal(np.diff(shown.pack.cu_seqlens), left)


def test_some_pictures_are_made_gray_before_views_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    for changed in ("_recoloured", "_recompressed", "_reshaped"):
        monkeypatch.setattr(views, changed, lambda image, random, **_: image)
    shown = [make_step(Orange(), n, pictures=8, budgets=Budgets(40, (16, 40)), seed=0) for n in range(20)]
    gray = [[_is_gray(seen) for seen in (step.whole, step.part)] for step in shown]
    whole, part = np.concatenate(gray, axis=1)
    assert np.array_equal(whole, part)
    assert 0.15 < whole.mean() < 0.35


class Orange(Pool):
    """Pictures of one colour."""

    def __init__(self) -> None:
        super().__init__(Path(), count=8, shard=8)

    def __getitem__(self, number: int) -> Image.Image:
        return Image.new("RGB", (64, 64), (250, 140, 20))


def _is_gray(seen: PackedViews) -> NDArray[np.bool_]:
    """Returns bool `[B]`, judged by the first token of each view, whose picture has one colour."""
    first = seen.pack.rows[seen.pack.cu_seqlens[:-1][seen.order]].reshape(len(seen.order), -1, 3)
    gray: NDArray[np.bool_] = (first[..., 0] == first[..., 2]).all(axis=1)
    return gray


def _order_of_epoch(pool: Pool, *, seed: int) -> list[int]:
    return np.random.Generator(np.random.PCG64([seed, 0, 1])).permutation(len(pool)).tolist()  # type: ignore[no-any-return]


def test_the_order_of_a_step_says_whose_view_each_segment_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("whole_view", "part_view", "same_view"):
        monkeypatch.setattr(steps, name, lambda picture, random, *, pixels: View(picture, np.eye(3), UNIT))
    step = make_step(OneColour(), 0, pictures=8, budgets=Budgets(40, (16, 40)), seed=0)
    first, second = (shown.pack.rows[shown.pack.cu_seqlens[:-1][shown.order], 0] for shown in (step.whole, step.part))
    assert np.array_equal(first, second)
    assert len({*first.tolist()}) == 8


class OneColour(Pool):
    """Gray pictures, each brighter than the one before."""

    def __init__(self) -> None:
        super().__init__(Path(), count=8, shard=8)

    def __getitem__(self, number: int) -> Image.Image:
        return Image.new("RGB", (64, 64), (20 + 30 * number,) * 3)
