"""A network that learns: two replicas of it, each of which sees one view of every picture, and the weights behind them.

On a CPU the replicas compute side by side in a thread each, which wastes less than two threads on every product. Knows
nothing of pictures or files.
"""

from typing import Any

import torch
from torch import Tensor

from model.encoders.naflex import NaFlexConfig
from model.tiny.learning.losses import Losses
from model.tiny.learning.optimiser import Optimiser
from model.tiny.learning.schedule import Weights
from model.tiny.learning.steps import SORTS, Step, Views
from model.tiny.learning.trainee import Trainee
from model.workers import Workers


class Learner:
    """Takes steps. float32 weights, which are computed with in bfloat16."""

    def __init__(self, config: NaFlexConfig, *, seed: int, device: torch.device) -> None:
        torch.manual_seed(seed)
        network, losses = Trainee(config), Losses(config.width, len(SORTS))
        network.begin(torch.Generator().manual_seed(seed))
        network.to(device)
        self._losses = losses.to(device)
        self._replicas = [Trainee(config).to(device, torch.bfloat16) for _ in range(2)]
        self._optimiser = Optimiser(network, self._losses, self._replicas)
        self._workers = Workers(2)

    def learn(self, step: Step, share_of_rate: float, weights: Weights) -> tuple[float, float]:
        """The loss, and how often the nearest whole view of a part view was its own."""
        pooled = self._workers.each(_vectors, list(zip(self._replicas, (step.whole, step.part), strict=True)))
        # The loss knows vectors alone; what it wants of them goes back through each replica on its own.
        vectors = [x.detach().requires_grad_() for x in pooled]
        device = vectors[0].device
        same, sort = (torch.from_numpy(x).to(device) for x in (step.same, step.sort))
        loss, found = self._losses(*vectors, same, sort, weights)
        loss.backward()
        self._workers.each(_back, [(x, y.grad) for x, y in zip(pooled, vectors, strict=True)])
        self._optimiser.step(share_of_rate)
        return loss.item(), found

    def weights(self) -> dict[str, Tensor]:
        """bfloat16 on the host, by the names of a checkpoint."""
        return {name: weight.to("cpu", torch.bfloat16) for name, weight in self._optimiser.weights().items()}

    def state(self) -> dict[str, Any]:
        """All that `restore` needs to go on as if nothing had happened."""
        return self._optimiser.state()

    def restore(self, state: dict[str, Any]) -> None:
        self._optimiser.restore(state)


def _vectors(part: tuple[Trainee, Views]) -> Tensor:
    """float32 `[B, D]`, in the order of the pictures."""
    replica, views = part
    pooled: Tensor = replica(views.pack)
    return pooled[torch.from_numpy(views.order).to(pooled.device)]


def _back(part: tuple[Tensor, Tensor | None]) -> None:
    pooled, gradient = part
    torch.autograd.backward(pooled, gradient)
