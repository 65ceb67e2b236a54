"""From the bytes of a picture to rows for a pack, under one budget and one strategy."""

import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from model.errors import ModelError
from model.images.decode import DecodeMode
from model.images.reader import ImageReader
from model.sizing.budget import Budget
from model.sizing.geometry import Geometry, Strategy
from model.sizing.plan import ImagePlan, plan_image
from service.jobs.rows import Decoded, Failed
from service.limits import Limits, ModelFacts

# Makes a small picture of what the model sees, from a picture's name, plan and rows; empty for none.
Thumb = Callable[[str, ImagePlan, NDArray[np.uint8]], bytes]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that decides a vector besides the picture's bytes. Plain values, which may go to another process.

    fingerprint: of the model's vectors in this decode mode. normalize: scale vectors to length 1.
    """

    geometry: Geometry
    budget: Budget
    strategy: Strategy
    decode: DecodeMode
    fingerprint: str
    normalize: bool = True

    @classmethod
    def of(
        cls,
        model: ModelFacts,
        limits: Limits,
        *,
        decode: DecodeMode = "exact",
        strategy: Strategy | None = None,
        max_tokens: int | None = None,
        max_pixels: int | None = None,
        min_pixels: int | None = None,
        normalize: bool = True,
    ) -> Self:
        """strategy: None for the model's own. Raises `BudgetError`."""
        chosen = strategy or model.geometry.default_strategy
        budget = limits.budget(
            model.geometry, chosen, max_tokens=max_tokens, max_pixels=max_pixels, min_pixels=min_pixels
        )
        return cls(model.geometry, budget, chosen, decode, model.fingerprint_of(decode), normalize)

    @property
    def meaning(self) -> str:
        """JSON that is the same for two recipes only if they make the same vector of the same bytes."""
        # The rest of the geometry is part of the fingerprint.
        own_least = self.geometry.native_min_pixels if self.strategy == "native" else None
        parts = {
            "fingerprint": self.fingerprint,
            "strategy": self.strategy,
            "budget": [self.budget.token_cap, self.budget.max_area, self.budget.min_pixels or own_least],
            "normalize": self.normalize,
        }
        return json.dumps(parts)

    @property
    def row_bytes(self) -> int:
        """Bytes of one token's patch."""
        return 3 * self.geometry.patch_size**2

    @property
    def most_row_bytes(self) -> int:
        """The most bytes that the rows of one picture may take."""
        return self.budget.token_cap * self.row_bytes


class PictureDecoder:
    """Decodes pictures by one recipe. Many threads may use it at once."""

    def __init__(self, recipe: Recipe, images: ImageReader, *, thumb: Thumb | None = None) -> None:
        self.recipe, self._images, self._thumb = recipe, images, thumb

    def decode(self, path: str, data: bytes, *, sha256: str | None = None) -> Decoded | Failed:
        """A picture that cannot be decoded is `Failed`, whatever is wrong with it. sha256: of `data`, if known."""
        recipe, sha256 = self.recipe, sha256 or digest(data)
        try:
            header = self._images.read_header(data)
            plan = plan_image(header.size, geometry=recipe.geometry, budget=recipe.budget, strategy=recipe.strategy)
            plan, rows = self._images.decode_patches(data, plan, geometry=recipe.geometry, decode=recipe.decode)
            thumb = self._thumb(path, plan, rows) if self._thumb else b""
        except OSError as error:
            return Failed(path, error.strerror or str(error), sha256)
        except ModelError as error:
            return Failed(path, str(error), sha256)
        except Exception:
            # One picture must not end a job of a million.
            _log.exception("the decoder failed on %r", path)
            return Failed(path, "the decoder failed on this file", sha256)
        return Decoded(path, sha256, plan, rows, header.repaired, thumb)


def digest(data: bytes) -> str:
    """SHA-256, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()
