"""The canary's pictures and texts as jobs for one model: planned, drawn at the size that its patches take."""

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from model.errors import BudgetError
from model.sizing.budget import Budget
from model.sizing.geometry import Geometry
from model.sizing.plan import ImagePlan, plan_image
from service.canary.pictures import DRAWINGS, Drawing, Pixels, patch_rows
from service.engine.canary.rule import NamedJob
from service.engine.client import DocumentJob, ImageJob, TextJob
from service.limits import Limits, ModelFacts
from service.requests.documents.rows import row_of

# A plan of a planned size is nearly always that size; a strip for Gemma grows a little with each plan.
_TRIES = 64
_NO_ROWS: Pixels = np.empty((0, 0), np.uint8)


@dataclass(frozen=True, slots=True, eq=False)
class CanaryPicture:
    """plan: of a picture that is as large as the model takes it. pixels: uint8 `[H, W, 3]`."""

    name: str
    plan: ImagePlan
    pixels: Pixels


def canary_pictures(geometry: Geometry, max_image_tokens: int) -> list[CanaryPicture]:
    """Those that the model takes within the limits."""
    pictures = []
    for drawing in DRAWINGS:
        with suppress(BudgetError):
            plan = _plan(drawing, geometry, max_image_tokens)
            pictures.append(CanaryPicture(drawing.name, plan, drawing.pixels(*plan.resized)))
    return pictures


def picture_jobs(model: ModelFacts, limits: Limits) -> list[NamedJob]:
    """As requests for embeddings would make them of the pictures."""
    pictures = canary_pictures(model.geometry, limits.max_image_tokens)
    return [NamedJob(picture.name, _picture_job(model, picture)) for picture in pictures]


def text_job(name: str, ids: NDArray[np.int32], model: ModelFacts) -> NamedJob:
    """As a request for the text would make it. ids: int32 `[N]`."""
    assert model.text is not None, "a model without text was given ids"
    if model.text.documents is None:
        return NamedJob(name, TextJob(ids, model.text.context, None, canary=True))
    return NamedJob(name, DocumentJob(ids, _NO_ROWS, (), len(ids), (), model.text.context, None, canary=True))


def digest_of(pictures: Sequence[CanaryPicture]) -> str:
    """16 hexadecimal digits of what they are, pixel for pixel."""
    digest = hashlib.sha256()
    for each in pictures:
        digest.update(repr((each.name, each.pixels.shape)).encode() + each.pixels.tobytes())
    return digest.hexdigest()[:16]


def _plan(drawing: Drawing, geometry: Geometry, max_image_tokens: int) -> ImagePlan:
    """Of a picture of the drawing's shape, or of the nearest that the model takes. Raises `BudgetError`."""
    factor = geometry.grid_factor
    grid_h, grid_w = (side * factor for side in drawing.grid)
    cap = geometry.budgets[0] if geometry.budgets else geometry.fixed_tokens("square") or grid_h * grid_w
    budget = Budget.of_tokens(min(cap, max_image_tokens), geometry.patch_size)
    size = grid_h * geometry.patch_size, grid_w * geometry.patch_size
    for _ in range(_TRIES):
        plan = plan_image(size, geometry=geometry, budget=budget, strategy=geometry.default_strategy)
        if plan.resized == size:
            break
        size = plan.resized
    return replace(plan, size=plan.resized)


def _picture_job(model: ModelFacts, picture: CanaryPicture) -> ImageJob | DocumentJob:
    plan = picture.plan
    rows = patch_rows(picture.pixels, model.patch_size)
    grids = tuple(segment.grid for segment in plan.segments)
    documents = model.text.documents if model.text else None
    if documents is None:
        return ImageJob(rows, grids, plan.tokens, None, want_tokens=False, canary=True)
    row = row_of([(), ()], [plan], documents, has_text=False, truncated=False)
    assert model.text is not None
    return DocumentJob(
        ids=row.ids, rows=rows, grids=grids, text_tokens=row.text_tokens, token_caps=(plan.tokens,),
        text_cap=model.text.context, deadline_s=None, canary=True,
    )  # fmt: skip
