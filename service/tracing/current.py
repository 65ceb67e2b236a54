"""The trace of the request that runs now, in its task and in those that it starts. Loads nothing of OpenTelemetry."""

from collections.abc import Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING

from service import logs

if TYPE_CHECKING:
    from service.tracing.request import RequestTrace

# None without one, and for a request that is not sampled.
recorded: ContextVar["RequestTrace | None"] = ContextVar("recorded", default=None)
# When the decoding of the image that is submitted next in this task began and ended, by `time.monotonic`.
decoded: ContextVar[tuple[float, float] | None] = ContextVar("decoded", default=None)
# The headers of the W3C trace context that a request to another host brings along.
outgoing: ContextVar[Sequence[tuple[str, str]]] = ContextVar("outgoing", default=())


def forget() -> None:
    """A request begins. The protocol may have started its task from that of the request before it on a connection."""
    recorded.set(None)
    decoded.set(None)
    outgoing.set(())
    logs.trace_id.set("")
