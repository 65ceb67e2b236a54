"""Pictures as they are remembered, without any decoding."""

import numpy as np

from model.sizing.budget import Budget
from model.sizing.geometry import Geometry
from model.sizing.plan import plan_image
from service.requests.cache.seen import Seen

NAFLEX = Geometry.for_naflex(16, 256)
DIM = 8


def seen(number: int, *, segments: int = 1) -> Seen:
    """Vectors that name their picture."""
    strategy, cap = ("naflex", 64) if segments == 1 else ("anyres", 1280)
    plan = plan_image((100 + number, 90), geometry=NAFLEX, budget=Budget.of_tokens(cap, 16), strategy=strategy)  # type: ignore[arg-type]
    pooled = np.full((len(plan.segments), DIM), number, np.float32)
    return Seen.of(plan, pooled, repaired=bool(number % 2), format="PNG")


def key_of(number: int) -> bytes:
    return number.to_bytes(48, "big")
