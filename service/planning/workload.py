"""What `POST /plan` and `packlight plan` are asked: a workload, a budget, and perhaps a strategy; read and checked."""

from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from model.sizing.geometry import Strategy
from service.errors import Invalid
from service.planning.quality import Task

# A plan of this many takes a few tenths of a second.
MAX_GROUPS: Final = 256

_Side = Annotated[int, Field(strict=True, ge=1, le=1_000_000)]


class Group(BaseModel):
    """Images of one size and one task."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    height: _Side = Field(description="Pixels, upright.")
    width: _Side = Field(description="Pixels, upright.")
    count: Annotated[int, Field(strict=True, ge=1, le=10**9)] = Field(1, description="How many such images there are.")
    task: Task = Field(description="What their embeddings are for: it sets the budget that they start with.")

    @property
    def size(self) -> tuple[int, int]:
        return self.height, self.width


class PlanRequest(BaseModel):
    """A body of `POST /plan`: one of the two budgets, for all images together."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    workload: Annotated[list[Group], Field(min_length=1, max_length=MAX_GROUPS)]
    budget_tokens: Annotated[int, Field(strict=True, ge=1)] | None = Field(None, description="Most tokens.")
    budget_ms: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        None, description="Most milliseconds of one device, by its cost as measured."
    )
    strategy: Strategy | None = Field(None, description="The only one to consider, of those that the model takes.")

    @model_validator(mode="after")
    def _one_budget(self) -> "PlanRequest":
        if (self.budget_tokens is None) == (self.budget_ms is None):
            raise ValueError("give either budget_tokens or budget_ms")
        return self


def read_plan_request(content: dict[str, Any]) -> PlanRequest:
    """Raises `Invalid`, which names the field by its way there: `workload.3.height`."""
    try:
        return PlanRequest.model_validate(content)
    except ValidationError as error:
        details = error.errors()[0]
    message = str(details["msg"]).removeprefix("Value error, ")
    if not details["loc"]:
        raise Invalid(message, param="budget_tokens")
    name = ".".join(str(part)[:40] for part in details["loc"])
    if details["type"] == "extra_forbidden":
        raise Invalid(f"there is no field {name!r}", param=name)
    raise Invalid(f"{name}: {message[:1].lower()}{message[1:]}", param=name)
