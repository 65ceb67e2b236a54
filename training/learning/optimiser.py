"""The optimiser: Muon for the inner matrices, Adam for the rest, on float32 weights behind bfloat16 replicas.

Muon (Jordan et al. 2024) makes a matrix's change equally large in every direction. A small network then learns in a few
hundred large steps what takes Adam some thousands. Knows nothing of losses or data.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

_MUON_RATE, _ADAM_RATE = 0.02, 0.002
_WEIGHT_DECAY = 0.05


class Optimiser:
    """Holds the weights of a network and of its losses, and replicas that compute with copies of the network's."""

    def __init__(self, network: nn.Module, losses: nn.Module, replicas: Sequence[nn.Module]) -> None:
        """network, losses: float32. The replicas get the network's weights."""
        self._network = dict(network.named_parameters())
        self._losses, self._replicas = losses, replicas
        inside = {name for name, weight in self._network.items() if weight.ndim == 2 and "embedding" not in name}
        muon = [weight for name, weight in self._network.items() if name in inside]
        adam = [weight for name, weight in self._network.items() if name not in inside]
        self._parts: list[tuple[torch.optim.Optimizer, float]] = [
            (torch.optim.Muon(muon, lr=_MUON_RATE, weight_decay=_WEIGHT_DECAY), _MUON_RATE),
            (torch.optim.AdamW([*adam, *losses.parameters()], betas=(0.9, 0.98), weight_decay=0), _ADAM_RATE),
        ]
        self._show()

    def step(self, share_of_rate: float) -> None:
        """Changes the weights by the summed gradients of all replicas, then clears the gradients."""
        for replica in self._replicas:
            for name, copy in replica.named_parameters():
                assert copy.grad is not None, f"{name} has no gradient"
                weight = self._network[name]
                weight.grad = copy.grad.float() if weight.grad is None else weight.grad.add_(copy.grad)
                copy.grad = None
        for part, rate in self._parts:
            part.param_groups[0]["lr"] = rate * share_of_rate
            part.step()
            part.zero_grad()
        self._show()

    @torch.no_grad()
    def _show(self) -> None:
        for replica in self._replicas:
            for name, copy in replica.named_parameters():
                copy.copy_(self._network[name])

    def weights(self) -> dict[str, Tensor]:
        """Returns the network's weights, float32, by their names in a checkpoint."""
        return {name: weight.detach() for name, weight in self._network.items()}

    def state(self) -> dict[str, Any]:
        """Returns what `restore` needs to continue as if uninterrupted."""
        parts = [part.state_dict() for part, _ in self._parts]
        return {"network": self.weights(), "losses": self._losses.state_dict(), "parts": parts}

    @torch.no_grad()
    def take(self, weights: Mapping[str, Tensor]) -> None:
        """Replaces the network's weights. weights: float32, by their names in a checkpoint."""
        for name, weight in self._network.items():
            weight.copy_(weights[name])
        self._show()

    def restore(self, state: dict[str, Any]) -> None:
        self._losses.load_state_dict(state["losses"])
        for (part, _), stored in zip(self._parts, state["parts"], strict=True):
            part.load_state_dict(stored)
        self.take(state["network"])
