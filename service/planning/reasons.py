"""The cap that a task's images start with, and the reason for what a group is told to take. Pure."""

import math

from model.sizing.geometry import Geometry, Strategy
from model.sizing.plan import ImagePlan
from service.planning.options import Resizing, remark
from service.planning.quality import QUALITY, SHORTEST_TRAINED_TOKENS, Task
from service.planning.workload import Group

# Enlarging a side further shows nothing more.
MOST_ENLARGEMENT = 2


def start_tokens(group: Group, geometry: Geometry) -> int:
    """The cap that the group gives. Otherwise its task's, or less if so small a picture would only be enlarged.

    A model with budgets of its own starts with one of them: within the group's cap, or no smaller than the task's.
    """
    if group.max_tokens is not None:
        return geometry.cap_within(group.max_tokens) or group.max_tokens
    patches = math.ceil(group.height / geometry.patch_size) * math.ceil(group.width / geometry.patch_size)
    useful = max(SHORTEST_TRAINED_TOKENS, patches * MOST_ENLARGEMENT**2)
    start = min(QUALITY[group.task].start_tokens, useful)
    return next((budget for budget in geometry.budgets if budget >= start), start)


def why(group: Group, plan: ImagePlan, *, start: int, geometry: Geometry, asked: Strategy | None) -> str:
    """start: the cap that the group started with. asked: the strategy that the request insists on."""
    if asked:
        reason = f"the request asks for {plan.strategy}"
    elif plan.strategy in ("naflex", "native"):
        reason = f"{plan.strategy} keeps the aspect ratio in one segment, as in training"
    elif geometry.fixed is None:
        reason = f"{plan.strategy}, since {geometry.strategies[0]} takes no such image"
    elif plan.strategy == "anyres":
        reason = "tiles, since the model's own square shows too little"
    else:
        reason = "the model's own square, since tiles do not fit or are not worth their tokens"
    return f"{reason}; {remark(plan, Resizing.of(plan, geometry))}; {_why_cap(group, plan, start, geometry)}"


def _why_cap(group: Group, plan: ImagePlan, start: int, geometry: Geometry) -> str:
    quality = QUALITY[group.task]
    if plan.token_cap < start:
        return f"the budget lowers the cap from {start:,} to {plan.token_cap:,} tokens"
    if geometry.budgets:
        return f"{start:,} tokens are a budget that the model was trained on"
    if geometry.fixed:
        return f"within {start:,} tokens (max_image_tokens)"
    if start == group.max_tokens:
        return f"the workload asks for at most {start:,} tokens (max_tokens)"
    if start == quality.start_tokens:
        return quality.why
    if start == start_tokens(group, geometry):
        return f"{start:,} tokens show all of so small a picture"
    return f"the server allows at most {start:,} tokens (max_image_tokens)"


def crossed(task: Task, before_tokens: int, after_tokens: int) -> str | None:
    """What published tables say of a cap that was lowered. None if no row lies between."""
    quality = QUALITY[task]
    change = quality.measure.change(before_tokens, after_tokens)
    if change and after_tokens < quality.knee_tokens <= before_tokens:
        return f"below the knee of {quality.knee_tokens} tokens: {change}"
    return change
