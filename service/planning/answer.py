"""A plan as it is answered: plain values, the same in JSON, in the table for people and in the picture.

Sizes are `(height, width)` in pixels, grids `(grid_h, grid_w)` in patches.
"""

from dataclasses import dataclass

from pydantic import TypeAdapter

from model.sizing.geometry import Strategy
from service.engine.cost.fit import CostFit
from service.planning.workload import Group


@dataclass(frozen=True, slots=True)
class Option:
    """One image of a group under one strategy of one geometry.

    loaded: whether it is the served model's. tokens: None if the image cannot be taken; `remark` says why. grid: the
    first segment's. scale: how much the sides are resized, as a geometric mean. stretch: one side's scale over the
    other's, 1.0 if the aspect ratio is kept. shown: the part that is not cropped. ms: the image's part of full packs;
    the served model's only. needs: the checkpoint to serve in order to measure that.
    """

    geometry: str
    strategy: Strategy
    loaded: bool
    remark: str
    tokens: int | None = None
    segments: int = 0
    grid: tuple[int, int] | None = None
    resized: tuple[int, int] | None = None
    scale: float | None = None
    stretch: float | None = None
    shown: float | None = None
    ms: float | None = None
    needs: str | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """What to take. parameters: those of `/embed`. grid: the first segment's."""

    strategy: Strategy
    parameters: dict[str, str | int]
    tokens: int
    token_cap: int
    segments: int
    grid: tuple[int, int]
    ms: float | None


@dataclass(frozen=True, slots=True)
class GroupPlan:
    """One group of the workload. take: None if the model cannot take such an image; `why` says why.

    start_tokens: the cap that the images start with. lowered: whether the budget lowered it. crosses: what published
    tables say of that.
    """

    group: Group
    take: Choice | None
    why: str
    start_tokens: int
    lowered: bool
    crosses: str | None
    options: list[Option]


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over all images that are taken. The last three are what the same images would take without packing.

    pad_to_longest: each padded to the longest of the workload. pad_to_cap: each padded to its own cap; None for a fixed
    model, whose images do not fill their caps. fixed_square: each as the same square, the model's own or the largest
    within the largest cap.
    """

    images: int
    tokens: int
    packs: int
    ms: float | None
    pad_to_longest: int
    pad_to_cap: int | None
    fixed_square: int


@dataclass(frozen=True, slots=True)
class BudgetVerdict:
    """The budget that was given, whether the plan fits it, and what was done for that."""

    tokens: int | None
    ms: float | None
    fits: bool
    message: str


@dataclass(frozen=True, slots=True)
class WorkloadPlan:
    """cost: the fit behind every `ms`, with its error."""

    model: str
    budget: BudgetVerdict
    totals: Totals
    groups: list[GroupPlan]
    cost: CostFit | None


_ANSWER = TypeAdapter(WorkloadPlan)


def write_plan(plan: WorkloadPlan) -> bytes:
    """As JSON."""
    return _ANSWER.dump_json(plan)


def read_plan(content: bytes) -> WorkloadPlan:
    """What `write_plan` wrote. Raises pydantic's `ValidationError` for anything else."""
    return _ANSWER.validate_json(content)
