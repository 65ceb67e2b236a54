"""What is let in: tokens and bytes promised to requests, and given back however a request ends.

Tried, never waited for: what does not fit now is refused at once. One instance a process, used from its event loop
alone. Knows no clock; how fast the device works is asked of the client.
"""

import math
from types import TracebackType
from typing import Self

from service.client import EngineClient
from service.errors import Invalid, Overloaded
from service.limits import Limits
from service.metrics import Metrics


class Admission:
    """Two accounts: of tokens queued, and of the bytes of bodies and answers held. What would go over is refused."""

    def __init__(self, limits: Limits, *, max_inflight_bytes: int, client: EngineClient, metrics: Metrics) -> None:
        self._max_queue_tokens, self._max_inflight_bytes = limits.max_queue_tokens, max_inflight_bytes
        self._usual_tokens = limits.default_max_tokens
        self._client, self._metrics = client, metrics
        self.tokens = 0
        self.bytes = 0

    def retry_after_s(self, tokens: int) -> int:
        """Seconds until `tokens` would fit if no new work arrived: the backlog over the measured rate, at least 1."""
        rate = self._client.tokens_per_s
        backlog = self.tokens + tokens - self._max_queue_tokens
        return max(1, math.ceil(backlog / rate)) if rate else 1

    def check_queue(self) -> None:
        """Raises `Overloaded` where not one token more would fit."""
        if self.tokens >= self._max_queue_tokens:
            raise self._refusal("queue_full", self._queue_message(), self.retry_after_s(self._usual_tokens))

    def take_tokens(self, tokens: int) -> None:
        """Raises `Invalid` for what could never fit, `Overloaded` for what does not fit now."""
        if tokens > self._max_queue_tokens:
            raise Invalid(
                f"the request takes {tokens} tokens; at most {self._max_queue_tokens} can be queued (max_queue_tokens)",
                param="max_request_tokens",
                reason="never_fits",
            )
        if self.tokens + tokens > self._max_queue_tokens:
            raise self._refusal("queue_full", self._queue_message(), self.retry_after_s(tokens))
        self._set_tokens(self.tokens + tokens)

    def check_bytes(self, size: int) -> None:
        """Raises `Overloaded` where `size` bytes more do not fit."""
        if self.bytes + size > self._max_inflight_bytes:
            message = (
                f"{self.bytes} bytes of bodies are held, of at most {self._max_inflight_bytes} (max_inflight_bytes)"
            )
            raise self._refusal("bytes_in_flight", message, 1)

    def take_bytes(self, size: int) -> None:
        """Raises `Overloaded` where `size` bytes more do not fit."""
        self.check_bytes(size)
        self._set_bytes(self.bytes + size)

    def charge_bytes(self, size: int) -> None:
        """Counts bytes that are held already, whether they fit or not: over the limit, no body is let in any more."""
        self._set_bytes(self.bytes + size)

    def give_back(self, *, tokens: int = 0, size: int = 0) -> None:
        self._set_tokens(self.tokens - tokens)
        self._set_bytes(self.bytes - size)

    def _queue_message(self) -> str:
        return f"{self.tokens} tokens are queued, of at most {self._max_queue_tokens} (max_queue_tokens)"

    def _refusal(self, reason: str, message: str, retry_after_s: int) -> Overloaded:
        return Overloaded(f"overloaded: {message}", retry_after_s=retry_after_s, reason=reason)

    def _set_tokens(self, tokens: int) -> None:
        assert 0 <= tokens <= self._max_queue_tokens, f"{tokens} tokens admitted of {self._max_queue_tokens}"
        self.tokens = tokens
        self._metrics.queue_tokens.set(tokens)

    def _set_bytes(self, size: int) -> None:
        assert size >= 0, f"{size} bytes in flight"
        self.bytes = size
        self._metrics.inflight_bytes.set(size)


class Hold:
    """What one request has taken. Leaving its `with` block gives everything back.

    admitted: whether its images were let in, which is when its tokens are taken.
    """

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self.admitted = False
        self._tokens = 0
        self._bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._admission.give_back(tokens=self._tokens, size=self._bytes)
        self._tokens = self._bytes = 0

    def take_tokens(self, tokens: int) -> None:
        self._admission.take_tokens(tokens)
        self._tokens += tokens
        self.admitted = True

    def take_bytes(self, size: int) -> None:
        self._admission.take_bytes(size)
        self._bytes += size

    def hold_bytes(self, size: int) -> None:
        """Takes or gives back what brings the bytes held to `size`. Raises `Overloaded`, and then changes nothing."""
        if size > self._bytes:
            self.take_bytes(size - self._bytes)
        else:
            self.release_bytes(self._bytes - size)

    def release_bytes(self, size: int) -> None:
        """Gives bytes back early, once they are not held any more."""
        size = min(size, self._bytes)
        self._admission.give_back(size=size)
        self._bytes -= size

    def hand_over(self, size: int) -> None:
        """The answer is written: the room in the queue is free, and `size` bytes of it are held until they are sent."""
        self._admission.give_back(tokens=self._tokens)
        self._tokens = 0
        self._admission.charge_bytes(size)
        self._bytes += size
