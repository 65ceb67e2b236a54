"""How many tokens a request will take, and its class, from its head alone, before its body has come.

Refusing after the body and the image's header are read costs about twice as much, and a full server refuses most
requests.
"""

from contextlib import suppress
from functools import lru_cache

from starlette.datastructures import Headers
from starlette.types import Scope

from model.errors import BudgetError
from model.sizing.geometry import Geometry
from service.errors import Invalid, ServiceError
from service.limits import Limits
from service.priority import NAMES, PRIORITIES, PRIORITY_HEADER, named
from service.requests.parameters import merged, read_parameters, read_query


class Forecast:
    """Tokens are those of raw images, whose parameters are all in the query."""

    def __init__(self, geometry: Geometry, limits: Limits) -> None:
        self._geometry, self._limits = geometry, limits
        self._of_query = lru_cache(maxsize=256)(self._forecast)

    def tokens(self, scope: Scope, headers: Headers) -> int | None:
        """None if the head does not tell."""
        if not headers.get("content-type", "").startswith("image/"):
            return None
        return self._of_query(scope["query_string"])

    def bulk(self, scope: Scope, headers: Headers) -> bool:
        """Whether the head says that the request is bulk; its body may say so too. Raises `Invalid` for a header that
        names no class. A wrong query is left to the route."""
        said = headers.getlist(PRIORITY_HEADER)
        if wrong := [each for each in said if named(each) not in PRIORITIES]:
            raise Invalid(f"{PRIORITY_HEADER} is {wrong[0][:40]!r}; it is {NAMES}", param="priority")
        if b"priority" in scope["query_string"]:
            with suppress(ServiceError):
                said += [value for name, value in read_query(scope["query_string"]) if name == "priority"]
        return any(named(each) == "bulk" for each in said)

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
