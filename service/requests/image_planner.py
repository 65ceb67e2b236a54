"""The plans of a request's images, from their sizes and from the budgets of the request, the image and the server."""

from collections.abc import Mapping, Sequence
from functools import lru_cache, partial

from model.errors import BudgetError
from model.sizing.budget import Budget
from model.sizing.geometry import Geometry, Strategy
from model.sizing.plan import ImagePlan, plan_image
from model.sizing.split import split_request_tokens
from service.errors import ServiceError, from_model_error
from service.limits import Limits
from service.requests.parameters import EmbedParameters
from service.requests.request import ImageBounds

_NO_BOUNDS = ImageBounds()
_MOST_SETTLED = 1024


class ImagePlanner:
    """Pure: knows the model's geometry and the server's limits."""

    def __init__(self, geometry: Geometry, limits: Limits) -> None:
        self._geometry = geometry
        # Most requests ask for the same.
        self._settled = lru_cache(maxsize=_MOST_SETTLED)(partial(limits.budget, geometry))

    def plan(
        self, sizes: Mapping[int, tuple[int, int]], parameters: EmbedParameters, bounds: Sequence[ImageBounds | None]
    ) -> dict[int, ImagePlan | ServiceError]:
        """For each image its plan, or why it has none, by index.

        sizes: (height, width) of the images that were read, by index. bounds: of every image, None for those of
        `parameters`. Raises `Invalid` for a budget that no image could meet.
        """
        strategy = parameters.strategy or self._geometry.default_strategy
        own = {index: self._budget(strategy, parameters, bounds[index], index) for index in sizes if bounds[index]}
        usual = self._budget(strategy, parameters)
        budgets = self._split(sizes, [own.get(index, usual) for index in sizes], strategy, parameters)
        plans: dict[int, ImagePlan | ServiceError] = {}
        for (index, size), budget in zip(sizes.items(), budgets, strict=True):
            try:
                plans[index] = plan_image(size, geometry=self._geometry, budget=budget, strategy=strategy)
            except BudgetError as error:
                plans[index] = from_model_error(error, index=index)
        return plans

    def bounds_of(self, parameters: EmbedParameters, own: ImageBounds | None) -> tuple[Strategy, Budget]:
        """The strategy and the budget of one image, unless its request bounds all of them together. Raises `Invalid`
        for a budget that no image could meet."""
        strategy = parameters.strategy or self._geometry.default_strategy
        return strategy, self._budget(strategy, parameters, own)

    def _budget(
        self, strategy: Strategy, parameters: EmbedParameters, own: ImageBounds | None = None, index: int | None = None
    ) -> Budget:
        """The budget of one image: each bound is its own, or that of the request. Raises `Invalid`."""
        own = own or _NO_BOUNDS
        try:
            return self._settled(
                strategy,
                max_tokens=parameters.max_tokens if own.max_tokens is None else own.max_tokens,
                max_pixels=parameters.max_pixels if own.max_pixels is None else own.max_pixels,
                min_pixels=parameters.min_pixels if own.min_pixels is None else own.min_pixels,
            )
        except BudgetError as error:
            raise from_model_error(error, index=index) from None

    def _split(
        self,
        sizes: Mapping[int, tuple[int, int]],
        budgets: list[Budget],
        strategy: Strategy,
        parameters: EmbedParameters,
    ) -> list[Budget]:
        """Lowers the largest budgets until all images are within `max_request_tokens`. Raises `Invalid`."""
        if parameters.max_request_tokens is None:
            return budgets
        try:
            return split_request_tokens(
                list(sizes.values()),
                budgets,
                geometry=self._geometry,
                strategy=strategy,
                max_request_tokens=parameters.max_request_tokens,
            )
        except BudgetError as error:
            raise from_model_error(error) from None
