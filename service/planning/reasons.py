"""With which cap a task's images begin, and why a group is told to take what it is told to take: pure."""

import math

from model.sizing.geometry import Geometry, Strategy
from model.sizing.plan import ImagePlan
from service.planning.options import Seen, remark
from service.planning.quality import QUALITY, SHORTEST_TRAINED_TOKENS, Task
from service.planning.workload import Group

# No side is enlarged further where that can be prevented: there is no more to see.
MOST_ENLARGEMENT = 2


def start_tokens(group: Group, geometry: Geometry) -> int:
    """The cap that a task begins with, or less for a picture so small that this would enlarge it beyond use."""
    patches = math.ceil(group.height / geometry.patch_size) * math.ceil(group.width / geometry.patch_size)
    useful = max(SHORTEST_TRAINED_TOKENS, patches * MOST_ENLARGEMENT**2)
    return min(QUALITY[group.task].start_tokens, useful)


def why(group: Group, plan: ImagePlan, *, start: int, geometry: Geometry, asked: Strategy | None) -> str:
    """start: the cap that the group began with. asked: the strategy that the request insists on."""
    if asked:
        reason = f"{plan.strategy} was asked for"
    elif plan.strategy in ("naflex", "native"):
        reason = f"{plan.strategy} keeps the shape, in one piece, as the model was trained"
    elif geometry.fixed is None:
        reason = f"{plan.strategy}, as {geometry.strategies[0]} takes no such image"
    elif plan.strategy == "anyres":
        reason = "the model's own square shows too little of it"
    else:
        reason = "the model's own square: tiles do not fit, or are not worth their tokens"
    return f"{reason}; {remark(plan, Seen.of(plan, geometry))}; {_why_cap(group, plan, start, geometry)}"


def _why_cap(group: Group, plan: ImagePlan, start: int, geometry: Geometry) -> str:
    quality = QUALITY[group.task]
    if plan.token_cap < start:
        return f"the budget lowers its cap from {start:,} to {plan.token_cap:,} tokens"
    if geometry.fixed:
        return f"within {start:,} tokens (max_image_tokens)"
    if start == quality.start_tokens:
        return quality.why
    if start == start_tokens(group, geometry):
        return f"{start:,} tokens show all there is of so small a picture"
    return f"the server allows no more than {start:,} tokens (max_image_tokens)"


def crossed(task: Task, before_tokens: int, after_tokens: int) -> str | None:
    """What published tables have for a cap that was lowered; None where they have no row between."""
    quality = QUALITY[task]
    change = quality.measure.change(before_tokens, after_tokens)
    if change and after_tokens < quality.knee_tokens <= before_tokens:
        return f"below its knee of {quality.knee_tokens} tokens: {change}"
    return change
