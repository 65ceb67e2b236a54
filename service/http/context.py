"""What the server knows about one request: its id, its times, what it holds, and how it ended."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from starlette.types import Scope

from service.errors import ServiceError, packlight_error
from service.priority import PRIORITIES, Priority
from service.requests.admission.hold import Hold

_KEY = "packlight"


@dataclass(slots=True, eq=False)
class RequestContext:
    """Made when the head of a request is read; its line in the log is written from it.

    started_s: by `time.monotonic`. dialect: the label in metrics, empty for a route that embeds nothing. error_body:
    the JSON of an error in that dialect. refusal: the reason of the error that answers it. stages_s: seconds in each
    stage, for `Server-Timing` and the log. pack_ids: of the packs that ran its items. method: as it was sent; a route
    that answers HEAD sees GET. timed: whether its duration counts as a latency. dimensions: of each embedding, 0 until
    that is known.
    """

    request_id: str
    started_s: float
    hold: Hold
    route: str
    method: str = "GET"
    dialect: str = ""
    error_body: Callable[[ServiceError], dict[str, Any]] = packlight_error
    timed: bool = True
    images: int = 0
    texts: int = 0
    tokens: int = 0
    cached_tokens: int = 0
    dimensions: int = 0
    error_code: str | None = None
    refusal: str | None = None
    stages_s: dict[str, float] = field(default_factory=dict)
    pack_ids: list[str] = field(default_factory=list)

    def speak(self, dialect: str, error_body: Callable[[ServiceError], dict[str, Any]]) -> None:
        """The body turned out to be in this dialect."""
        self.dialect, self.error_body = dialect, error_body

    @property
    def priority(self) -> Priority:
        return PRIORITIES[self.hold.bulk]

    def put(self, scope: Scope) -> None:
        scope.setdefault("state", {})[_KEY] = self

    @classmethod
    def of(cls, scope: Scope) -> "RequestContext":
        context: RequestContext = scope["state"][_KEY]
        return context
