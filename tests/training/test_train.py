"""Training: what a learner learns, interrupted runs, and pictures kept on disk."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from model.checkpoint import tiny
from model.encoders.siglip.naflex import NaFlexConfig
from training import train
from training.learning import pool as learning_pool
from training.learning.learner import Learner
from training.learning.pool import Pool
from training.learning.schedule import Budgets, Weights, courses
from training.learning.steps import make_step

CONFIG = NaFlexConfig(width=96, depth=2, heads=3, mlp_width=200)
CPU = torch.device("cpu")


def test_an_interrupted_run_continues_as_if_uninterrupted(pool: Pool) -> None:
    shown = [make_step(pool, n, pictures=12, budgets=Budgets(30, (16, 30)), seed=0) for n in range(3)]
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


def test_the_final_weights_are_midway_between_the_ends_of_the_courses(pool: Pool) -> None:
    step = make_step(pool, 0, pictures=12, budgets=Budgets(30, (16, 30)), seed=0)
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
    step = make_step(pool, 0, pictures=12, budgets=Budgets(30, (16, 30)), seed=0)
    losses = [learner.learn(step, 0.5, Weights())[0] for _ in range(8)]
    assert losses[-1] < losses[0]


@pytest.mark.slow
def test_a_run_writes_a_checkpoint_and_continues_where_it_stopped(
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


def test_pictures_of_another_edition_are_drawn_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(Pool(tmp_path, count=2, shard=2).fill(1)) == [0, 2]
    assert list(Pool(tmp_path, count=2, shard=2).fill(1)) == [2]
    monkeypatch.setattr(learning_pool, "edition", lambda: "0" * 8)
    assert list(Pool(tmp_path, count=2, shard=2).fill(1)) == [0, 2]
