"""A network that learns: two replicas of it, each of which sees one view of every picture, and the weights behind them.

On a CPU the replicas compute side by side in a thread each, which wastes less than two threads on every product. Knows
nothing of pictures or files.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from model.encoders.naflex import NaFlexConfig
from model.tiny.learning.losses import Losses
from model.tiny.learning.optimiser import Optimiser
from model.tiny.learning.steps import SORTS, Step, Views
from model.tiny.learning.trainee import Trainee


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
        self._threads = ThreadPoolExecutor(2, initializer=torch.set_num_threads, initargs=(1,))

    def learn(self, step: Step, share_of_rate: float) -> tuple[float, float]:
        """The loss, and how often the nearest whole view of a part view was its own."""
        pooled = self._each(_vectors, [step.whole, step.part])
        # The loss knows vectors alone; what it wants of them goes back through each replica on its own.
        vectors = [x.detach().requires_grad_() for x in pooled]
        device = vectors[0].device
        same, sort = (torch.from_numpy(x).to(device) for x in (step.same, step.sort))
        loss, found = self._losses(*vectors, same, sort)
        loss.backward()
        list(self._threads.map(Tensor.backward, pooled, [x.grad for x in vectors]))
        self._optimiser.step(share_of_rate)
        return float(loss), found

    def _each(self, do: Any, views: Sequence[Views]) -> list[Tensor]:
        return list(self._threads.map(do, self._replicas, views))

    def weights(self) -> dict[str, Tensor]:
        """bfloat16 on the host, by the names of a checkpoint."""
        return {name: weight.to("cpu", torch.bfloat16) for name, weight in self._optimiser.weights().items()}

    def state(self) -> dict[str, Any]:
        """All that `restore` needs to go on as if nothing had happened."""
        return self._optimiser.state()

    def restore(self, state: dict[str, Any]) -> None:
        self._optimiser.restore(state)


def _vectors(replica: Trainee, views: Views) -> Tensor:
    """float32 `[B, D]`, in the order of the pictures."""
    pooled: Tensor = replica(views.pack)
    return pooled[torch.from_numpy(views.order).to(pooled.device)]
