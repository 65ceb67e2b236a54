"""The training losses."""

import torch

from training.learning.losses import Losses
from training.learning.schedule import Weights


def test_the_loss_is_least_if_views_agree_and_pictures_differ() -> None:
    losses = Losses(width=16, sorts=2)
    apart, sort = torch.eye(16)[:8], torch.zeros(8, dtype=torch.int64)
    same = torch.zeros(8, dtype=torch.bool)
    right, found = losses.of_pictures(apart, apart.clone(), same, sort, Weights())
    wrong, lost = losses.of_pictures(apart, apart.roll(1, 0), same, sort, Weights())
    collapsed, _ = losses.of_pictures(torch.ones(8, 16), torch.ones(8, 16), same, sort, Weights())
    assert right < collapsed < wrong
    assert (found, lost) == (1, 0)


def test_the_same_picture_at_another_budget_is_pulled_nearer_still() -> None:
    losses = Losses(width=16, sorts=2)
    near = torch.eye(16)[:8] + 0.2
    sort, same = torch.zeros(8, dtype=torch.int64), torch.ones(8, dtype=torch.bool)
    plain, _ = losses.of_pictures(torch.eye(16)[:8], near, ~same, sort, Weights())
    drawn, _ = losses.of_pictures(torch.eye(16)[:8], near, same, sort, Weights())
    assert drawn > plain
    firmly, _ = losses.of_pictures(torch.eye(16)[:8], near, same, sort, Weights(same=3.0))
    torch.testing.assert_close(firmly - plain, 3 * (drawn - plain))


def test_tokens_of_a_pair_are_pulled_together_and_others_apart() -> None:
    losses = Losses(width=16, sorts=2)
    apart, picture = torch.eye(16)[:8], torch.arange(8)
    place = torch.zeros(8, 2)
    right = losses.of_pairs(apart, apart, picture, place)
    wrong = losses.of_pairs(apart, apart.roll(1, 0), picture, place)
    alike = losses.of_pairs(torch.ones(8, 16), torch.ones(8, 16), picture, place)
    assert right < alike < wrong


def test_tokens_close_to_each_other_are_not_pushed_apart() -> None:
    losses = Losses(width=16, sorts=2)
    tokens, one_picture = torch.eye(16)[:2], torch.zeros(2, dtype=torch.int64)
    near, far = torch.tensor([[0.5, 0.5], [0.6, 0.5]]), torch.tensor([[0.2, 0.5], [0.6, 0.5]])
    assert losses.of_pairs(tokens, tokens, one_picture, near).item() == 0
    assert losses.of_pairs(tokens, tokens, one_picture, far).item() > 0
    assert losses.of_pairs(tokens, tokens, torch.arange(2), near).item() > 0
