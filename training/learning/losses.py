"""What training makes small, of the vectors that two views of some pictures got, and of those that their tokens got.

Axes: B pictures, D width, N pairs of tokens.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.learning.schedule import Weights

# Cosines times this are logits. Higher looks at the most alike of other pictures alone.
_SCALE = 10.0
_PAIR_WIDTH = 128
# Of a picture's side: tokens nearer to one another than this may look alike, and are not told apart.
_NEAR = 0.15
_HIDDEN = -1e4


class Losses(nn.Module):
    """Of vectors that are not yet of length 1."""

    def __init__(self, width: int, sorts: int) -> None:
        super().__init__()
        self.sorts = nn.Parameter(torch.randn(sorts, width))
        self.project = nn.Linear(width, _PAIR_WIDTH, bias=False)

    def of_pictures(
        self, whole: Tensor, part: Tensor, same: Tensor, sort: Tensor, weights: Weights
    ) -> tuple[Tensor, float]:
        """The loss, and how often the nearest whole view of a part view is its own.

        whole, part: float32 `[B, D]`. same: bool `[B]`, where the two views differ in their tokens and little else.
        sort: int64 `[B]`, of which sort the picture is.
        """
        whole, part = F.normalize(whole, dim=-1), F.normalize(part, dim=-1)
        cosines = part @ whole.T
        own = torch.arange(len(cosines), device=cosines.device)
        loss = (F.cross_entropy(_SCALE * cosines, own) + F.cross_entropy(_SCALE * cosines.T, own)) / 2
        # The contrast is content with a view that is nearer than others; at another budget it should be all but equal.
        apart = (1 - cosines.diagonal()) * same
        loss = loss + weights.same * apart.sum() / same.sum().clamp(min=1)
        both = torch.cat([whole, part]) @ F.normalize(self.sorts, dim=-1).T
        loss = loss + weights.sort * F.cross_entropy(_SCALE * both, sort.repeat(2))
        return loss, float((cosines.argmax(1) == own).float().mean())

    def of_pairs(self, whole: Tensor, part: Tensor, picture: Tensor, place: Tensor) -> Tensor:
        """Least where the two tokens of each pair are nearer to one another than to those of other pairs.

        whole, part: float32 `[N, D]`, tokens. picture: int64 `[N]`, whose they are. place: float32 `[N, 2]`, where in
        it, from 0 to 1.
        """
        whole, part = (F.normalize(self.project(tokens), dim=-1) for tokens in (whole, part))
        near = (picture[:, None] == picture[None]) & (torch.cdist(place, place) < _NEAR)
        logits = (_SCALE * (part @ whole.T)).masked_fill(near.fill_diagonal_(False), _HIDDEN)
        own = torch.arange(len(logits), device=logits.device)
        return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
