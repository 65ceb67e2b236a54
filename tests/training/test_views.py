"""Views of a picture: their shapes and colours, the places of their points, and pairs of their tokens."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from training.learning import steps, views
from training.learning.pairs import OF_A_PICTURE
from training.learning.pool import Pool
from training.learning.schedule import Budgets
from training.learning.steps import make_step


@pytest.mark.parametrize("view", [views.whole_view, views.part_view, views.same_view])
@pytest.mark.parametrize("size", [(640, 200), (40, 300), (9, 9)])
def test_views_are_pictures_of_any_shape(view: Any, size: tuple[int, int]) -> None:
    picture = Image.effect_noise(size, 60).convert("RGB")
    for seed in range(40):
        seen = view(picture, np.random.default_rng(seed), pixels=100 * 256).image
        assert seen.mode == "RGB"
        assert min(seen.size) >= 1
        assert seen.width * seen.height <= 4 * max(128**2, 2.5 * 100 * 256)


@pytest.mark.parametrize("make", [views.whole_view, views.part_view])
def test_a_view_knows_where_its_points_are_in_the_picture(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for changed in ("_recoloured", "_blurred", "_recompressed"):
        monkeypatch.setattr(views, changed, lambda image, random, **_: image)
    compared = added = 0
    for seed in range(60):
        view = make(places_as_colours(256), np.random.default_rng(seed), pixels=200 * 256)
        pixels = np.asarray(view.image, np.float64) / 255
        for x, y in np.random.default_rng(seed).random((20, 2)):
            at = (view.place @ (x, y, 1.0))[:2]
            red, green, blue = pixels[int(y * view.image.height), int(x * view.image.width)]
            margin = np.minimum(at - view.shown[0], view.shown[1] - at).min()
            if margin > 0.02:
                assert abs(blue - 0.2) < 0.01
                np.testing.assert_allclose((red, green), at, atol=0.02)
                compared += 1
            elif margin < -0.02:
                assert abs(blue - 0.2) > 0.01, "the view says that this was added around the picture"
                added += 1
    assert compared > 600
    assert added > 20


def places_as_colours(side: int) -> Image.Image:
    """Red is how far right a point is, green how far down. Blue is 51, which nothing that is added has."""
    y, x = np.mgrid[:side, :side] * (255 / side)
    return Image.fromarray(np.stack([x, y, np.full_like(x, 51)], axis=-1).round().astype(np.uint8))


def test_colours_change_as_far_as_in_the_crops_of_the_exam() -> None:
    """White paper becomes gray at 0.7 of its brightness, and gray paper white at 1.3."""

    def middles(level: int) -> list[float]:
        picture = Image.new("RGB", (64, 64), (level,) * 3)
        seen = [views.part_view(picture, np.random.default_rng(seed), pixels=64 * 64).image for seed in range(200)]
        return [float(np.asarray(view)[view.height // 2, view.width // 2].mean()) for view in seen]

    white, grey = middles(255), middles(200)
    assert min(white) < 0.7 * 255 < 0.9 * 255 < np.median(white)
    assert min(grey) < 0.7 * 200 < np.median(grey) < 254 < max(grey)


@pytest.mark.parametrize("dropped", [0.0, 0.3])
def test_tokens_of_a_pair_show_the_same_place(monkeypatch: pytest.MonkeyPatch, dropped: float) -> None:
    for changed in ("_recoloured", "_blurred", "_recompressed"):
        monkeypatch.setattr(views, changed, lambda image, random, **_: image)
    monkeypatch.setattr(steps, "_GRAY_SHARE", 0)
    monkeypatch.setattr(steps, "_LEAST_KEPT", 8)
    step = make_step(Places(), 0, pictures=8, budgets=Budgets(100, (16, 100), dropped), seed=0)
    pairs = step.pairs
    assert all(np.bincount(pairs.picture, minlength=8) <= OF_A_PICTURE)
    assert len(pairs.whole) == len(pairs.part) > 4 * 8
    for seen, chosen in ((step.whole, pairs.whole), (step.part, pairs.part)):
        segments = np.searchsorted(seen.pack.cu_seqlens, chosen, side="right") - 1
        assert np.array_equal(segments, seen.order[pairs.picture])
        pixels = seen.pack.rows[chosen].reshape(-1, 256, 3) / 255
        shows = pixels.mean(axis=1)[:, :2]
        grids = np.array(seen.pack.grids)[segments]
        # A token at the border may also show a part of what was added around the picture.
        bare = (np.abs(pixels[..., 2] - 0.2) < 0.01).all(axis=1)
        assert bare.mean() > 0.8
        # At most half a patch off in each view. A patch is 1/grid of a view's side.
        assert (np.abs(shows - pairs.place) < 1.0 / grids[:, ::-1] + 0.03)[bare].all()


class Places(Pool):
    """One picture, many times."""

    def __init__(self) -> None:
        super().__init__(Path(), count=8, shard=8)

    def __getitem__(self, number: int) -> Image.Image:
        return places_as_colours(256)
