"""Training: the network with gradients, what it is shown, and runs that are interrupted."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from model import tiny
from model.checkpoint import Checkpoint
from model.encoders.naflex import NaFlexConfig
from model.pack import PackedBatch, drop_tokens
from model.runner import Runner
from model.tiny import train
from model.tiny.draw import KINDS
from model.tiny.learning import pool as learning_pool
from model.tiny.learning import steps, views
from model.tiny.learning.learner import Learner
from model.tiny.learning.losses import Losses
from model.tiny.learning.pairs import OF_A_PICTURE, Seen
from model.tiny.learning.pool import Pool
from model.tiny.learning.schedule import Budgets, Weights, courses
from model.tiny.learning.steps import SORTS, make_step
from model.tiny.learning.trainee import Trainee, rectangles
from model.tiny.learning.views import View
from tests.reference import SMALL, normalised, random_pack, random_tower

CONFIG = NaFlexConfig(width=96, depth=2, heads=3, mlp_width=200)
GRIDS = [(4, 4), (3, 5), (2, 9), (7, 7), (1, 1), (6, 8), (1, 5)]
CPU = torch.device("cpu")
UNIT = np.array([[0.0, 0.0], [1.0, 1.0]])


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    pool = Pool(tmp_path_factory.mktemp("drawn"), first_seed=0, count=12, shard=4)
    assert list(pool.fill(1)) == [0, 4, 8, 12]
    return pool


def trainee_like(tower: Any) -> Trainee:
    trainee = Trainee(CONFIG)
    trainee.load_state_dict(vision_state(tower))
    return trainee


def vision_state(tower: Any) -> dict[str, Tensor]:
    return {name.removeprefix("vision_model."): weight for name, weight in tower.state_dict().items()}


def gradients(module: Any) -> dict[str, Tensor]:
    return {name.removeprefix("vision_model."): weight.grad for name, weight in module.named_parameters()}


def of_reference(tower: Any, batch: PackedBatch) -> Tensor:
    """Pooled, with gradients, each segment padded to the longest."""
    longest = batch.max_seqlen
    values = torch.zeros(len(batch.grids), longest, batch.rows.shape[1])
    mask = torch.zeros(len(batch.grids), longest, dtype=torch.int32)
    for number, (start, end) in enumerate(zip(batch.cu_seqlens[:-1], batch.cu_seqlens[1:], strict=True)):
        values[number, : end - start] = normalised(batch.rows[start:end])
        mask[number, : end - start] = 1
    output = tower(pixel_values=values, pixel_attention_mask=mask, spatial_shapes=torch.tensor(batch.grids))
    pooled: Tensor = output.pooler_output
    return pooled


def test_vectors_and_gradients_are_those_of_transformers() -> None:
    tower, batch = random_tower(SMALL), random_pack(GRIDS)
    trainee = trainee_like(tower)
    weights = torch.randn(len(GRIDS), CONFIG.width, generator=torch.Generator().manual_seed(1))
    theirs, (ours, _) = of_reference(tower, batch), trainee(batch)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5 * max(1, float(theirs.detach().abs().max())))
    torch.autograd.backward([theirs, ours], [weights, weights])
    expected, found = gradients(tower), gradients(trainee)
    assert found.keys() == expected.keys()
    # That of a key's bias is zero but for rounding, which is as large as the others are.
    least = 1e-2 * max(float(gradient.abs().max()) for gradient in expected.values())
    for name, gradient in found.items():
        largest = max(least, float(expected[name].abs().max()))
        torch.testing.assert_close(gradient, expected[name], rtol=0, atol=1e-4 * largest, msg=name)


@pytest.mark.parametrize("share", [0.0, 0.6])
def test_what_was_learnt_is_served_as_it_was(share: float) -> None:
    trainee, batch = Trainee(tiny.CONFIG), random_pack(GRIDS)
    batch = drop_tokens(batch, share=share, seed=0) if share else batch
    trainee.begin(torch.Generator().manual_seed(0))
    tensors = {name: weight.detach() for name, weight in trainee.named_parameters()}
    assert {name: tuple(x.shape) for name, x in tensors.items()} == tiny.CONFIG.checkpoint_shapes()
    served = Runner(Checkpoint("learnt", tiny.CONFIG, tensors, tiny.PREPROCESSING, ""), dtype="float32").run(batch)
    learnt = trainee(batch)[0].detach().numpy()
    np.testing.assert_allclose(served.pooled, learnt, rtol=0, atol=1e-5 * max(1, np.abs(learnt).max()))


def test_rectangles_hold_neighbours_of_like_length_in_order() -> None:
    found = rectangles([16, 15, 20, 49, 48, 5], CPU)
    assert [rectangle.shape for rectangle in found] == [(3, 20), (2, 49), (1, 5)]
    x = torch.arange(51.0)[:, None]
    assert torch.equal(found[0].unpad(found[0].pad(x)), x)


def test_a_step_follows_from_its_number(pool: Pool) -> None:
    first, again, other = (make_step(pool, n, pictures=12, budgets=Budgets(100), seed=3) for n in (5, 5, 6))
    assert np.array_equal(first.whole.pack.rows, again.whole.pack.rows)
    assert np.array_equal(first.part.order, again.part.order)
    assert not np.array_equal(first.whole.pack.cu_seqlens, other.whole.pack.cu_seqlens)


def test_a_step_shows_each_picture_twice_within_the_budgets(pool: Pool) -> None:
    step = make_step(pool, 0, pictures=12, budgets=Budgets(100), seed=3)
    for shown in (step.whole, step.part):
        lengths = np.diff(shown.pack.cu_seqlens)
        assert sorted(shown.order) == list(range(12))
        assert lengths.max() <= 100
        assert len(lengths) == 12
    assert sorted(kind for sort in SORTS for kind in sort) == sorted(KINDS)
    assert set(step.sort) <= set(range(len(SORTS)))


def test_what_has_words_on_it_is_shown_at_budgets_of_its_own(pool: Pool) -> None:
    step = make_step(pool, 0, pictures=12, budgets=Budgets(30, written=(64, 100)), seed=3)
    written = np.isin(
        [pool.kind(number) for number in _order_of_epoch(pool, seed=3)], [*SORTS[2], *SORTS[3], *SORTS[4]]
    )
    assert 0 < written.sum() < 12
    for shown in (step.whole, step.part):
        lengths = np.diff(shown.pack.cu_seqlens)[shown.order]
        assert lengths[~written].max() <= 30 < lengths[written].min()
        assert sorted(shown.order) == list(range(12))


def test_of_larger_views_a_part_is_left_out(pool: Pool) -> None:
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
    shown = [make_step(Orange(), n, pictures=8, budgets=Budgets(40), seed=0) for n in range(20)]
    gray = [[_is_gray(seen) for seen in (step.whole, step.part)] for step in shown]
    whole, part = np.concatenate(gray, axis=1)
    assert np.array_equal(whole, part)
    assert 0.15 < whole.mean() < 0.35


class Orange(Pool):
    """Pictures of one colour."""

    def __init__(self) -> None:
        super().__init__(Path(), first_seed=0, count=8, shard=8)

    def __getitem__(self, number: int) -> Image.Image:
        return Image.new("RGB", (64, 64), (250, 140, 20))


def _is_gray(seen: Seen) -> NDArray[np.bool_]:
    """bool `[B]`, of views of one colour each, by their first tokens."""
    first = seen.pack.rows[seen.pack.cu_seqlens[:-1][seen.order]].reshape(len(seen.order), -1, 3)
    gray: NDArray[np.bool_] = (first[..., 0] == first[..., 2]).all(axis=1)
    return gray


def _order_of_epoch(pool: Pool, *, seed: int) -> list[int]:
    return np.random.Generator(np.random.PCG64([seed, 0, 1])).permutation(len(pool)).tolist()  # type: ignore[no-any-return]


def test_the_order_of_a_step_says_which_view_is_whose(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("whole_view", "part_view", "same_view"):
        monkeypatch.setattr(steps, name, lambda picture, random, *, pixels: View(picture, np.eye(3), UNIT))
    step = make_step(OneColour(), 0, pictures=8, budgets=Budgets(40), seed=0)
    first, second = (shown.pack.rows[shown.pack.cu_seqlens[:-1][shown.order], 0] for shown in (step.whole, step.part))
    assert np.array_equal(first, second)
    assert len({*first.tolist()}) == 8


class OneColour(Pool):
    """Gray pictures, each brighter than the one before."""

    def __init__(self) -> None:
        super().__init__(Path(), first_seed=0, count=8, shard=8)

    def __getitem__(self, number: int) -> Image.Image:
        return Image.new("RGB", (64, 64), (20 + 30 * number,) * 3)


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
def test_a_view_knows_where_its_points_lie_in_the_picture(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
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
                assert abs(blue - 0.2) > 0.01, "it is said to have been added around the picture"
                added += 1
    assert compared > 600
    assert added > 20


def places_as_colours(side: int) -> Image.Image:
    """Red says how far right a point is, and green how far down; blue is 51, which nothing that is added has."""
    y, x = np.mgrid[:side, :side] * (255 / side)
    return Image.fromarray(np.stack([x, y, np.full_like(x, 51)], axis=-1).round().astype(np.uint8))


@pytest.mark.parametrize("dropped", [0.0, 0.3])
def test_tokens_of_a_pair_show_the_same_place(monkeypatch: pytest.MonkeyPatch, dropped: float) -> None:
    for changed in ("_recoloured", "_blurred", "_recompressed"):
        monkeypatch.setattr(views, changed, lambda image, random, **_: image)
    monkeypatch.setattr(steps, "_GRAY_SHARE", 0)
    monkeypatch.setattr(steps, "_LEAST_KEPT", 8)
    step = make_step(Places(), 0, pictures=8, budgets=Budgets(100, dropped=dropped), seed=0)
    pairs = step.pairs
    assert all(np.bincount(pairs.picture, minlength=8) <= OF_A_PICTURE)
    assert len(pairs.whole) == len(pairs.part) > 4 * 8
    for seen, chosen in ((step.whole, pairs.whole), (step.part, pairs.part)):
        segments = np.searchsorted(seen.pack.cu_seqlens, chosen, side="right") - 1
        assert np.array_equal(segments, seen.order[pairs.picture])
        shows = seen.pack.rows[chosen].reshape(-1, 256, 3).mean(axis=1)[:, :2] / 255
        grids = np.array(seen.pack.grids)[segments]
        # Half a patch off in each view at most, and a patch is 1/grid of a view's side.
        assert (np.abs(shows - pairs.place) < 1.0 / grids[:, ::-1] + 0.03).all()


class Places(Pool):
    """One picture, many times."""

    def __init__(self) -> None:
        super().__init__(Path(), first_seed=0, count=8, shard=8)

    def __getitem__(self, number: int) -> Image.Image:
        return places_as_colours(256)


def test_colours_change_as_far_as_those_of_the_crops_that_are_judged() -> None:
    """White paper goes grey at 0.7 of its brightness, and grey paper white at 1.3."""

    def middles(level: int) -> list[float]:
        picture = Image.new("RGB", (64, 64), (level,) * 3)
        seen = [views.part_view(picture, np.random.default_rng(seed), pixels=64 * 64).image for seed in range(200)]
        return [float(np.asarray(view)[view.height // 2, view.width // 2].mean()) for view in seen]

    white, grey = middles(255), middles(200)
    assert min(white) < 0.7 * 255 < 0.9 * 255 < np.median(white)
    assert min(grey) < 0.7 * 200 < np.median(grey) < 254 < max(grey)


def test_the_loss_is_least_where_views_agree_and_pictures_differ() -> None:
    losses = Losses(width=16, sorts=2)
    apart, sort = torch.eye(16)[:8], torch.zeros(8, dtype=torch.int64)
    same = torch.zeros(8, dtype=torch.bool)
    right, found = losses.of_pictures(apart, apart.clone(), same, sort, Weights())
    wrong, lost = losses.of_pictures(apart, apart.roll(1, 0), same, sort, Weights())
    collapsed, _ = losses.of_pictures(torch.ones(8, 16), torch.ones(8, 16), same, sort, Weights())
    assert right < collapsed < wrong
    assert (found, lost) == (1, 0)


def test_the_same_picture_at_another_budget_is_drawn_nearer_still() -> None:
    losses = Losses(width=16, sorts=2)
    near = torch.eye(16)[:8] + 0.2
    sort, same = torch.zeros(8, dtype=torch.int64), torch.ones(8, dtype=torch.bool)
    plain, _ = losses.of_pictures(torch.eye(16)[:8], near, ~same, sort, Weights())
    drawn, _ = losses.of_pictures(torch.eye(16)[:8], near, same, sort, Weights())
    assert drawn > plain
    firmly, _ = losses.of_pictures(torch.eye(16)[:8], near, same, sort, Weights(same=3.0))
    torch.testing.assert_close(firmly - plain, 3 * (drawn - plain))


def test_tokens_of_a_pair_are_brought_together_and_others_apart() -> None:
    losses = Losses(width=16, sorts=2)
    apart, picture = torch.eye(16)[:8], torch.arange(8)
    place = torch.zeros(8, 2)
    right = losses.of_pairs(apart, apart, picture, place)
    wrong = losses.of_pairs(apart, apart.roll(1, 0), picture, place)
    alike = losses.of_pairs(torch.ones(8, 16), torch.ones(8, 16), picture, place)
    assert right < alike < wrong


def test_tokens_next_to_one_another_are_not_told_apart() -> None:
    losses = Losses(width=16, sorts=2)
    tokens, one_picture = torch.eye(16)[:2], torch.zeros(2, dtype=torch.int64)
    near, far = torch.tensor([[0.5, 0.5], [0.6, 0.5]]), torch.tensor([[0.2, 0.5], [0.6, 0.5]])
    assert losses.of_pairs(tokens, tokens, one_picture, near).item() == 0
    assert losses.of_pairs(tokens, tokens, one_picture, far).item() > 0
    assert losses.of_pairs(tokens, tokens, torch.arange(2), near).item() > 0


def test_an_interrupted_run_goes_on_as_if_it_had_not_been(pool: Pool) -> None:
    shown = [make_step(pool, n, pictures=12, budgets=Budgets(30), seed=0) for n in range(3)]
    through, first, second = (Learner(CONFIG, seed=seed, device=CPU) for seed in (0, 0, 9))
    for step in shown:
        through.learn(step, 1.0, Weights())
    for step in shown[:2]:
        first.learn(step, 1.0, Weights())
    second.restore(first.state())
    second.learn(shown[2], 1.0, Weights())
    for name, weight in through.weights().items():
        assert torch.equal(weight, second.weights()[name]), name


def network(learner: Learner) -> dict[str, Tensor]:
    return {name: weight.clone() for name, weight in learner.state()["network"].items()}


def test_what_is_learnt_in_the_end_lies_midway_between_where_courses_ended(pool: Pool) -> None:
    step = make_step(pool, 0, pictures=12, budgets=Budgets(30), seed=0)
    learner, resumed = (Learner(CONFIG, seed=seed, device=CPU) for seed in (0, 9))
    learner.learn(step, 1.0, Weights())
    learner.end_course()
    first = network(learner)
    resumed.restore(learner.state())
    resumed.learn(step, 1.0, Weights())
    resumed.end_course()
    second, shown = network(resumed), resumed.vectors(step.whole)
    resumed.finish()
    for name, weight in network(resumed).items():
        torch.testing.assert_close(weight, (first[name] + second[name]) / 2, msg=name)
    assert not torch.equal(resumed.vectors(step.whole), shown)


def test_learning_brings_two_views_of_a_picture_together(pool: Pool) -> None:
    learner = Learner(CONFIG, seed=0, device=CPU)
    step = make_step(pool, 0, pictures=12, budgets=Budgets(30), seed=0)
    losses = [learner.learn(step, 0.5, Weights())[0] for _ in range(8)]
    assert losses[-1] < losses[0]


@pytest.mark.slow
def test_a_run_writes_a_checkpoint_and_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = train.Recipe(pictures=8, schedule=courses((1, 0), (1, 0)), pictures_of_step=8)
    monkeypatch.setitem(train.RECIPES, "short", recipe)
    monkeypatch.setattr(train, "SAVED_EVERY", 1)
    assert train.main([str(tmp_path), "--recipe", "short"]) == 0
    tensors = load_file(tmp_path / "model.safetensors")
    assert {name: tuple(x.shape) for name, x in tensors.items()} == tiny.CONFIG.checkpoint_shapes()
    assert {x.dtype for x in tensors.values()} == {torch.bfloat16}
    capsys.readouterr()
    assert train.main([str(tmp_path), "--recipe", "short"]) == 0
    assert "0 steps in" in capsys.readouterr().err
    again = load_file(tmp_path / "model.safetensors")
    assert all(torch.equal(tensors[name], again[name]) for name in tensors)
    monkeypatch.setitem(train.RECIPES, "short", replace(recipe, schedule=courses((2, 0), (1, 0))))
    assert train.main([str(tmp_path), "--recipe", "short"]) == train.EXIT_CANNOT_RUN
    assert "another recipe" in capsys.readouterr().err


def test_pictures_of_another_edition_are_drawn_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(Pool(tmp_path, first_seed=0, count=2, shard=2).fill(1)) == [0, 2]
    assert list(Pool(tmp_path, first_seed=0, count=2, shard=2).fill(1)) == [2]
    monkeypatch.setattr(learning_pool, "edition", lambda: "0" * 8)
    assert list(Pool(tmp_path, first_seed=0, count=2, shard=2).fill(1)) == [0, 2]
