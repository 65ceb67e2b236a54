"""The losses: on the vectors of two views of each picture, and on the vectors of their tokens.

Axes: B pictures, D width, N pairs of tokens.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.learning.schedule import Weights

# Cosines times this are logits. A higher scale looks only at the most similar other pictures.
_SCALE = 10.0
_PAIR_WIDTH = 128
# Share of a picture's side. Tokens closer to each other than this may look alike, and are not pushed apart.
_NEAR = 0.15
_HIDDEN = -1e4


class Losses(nn.Module):
    """Normalises the vectors it is given."""

    def __init__(self, width: int, sorts: int) -> None:
        super().__init__()
        self.sorts = nn.Parameter(torch.randn(sorts, width))
        self.project = nn.Linear(width, _PAIR_WIDTH, bias=False)

    def of_pictures(
        self, whole: Tensor, part: Tensor, same: Tensor, sort: Tensor, weights: Weights
    ) -> tuple[Tensor, float]:
        """Returns the loss, and how often the nearest whole view of a part view is its own.

        whole, part: float32 `[B, D]`. same: bool `[B]`, whether the two views differ in their tokens and little else.
        sort: int64 `[B]`, the sort of each picture.
        """
        whole, part = F.normalize(whole, dim=-1), F.normalize(part, dim=-1)
        cosines = part @ whole.T
        own = torch.arange(len(cosines), device=cosines.device)
        loss = (F.cross_entropy(_SCALE * cosines, own) + F.cross_entropy(_SCALE * cosines.T, own)) / 2
        # The contrast only wants the own view nearer than others. At another budget it should be almost equal.
        apart = (1 - cosines.diagonal()) * same
        loss = loss + weights.same * apart.sum() / same.sum().clamp(min=1)
        both = torch.cat([whole, part]) @ F.normalize(self.sorts, dim=-1).T
        loss = loss + weights.sort * F.cross_entropy(_SCALE * both, sort.repeat(2))
        return loss, float((cosines.argmax(1) == own).float().mean())

    def of_pairs(self, whole: Tensor, part: Tensor, picture: Tensor, place: Tensor) -> Tensor:
        """Returns a loss that is least if the two tokens of each pair are nearer to each other than to other pairs'.

        whole, part: float32 `[N, D]`, tokens. picture: int64 `[N]`, each pair's picture. place: float32 `[N, 2]`, its
        place in the picture, from 0 to 1.
        """
        whole, part = (F.normalize(self.project(tokens), dim=-1) for tokens in (whole, part))
        near = (picture[:, None] == picture[None]) & (torch.cdist(place, place) < _NEAR)
        logits = (_SCALE * (part @ whole.T)).masked_fill(near.fill_diagonal_(False), _HIDDEN)
        own = torch.arange(len(logits), device=logits.device)
        return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
