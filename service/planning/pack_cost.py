"""What planned images cost together: tokens, full packs and milliseconds. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from model.sizing.plan import ImagePlan
from service.engine.cost.fit import CostFit
from service.planning.workload import Group

# Groups and the plan of each one's images.
Taken = Sequence[tuple[Group, ImagePlan]]


@dataclass(frozen=True, slots=True)
class PackCost:
    """fit: what packs take, if enough have run."""

    max_batch_tokens: int
    fit: CostFit | None

    def packs(self, taken: Taken) -> int:
        """Full packs of each group's images: what they come to if many are sent at once."""
        return math.ceil(sum(group.count / self._images_per_pack(plan) for group, plan in taken))

    def ms(self, taken: Taken) -> float | None:
        if self.fit is None:
            return None
        squares = sum(group.count * _squares(plan) for group, plan in taken)
        return 1000 * self.fit.seconds(total_tokens(taken), squares, self.packs(taken))

    def image_ms(self, plan: ImagePlan) -> float | None:
        """One image's part of a full pack of such images."""
        if self.fit is None:
            return None
        return round(1000 * self.fit.seconds(plan.tokens, _squares(plan), 1 / self._images_per_pack(plan)), 3)

    def _images_per_pack(self, plan: ImagePlan) -> int:
        return max(1, self.max_batch_tokens // plan.tokens)


def total_tokens(taken: Taken) -> int:
    return sum(group.count * plan.tokens for group, plan in taken)


def _squares(plan: ImagePlan) -> int:
    """What attention goes by."""
    return sum(segment.tokens**2 for segment in plan.segments)
