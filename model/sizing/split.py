"""The token budget of a request, split among its images: pure integers. Knows nothing of who is asking."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from model.errors import BudgetError
from model.sizing.budget import Budget
from model.sizing.geometry import Geometry, Strategy
from model.sizing.plan import Size, canvas_tokens, resized_size


def split_request_tokens(
    sizes: Sequence[Size],
    budgets: Sequence[Budget],
    *,
    geometry: Geometry,
    strategy: Strategy,
    max_request_tokens: int,
) -> list[Budget]:
    """Lowers the caps of a request's images together, the largest first, until their tokens fit `max_request_tokens`.

    The result is `min(cap, level)` for the highest level at which the tokens that the images would really take add up
    to no more than the limit: caps sink like a water level, and small ones are not touched before the large ones reach
    them. An image that its own budget does not allow counts for nothing, and keeps that error for when it is planned.
    Raises `BudgetError` for less than one token an image, and if the images cannot be lowered so far.
    """
    if max_request_tokens < len(sizes):
        raise BudgetError(
            f"max_request_tokens is {max_request_tokens}; {len(sizes)} images take at least 1 token each",
            param="max_request_tokens",
        )
    model = _Model(geometry, strategy)
    counts = Counter(zip(sizes, budgets, strict=True))
    images = {image: _Image(*image, count, model) for image, count in counts.items()}
    allowed = [image for image in images.values() if image.tokens(image.budget.token_cap)]
    level = _level(allowed, max_request_tokens)
    if any(not image.tokens(level) for image in allowed):
        raise BudgetError(
            f"max_request_tokens is {max_request_tokens}; strategy={strategy} cannot lower these images to that",
            param="max_request_tokens",
        )
    for image in allowed:
        image.budget = image.lowered(level)
    return [images[image].budget for image in zip(sizes, budgets, strict=True)]


@dataclass(frozen=True, slots=True)
class _Model:
    """A model and one of its strategies."""

    geometry: Geometry
    strategy: Strategy

    @property
    def least_tokens(self) -> int:
        """Tokens that every image takes at least."""
        if self.strategy == "anyres":
            return min(self.geometry.layout_tokens)
        return self.geometry.fixed_tokens(self.strategy) or 1

    def tokens(self, size: Size, budget: Budget) -> int:
        """Tokens of an image; 0 if it cannot meet the budget."""
        try:
            resized = resized_size(size, geometry=self.geometry, budget=budget, strategy=self.strategy)
        except BudgetError:
            return 0
        return canvas_tokens(resized, geometry=self.geometry, strategy=self.strategy)


class _Image:
    """Images of one size and one budget, and the tokens that each takes at the levels that were tried."""

    def __init__(self, size: Size, budget: Budget, count: int, model: _Model) -> None:
        self.budget, self.count = budget, count
        self._size, self._model = size, model
        # Token counts, each with the largest cap that is known to give it.
        self._known = [(0, model.least_tokens - 1)]

    def lowered(self, level: int) -> Budget:
        return self.budget.lowered(level, self._model.geometry.patch_size, bound="max_request_tokens")

    def tokens(self, level: int) -> int:
        """Tokens under a cap lowered to `level`; 0 if the image cannot meet that."""
        cap = min(level, self.budget.token_cap)
        for tokens, known_cap in self._known:
            if tokens <= cap <= known_cap:
                return tokens
        tokens = self._model.tokens(self._size, self.lowered(level))
        # Every other strategy takes the largest token count of a fixed series that fits the cap, so this one holds for
        # the caps between as well. A model with budgets of its own may leave a part of each empty.
        if self._model.strategy != "native" and not self._model.geometry.budgets:
            self._known.append((tokens, cap))
        return tokens


def _level(images: Sequence[_Image], max_tokens: int) -> int:
    """The highest level at which the images take no more than `max_tokens`."""

    def fits(level: int) -> bool:
        # The search may pass a level that is too low for some image, but must not end there.
        return sum(image.count * image.tokens(level) for image in images) <= max_tokens

    def fits_if_filled(level: int) -> bool:
        return sum(image.count * min(image.budget.token_cap, level) for image in images) <= max_tokens

    highest = max((image.budget.token_cap for image in images), default=1)
    # No image takes more than its cap, and most take nearly that: few levels above this one need to be tried.
    low = _highest(fits_if_filled, 1, highest)
    step = 1 + low // 16
    while low + step < highest and fits(low + step):
        low, step = low + step, 2 * step
    return _highest(fits, low, min(low + step, highest))


def _highest(fits: Callable[[int], bool], low: int, high: int) -> int:
    """The highest of `low` to `high` that fits. `low` is taken to fit, and so is everything below what fits."""
    while low < high:
        middle = (low + high + 1) // 2
        if fits(middle):
            low = middle
        else:
            high = middle - 1
    return low
