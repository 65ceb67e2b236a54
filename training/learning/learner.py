"""Trains a network with two replicas. Each replica sees one view of every picture, and both share the weights.

On a CPU each replica computes in one thread, side by side. This wastes less than two threads on each matrix product.
Knows nothing of pictures or files.

Axes: B pictures, N pairs of tokens, D width.
"""

from typing import Any

import torch
from torch import Tensor

from model.encoders.siglip.naflex import NaFlexConfig
from model.running.workers import Workers
from training.learning.losses import Losses
from training.learning.optimiser import Optimiser
from training.learning.pairs import PackedViews
from training.learning.schedule import Weights
from training.learning.steps import SORTS, Step
from training.learning.trainee import Trainee


class Learner:
    """Takes training steps. Weights are float32, and the replicas compute with bfloat16 copies of them."""

    def __init__(self, config: NaFlexConfig, *, seed: int, device: torch.device) -> None:
        torch.manual_seed(seed)
        network, losses = Trainee(config), Losses(config.width, len(SORTS))
        network.begin(torch.Generator().manual_seed(seed))
        network.to(device)
        self._losses = losses.to(device)
        self._replicas = [Trainee(config).to(device, torch.bfloat16) for _ in range(2)]
        self._optimiser = Optimiser(network, self._losses, self._replicas)
        self._workers = Workers(2)
        self._ends: list[dict[str, Tensor]] = []

    def learn(self, step: Step, share_of_rate: float, weights: Weights) -> tuple[float, float]:
        """Takes one step. Returns the loss, and how often the nearest whole view of a part view was its own."""
        views = (step.whole, torch.from_numpy(step.pairs.whole)), (step.part, torch.from_numpy(step.pairs.part))
        tasks = [(replica, *view) for replica, view in zip(self._replicas, views, strict=True)]
        whole, part = shown = self._workers.each(_show, tasks)
        of_step = (step.same, step.sort, step.pairs.picture, step.pairs.place)
        same, sort, picture, place = (torch.from_numpy(x).to(whole.vectors.device) for x in of_step)
        loss, found = self._losses.of_pictures(whole.vectors, part.vectors, same, sort, weights)
        loss = loss + self._losses.of_pairs(whole.tokens, part.tokens, picture, place)
        torch.autograd.backward(loss)
        self._workers.each(_Shown.back, shown)
        self._optimiser.step(share_of_rate)
        return loss.item(), found

    def end_course(self) -> None:
        """Keeps the weights at the end of a course for `finish`."""
        self._ends.append({name: weight.clone() for name, weight in self._optimiser.weights().items()})

    def finish(self) -> None:
        """Replaces the weights by the mean of those at the ends of the courses. Learning cannot continue from there.

        A course that continues another fits the drawn pictures better, and some real ones worse. Weights midway keep
        most of both (Wortsman et al. 2022, "Robust fine-tuning of zero-shot models").
        """
        self._optimiser.take({name: torch.stack([end[name] for end in self._ends]).mean(0) for name in self._ends[0]})

    @torch.no_grad()
    def vectors(self, seen: PackedViews) -> Tensor:
        """Returns float32 `[B, D]` of the pictures in their order, not of length 1, on the host."""
        return _show((self._replicas[0], seen, torch.zeros(0, dtype=torch.int64))).vectors.cpu()

    def weights(self) -> dict[str, Tensor]:
        """Returns bfloat16 weights on the host, by their names in a checkpoint."""
        return {name: weight.to("cpu", torch.bfloat16) for name, weight in self._optimiser.weights().items()}

    def state(self) -> dict[str, Any]:
        """Returns what `restore` needs to continue as if uninterrupted."""
        return self._optimiser.state() | {"ends": self._ends}

    def restore(self, state: dict[str, Any]) -> None:
        self._optimiser.restore(state)
        self._ends = list(state["ends"])


class _Shown:
    """A replica's vectors of one view of each picture, detached from the replica.

    The losses see only vectors. Their gradients then go back through each replica separately.
    vectors: float32 `[B, D]`, in the order of the pictures. tokens: float32 `[N, D]`, the chosen ones.
    """

    def __init__(self, pooled: Tensor, tokens: Tensor, chosen: Tensor) -> None:
        self._pooled, self._tokens, self._chosen = pooled, tokens, chosen
        self.vectors = pooled.detach().requires_grad_()
        self.tokens = tokens.detach()[chosen].float().requires_grad_()

    def back(self) -> None:
        assert self.tokens.grad is not None
        wanted = torch.zeros_like(self._tokens).index_add_(0, self._chosen, self.tokens.grad.to(self._tokens.dtype))
        torch.autograd.backward([self._pooled, self._tokens], [self.vectors.grad, wanted])


def _show(task: tuple[Trainee, PackedViews, Tensor]) -> _Shown:
    replica, seen, chosen = task
    pooled, tokens = replica(seen.pack)
    return _Shown(pooled[torch.from_numpy(seen.order).to(pooled.device)], tokens, chosen.to(tokens.device))
