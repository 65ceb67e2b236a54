"""What all vectors get in common when training is over: one vector more, in the last bias of the head.

The contrast weighs differences of cosines alone, and leaves two pictures nearly at right angles and one picture at two
budgets not quite at one. An offset moves all cosines towards 1 together and hardly changes which is the highest, so
that there is room between those of the same picture (0.95 and more) and of different ones (less than 0.5). Without it
training has to draw budgets together by force, which costs it a tenth of the crops that are found.

Axes: B pictures, D width.
"""

from torch import Tensor
from torch.nn import functional as F

_LAST_BIAS = "head.mlp.fc2.bias"
_LENGTH = 0.65  # of the vectors' mean length


def with_offset(weights: dict[str, Tensor], vectors: Tensor) -> dict[str, Tensor]:
    """The weights, by the names of a checkpoint, with an offset in the direction that the vectors have in common.

    vectors: float32 `[B, D]`, what the weights make of some pictures, not of length 1; before any stretch will do, as
    that keeps their mean.
    """
    shared = F.normalize(F.normalize(vectors, dim=-1).mean(dim=0), dim=0)
    bias = weights[_LAST_BIAS]
    offset = _LENGTH * vectors.norm(dim=-1).mean() * shared
    return weights | {_LAST_BIAS: (bias.float() + offset).to(bias.dtype)}
