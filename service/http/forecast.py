"""How many tokens a request will take, from its head alone, before its body has come.

Refusing after the body and the image's header are read costs about twice as much, and a full server refuses most
requests.
"""

from functools import lru_cache

from starlette.datastructures import Headers
from starlette.types import Scope

from model.errors import BudgetError
from model.sizing.geometry import Geometry
from service.errors import ServiceError
from service.limits import Limits
from service.requests.parameters import merged, read_parameters, read_query


class Forecast:
    """For raw images, whose parameters are all in the query."""

    def __init__(self, geometry: Geometry, limits: Limits) -> None:
        self._geometry, self._limits = geometry, limits
        self._of_query = lru_cache(maxsize=256)(self._forecast)

    def tokens(self, scope: Scope, headers: Headers) -> int | None:
        """None if the head does not tell."""
        if not headers.get("content-type", "").startswith("image/"):
            return None
        return self._of_query(scope["query_string"])

    def _forecast(self, query: bytes) -> int | None:
        """None for a wrong query too: the route says what is wrong."""
        try:
            parameters = read_parameters(merged(read_query(query)))
            strategy = parameters.strategy or self._geometry.default_strategy
            fixed_tokens = self._geometry.fixed_tokens(strategy)
            if fixed_tokens is None and not self._geometry.fills_cap(strategy):
                return None
            budget = self._limits.budget(
                self._geometry, strategy, max_tokens=parameters.max_tokens, max_pixels=parameters.max_pixels
            )
        except (ServiceError, BudgetError):
            return None
        return fixed_tokens or max(1, min(budget.token_cap, parameters.max_request_tokens or budget.token_cap))
