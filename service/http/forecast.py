"""How many tokens a request will take, as far as its head tells, before its body has come.

A refusal that waits for the body, and for a thread that reads its header, costs about twice as much as one that does
not, and a full server refuses more than it takes.
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
    """Of a raw image, all of whose parameters are in the query."""

    def __init__(self, geometry: Geometry, limits: Limits) -> None:
        self._geometry, self._limits = geometry, limits
        self._of_query = lru_cache(maxsize=256)(self._of_query_anew)

    def tokens(self, scope: Scope, headers: Headers) -> int | None:
        """None where nobody can tell yet."""
        if not headers.get("content-type", "").startswith("image/"):
            return None
        return self._of_query(scope["query_string"])

    def _of_query_anew(self, query: bytes) -> int | None:
        """What is wrong with a query is said by who reads the request."""
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
