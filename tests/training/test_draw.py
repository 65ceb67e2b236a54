"""Drawn pictures: the same for a seed, of the size of their kind, and all different."""

from functools import cache

import numpy as np
import pytest
from PIL import Image, ImageChops

from training.draw import KINDS, WEIGHTS, Kind, draw, kind_of
from training.drawing.documents import receipt
from training.drawing.ink import Sheet

PHOTO_LIKE = ("scene", "leaves", "texture", "noise")
SEEDS = range(4)


@cache
def drawn(seed: int, kind: Kind) -> Image.Image:
    return draw(seed, kind)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_draws_the_same_picture(kind: Kind) -> None:
    for seed in SEEDS:
        first = draw(seed, kind)
        draw(seed + 100, kind)  # Its caches change nothing.
        assert first.tobytes() == draw(seed, kind).tobytes()


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_is_rgb_and_has_the_size_of_its_kind(kind: Kind) -> None:
    low, high, longest = (0.099, 0.161, 3.1) if kind in PHOTO_LIKE else (0.245, 0.455, 4.1)
    for seed in SEEDS:
        picture = drawn(seed, kind)
        assert picture.mode == "RGB"
        assert low <= picture.width * picture.height / 1e6 <= high
        assert max(picture.size) / min(picture.size) <= longest


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_of_different_seeds_differ_when_scaled_down(kind: Kind) -> None:
    small = [drawn(seed, kind).resize((32, 32)) for seed in SEEDS]
    for index, one in enumerate(small):
        for other in small[:index]:
            assert _difference(one, other) > 1


@pytest.mark.parametrize("kind", KINDS)
def test_no_picture_has_a_single_colour(kind: Kind) -> None:
    for seed in SEEDS:
        assert np.asarray(drawn(seed, kind)).std() > 1


def test_every_kind_is_drawn_by_the_default_weights() -> None:
    count = 4000
    kinds = [kind_of(seed) for seed in range(count)]
    for kind in KINDS:
        assert kinds.count(kind) / count == pytest.approx(WEIGHTS[kind], abs=0.03)


def test_a_seed_without_a_kind_draws_the_kind_of_the_seed() -> None:
    for seed in SEEDS:
        assert draw(seed).tobytes() == drawn(seed, kind_of(seed)).tobytes()


def test_receipts_of_one_shop_begin_and_end_alike_whatever_was_bought(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    monkeypatch.setattr(Sheet, "text", lambda sheet, text, *_: written.append(text))
    monkeypatch.setattr(receipt, "_SHOPS", 1)
    monkeypatch.setattr(receipt, "_FROM_A_SHOP", 1.0)
    receipts = []
    for seed in range(6):
        written.clear()
        draw(seed, "receipt")
        receipts.append(tuple(written))
    heads, feet = {lines[:5] for lines in receipts}, {lines[-7:-1] for lines in receipts}
    assert (len(heads), len(feet), len(set(receipts))) == (1, 1, 6)


def test_drawing_leaves_the_global_random_state_as_it_was() -> None:
    before = np.random.get_state(legacy=False)
    for kind in KINDS:
        draw(1, kind)
    after = np.random.get_state(legacy=False)
    assert repr(before) == repr(after)


def _difference(one: Image.Image, other: Image.Image) -> float:
    """Returns the mean absolute difference, in levels of 255."""
    return float(np.asarray(ImageChops.difference(one, other)).mean())
