"""The budget of an image: the bounds of a request, a model and a server, settled into one.

Areas are in pixels after resizing. Knows nothing of any image.
"""

from dataclasses import dataclass
from typing import Self

from model.errors import BudgetError
from model.sizing.geometry import Geometry, Strategy


@dataclass(frozen=True, slots=True)
class Budget:
    """The bounds of one image.

    token_cap: the most tokens, over all segments. max_area: the most pixels, for `native`: `token_cap` patches and less
    than one more. min_pixels: the least pixels, for `native` only; None leaves it to the model. bound: the parameter or
    setting that `token_cap` comes from. capped: the caller asked for more than the server allows.
    """

    token_cap: int
    max_area: int
    min_pixels: int | None = None
    bound: str = "max_tokens"
    capped: bool = False

    @classmethod
    def of_tokens(cls, token_cap: int, patch_size: int) -> Self:
        """A budget of whole tokens."""
        return cls(token_cap, token_cap * patch_size**2)

    def lowered(self, token_cap: int, patch_size: int, *, bound: str) -> "Budget":
        """This budget with a smaller cap; itself if `token_cap` is not smaller."""
        if token_cap >= self.token_cap:
            return self
        capped = self.capped and bound == self.bound
        return Budget(token_cap, token_cap * patch_size**2, self.min_pixels, bound, capped)

    def refusal(self, message: str) -> BudgetError:
        """An error whose `param` is the parameter to raise; the message also names the setting behind the cap."""
        asked = self.bound in ("max_tokens", "max_pixels", "max_request_tokens")
        return BudgetError(f"{message} ({self.bound})", param=self.bound if asked else "max_tokens")

    def check_min_pixels(self) -> None:
        """Raises `BudgetError` if `min_pixels` is over `max_area`."""
        if self.min_pixels is not None and self.min_pixels > self.max_area:
            raise BudgetError(
                f"min_pixels is {self.min_pixels}; {self.bound} allows an area of {self.max_area}", param="min_pixels"
            )


def check_strategy(strategy: Strategy, geometry: Geometry) -> None:
    """Raises `BudgetError` if the model lacks the strategy."""
    if strategy not in geometry.strategies:
        served = ", ".join(geometry.strategies)
        raise BudgetError(f"the model does not take strategy={strategy}; it takes {served}", param="strategy")


def settle_budget(
    *,
    geometry: Geometry,
    strategy: Strategy,
    max_tokens: int | None,
    max_pixels: int | None,
    min_pixels: int | None,
    default_max_tokens: int,
    max_image_tokens: int,
) -> Budget:
    """The smallest of the bounds asked for and `max_image_tokens`.

    If neither `max_tokens` nor `max_pixels` is given, the default is `default_max_tokens` for a strategy that fills its
    cap (`Geometry.fills_cap`), the model's own largest area for `native`, and none for the others. Asking for more than
    the server allows is not an error. Raises `BudgetError` for a bound under one patch, for a `min_pixels` that has no
    meaning or no room, and for a strategy that the model lacks.
    """
    check_strategy(strategy, geometry)
    patch_pixels = geometry.patch_size**2
    if max_tokens is not None and max_tokens < 1:
        raise BudgetError(f"max_tokens is {max_tokens}; an image takes at least 1 token", param="max_tokens")
    if max_pixels is not None and max_pixels < patch_pixels:
        raise BudgetError(
            f"max_pixels is {max_pixels}; one patch of {geometry.patch_size}×{geometry.patch_size} pixels "
            f"takes {patch_pixels}",
            param="max_pixels",
        )
    if min_pixels is not None and strategy != "native":
        raise BudgetError(f"min_pixels has a meaning for strategy=native only, not {strategy}", param="min_pixels")
    if min_pixels is not None and min_pixels < 1:
        raise BudgetError(f"min_pixels is {min_pixels}; an image has at least 1", param="min_pixels")
    areas = {"max_tokens": max_tokens and max_tokens * patch_pixels, "max_pixels": max_pixels}
    asked = max_tokens is not None or max_pixels is not None
    if not asked:
        areas["default_max_tokens"] = default_max_tokens * patch_pixels if geometry.fills_cap(strategy) else None
        areas["the model's own max_pixels"] = geometry.native_max_pixels if strategy == "native" else None
    areas["max_image_tokens"] = max_image_tokens * patch_pixels
    # The first of equal bounds wins, which is the caller's own.
    bound, max_area = min(((n, area) for n, area in areas.items() if area is not None), key=lambda item: item[1])
    capped = asked and bound == "max_image_tokens"
    budget = Budget(max_area // patch_pixels, max_area, min_pixels, bound, capped)
    budget.check_min_pixels()
    return budget
