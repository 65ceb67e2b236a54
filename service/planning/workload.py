"""What `POST /plan` and `packlight plan` take: a workload, a budget and perhaps a strategy."""

from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from model.sizing.geometry import Strategy
from service.errors import Invalid, from_validation_error
from service.planning.quality import Task

# Planning this many takes a few tenths of a second.
MAX_GROUPS: Final = 256

_Side = Annotated[int, Field(strict=True, ge=1, le=1_000_000, description="Pixels, upright.")]


class Group(BaseModel):
    """Images of one size and one task."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    height: _Side
    width: _Side
    count: Annotated[int, Field(strict=True, ge=1, le=10**9)] = Field(1, description="How many such images there are.")
    task: Task = Field(description="What the embeddings are for. It sets the cap that the images start with.")
    max_tokens: Annotated[int, Field(strict=True, ge=1)] | None = Field(
        None, description="The cap that the images start with, in place of the task's: as max_tokens of /embed."
    )

    @property
    def size(self) -> tuple[int, int]:
        return self.height, self.width


class PlanRequest(BaseModel):
    """A body of `POST /plan`: one of the two budgets, for all images together."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    workload: Annotated[list[Group], Field(min_length=1, max_length=MAX_GROUPS)] = Field(
        description="Groups of images of one size."
    )
    budget_tokens: Annotated[int, Field(strict=True, ge=1)] | None = Field(None, description="Most tokens.")
    budget_ms: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        None, description="Most milliseconds of one device, by its measured cost."
    )
    strategy: Strategy | None = Field(None, description="Consider only this one of the model's strategies.")

    @property
    def budget(self) -> float:
        """Tokens, or milliseconds if `budget_ms` is given."""
        budget = self.budget_tokens if self.budget_ms is None else self.budget_ms
        assert budget is not None, "a request has one budget"
        return budget

    @model_validator(mode="after")
    def _one_budget(self) -> "PlanRequest":
        if (self.budget_tokens is None) == (self.budget_ms is None):
            raise ValueError("give either budget_tokens or budget_ms")
        return self


def read_plan_request(content: dict[str, Any]) -> PlanRequest:
    """Raises `Invalid`, which names the field by its path: `workload.3.height`."""
    try:
        return PlanRequest.model_validate(content)
    except ValidationError as error:
        refusal = from_validation_error(error, PlanRequest, depth=3)
        raise Invalid(refusal.message, param=refusal.param or "budget_tokens") from None
