"""How pictures are prepared for a tower that pools patches into a bounded number of soft tokens.

Refuses, by key, options of the processor that are not supported. Knows nothing of weights.
"""

from model.encoders.parts.fields import Fields
from model.encoders.parts.preprocessing import Preprocessing, processor, stated
from model.sizing.geometry import Geometry

SOFT_TOKENS = (70, 140, 280, 560, 1120)
"""What an image may become at most. The processor takes no other number."""

_PREPARED = {"do_resize": True, "do_rescale": True, "do_normalize": False, "rescale_factor": 1 / 255, "resample": 3}
# The model itself maps values from 0 to 1 to -1 to 1.
_HALF = (0.5, 0.5, 0.5)


def read_soft_tokens(fields: Fields, *, patch_size: int, pooled: int) -> Preprocessing:
    """For a tower that pools `pooled` patches a side. Missing keys are as for Gemma 4."""
    processor(fields, ("Gemma4",))
    given = stated(fields).over({"max_soft_tokens": 280})
    given.require(_PREPARED | {"patch_size": patch_size, "pooling_kernel_size": pooled})
    soft_tokens = given.count("max_soft_tokens")
    if soft_tokens not in SOFT_TOKENS:
        raise given.error("max_soft_tokens", f"it is one of {', '.join(map(str, SOFT_TOKENS))}")
    geometry = Geometry.for_pooling(patch_size, pooled, budgets=tuple(count * pooled**2 for count in SOFT_TOKENS))
    return Preprocessing(_HALF, _HALF, geometry, soft_tokens * pooled**2)
