"""Embeds pictures in memory as the server does: the bytes of a file, patch rows, a pack, a forward.

Knows nothing of what the vectors are for.
"""

from collections.abc import Sequence
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.checkpoint.load import Checkpoint
from model.images.decode import decode_patches
from model.pack import pack
from model.running.devices import default_device
from model.running.runner import Runner
from model.sizing.budget import Budget, check_strategy
from model.sizing.plan import ImagePlan, plan_image
from training.judging.vectors import unit_rows

_MAX_BATCH_TOKENS = 4096


class PictureEmbedder:
    """A checkpoint on a device, called with pictures and a budget."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        """Raises `BudgetError` for a model with one fixed size of picture, which has no budgets to compare."""
        self._geometry = checkpoint.preprocessing.geometry
        check_strategy("naflex", self._geometry)
        self._runner = Runner(checkpoint, device=default_device(), dtype="float32")

    def __call__(self, pictures: Sequence[Image.Image], max_tokens: int) -> NDArray[np.float32]:
        """Returns float32 `[B, D]` of length 1. pictures: mode RGB.

        Raises `BudgetError` for a budget that one of the pictures cannot meet.
        """
        vectors: list[NDArray[np.float32]] = []
        waiting: list[tuple[ImagePlan, NDArray[np.uint8]]] = []
        for picture in pictures:
            plan, rows = self._rows(picture, max_tokens)
            if sum(len(other) for _, other in waiting) + len(rows) > _MAX_BATCH_TOKENS:
                vectors.append(self._run(waiting))
                waiting = []
            waiting.append((plan, rows))
        vectors.append(self._run(waiting))
        return unit_rows(np.concatenate(vectors))

    def _rows(self, picture: Image.Image, max_tokens: int) -> tuple[ImagePlan, NDArray[np.uint8]]:
        file = BytesIO()
        picture.save(file, "PNG", compress_level=1)
        geometry = self._geometry
        plan = plan_image(
            (picture.height, picture.width),
            geometry=geometry,
            budget=Budget.of_tokens(max_tokens, geometry.patch_size),
            strategy="naflex",
        )
        max_decode_pixels = picture.width * picture.height
        return decode_patches(file.getvalue(), plan, geometry=geometry, max_decode_pixels=max_decode_pixels)

    def _run(self, images: Sequence[tuple[ImagePlan, NDArray[np.uint8]]]) -> NDArray[np.float32]:
        """Returns float32 `[B, D]` of any length, as the model returns it."""
        grids = [segment.grid for plan, _ in images for segment in plan.segments]
        return self._runner.run(pack([rows for _, rows in images], grids)).pooled
