"""What is known of one request while it is under way: its name, its times, what it holds, and what it came to."""

from dataclasses import dataclass, field

from starlette.types import Scope

from service.requests.admission import Hold

_KEY = "packlight"


@dataclass(slots=True, eq=False)
class RequestContext:
    """Made when a request's first byte arrives, and read when its line is logged.

    started_s: by `time.monotonic`. refusal: the reason of an error that it is answered with. stages_s: seconds in each
    stage, for `Server-Timing` and the log.
    """

    request_id: str
    started_s: float
    hold: Hold
    route: str
    images: int = 0
    tokens: int = 0
    error_code: str | None = None
    refusal: str | None = None
    stages_s: dict[str, float] = field(default_factory=dict)

    def put(self, scope: Scope) -> None:
        scope.setdefault("state", {})[_KEY] = self

    @classmethod
    def of(cls, scope: Scope) -> "RequestContext":
        context: RequestContext = scope["state"][_KEY]
        return context
