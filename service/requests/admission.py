"""What is let in: tokens and bytes promised to requests, and given back however a request ends.

Tried, never waited for: what does not fit now is refused at once, with the time after which it would. One instance a
process, used from its event loop alone. How fast the device works is asked of the client; how fast bytes leave is
measured here.
"""

import math
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from service.engine.client import EngineClient
from service.errors import Invalid, Overloaded
from service.limits import Limits
from service.metrics import Metrics


class Admission:
    """Two accounts: of tokens queued, and of the bytes of bodies and answers held. What would go over is refused."""

    def __init__(
        self,
        limits: Limits,
        *,
        max_inflight_bytes: int,
        upload_timeout_s: float,
        client: EngineClient,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_queue_tokens, self._max_inflight_bytes = limits.max_queue_tokens, max_inflight_bytes
        self._usual_tokens, self._max_batch_tokens = limits.default_max_tokens, limits.max_batch_tokens
        self._upload_timeout_s = upload_timeout_s
        self._client, self._metrics = client, metrics
        self._outflow = _Outflow(clock)
        self.tokens = 0
        self.bytes = 0

    def retry_after_s(self, tokens: int) -> int:
        """Seconds until `tokens` would fit if no new work arrived: the backlog over the measured rate, at least 1.

        Room comes a pack at a time, so the backlog is counted in whole packs, but never as more than there is.
        """
        rate = self._client.tokens_per_s
        packs = math.ceil((self.tokens + tokens - self._max_queue_tokens) / self._max_batch_tokens)
        return max(1, math.ceil(min(packs * self._max_batch_tokens, self.tokens) / rate)) if rate else 1

    def wait_s(self, tokens: int) -> float:
        """How long `tokens` more would be under way at the measured rate; 0 where it is not known or nothing waits.

        The pack that they join goes on filling until it runs: by as much again as waits, and to a full pack at most. An
        empty queue takes anything: a rate that was once measured too low would otherwise never be measured again.
        """
        rate = self._client.tokens_per_s
        if not rate or not self.tokens:
            return 0.0
        return (self.tokens + tokens + min(self.tokens, self._max_batch_tokens)) / rate

    def retry_after_bytes_s(self, size: int) -> int:
        """The same for `size` bytes, and no more than an upload may take: after that each has come or been given up."""
        rate = self._outflow.bytes_per_s()
        excess = self.bytes + size - self._max_inflight_bytes
        seconds = min(excess / rate, self._upload_timeout_s) if rate else 1
        return max(1, math.ceil(seconds))

    def check_queue(self, expected_tokens: int | None) -> None:
        """Raises `Overloaded` where so many tokens more would not fit; where nobody knows how many (None), not one.

        Into an empty queue anything is let: what it really takes may be less.
        """
        if self.tokens and self.tokens + (expected_tokens or 1) > self._max_queue_tokens:
            retry_after_s = self.retry_after_s(expected_tokens or self._usual_tokens)
            raise self._refusal("queue_full", self._queue_message(), retry_after_s)

    def take_tokens(self, tokens: int, *, within_s: float = math.inf) -> None:
        """Raises `Invalid` for what could never fit, `Overloaded` for what does not fit now, or would be answered only
        after the `within_s` that are left of its deadline. One that has passed is left to who decodes."""
        if tokens > self._max_queue_tokens:
            raise Invalid(
                f"the request takes {tokens} tokens; at most {self._max_queue_tokens} can be queued (max_queue_tokens)",
                param="max_request_tokens",
                reason="never_fits",
            )
        if self.tokens + tokens > self._max_queue_tokens:
            raise self._refusal("queue_full", self._queue_message(), self.retry_after_s(tokens))
        if 0 < within_s < (wait_s := self.wait_s(tokens)):
            message = (
                f"{self.tokens} tokens are queued; an answer would take {wait_s:.1f} s, and its deadline is in "
                f"{within_s:.1f} s (timeout_ms, default_timeout_ms)"
            )
            raise self._refusal("would_be_late", message, math.ceil(wait_s - within_s))
        self._set_tokens(self.tokens + tokens)

    def check_bytes(self, size: int) -> None:
        """Raises `Overloaded` where `size` bytes more do not fit."""
        if self.bytes + size > self._max_inflight_bytes:
            message = (
                f"{self.bytes} bytes of bodies are held, of at most {self._max_inflight_bytes} (max_inflight_bytes)"
            )
            raise self._refusal("bytes_in_flight", message, self.retry_after_bytes_s(size))

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
        self._outflow.note(self.bytes, size)
        self.bytes = size
        self._metrics.inflight_bytes.set(size)


class _Outflow:
    """Bytes given back a second while any were held, in the last half a minute or so."""

    _SPAN_S = 20.0

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._since_s = clock()
        self._given_back = 0.0

    def note(self, before: int, after: int) -> None:
        """What is held has changed."""
        if not before:
            self._since_s, self._given_back = self._clock(), 0.0
        self._given_back += max(0, before - after)

    def bytes_per_s(self) -> float:
        """0 where nothing has been given back yet."""
        now_s = self._clock()
        if now_s - self._since_s > self._SPAN_S:
            # What is older counts for half.
            self._given_back *= self._SPAN_S / 2 / (now_s - self._since_s)
            self._since_s = now_s - self._SPAN_S / 2
        return self._given_back / (now_s - self._since_s) if now_s > self._since_s else 0.0


class Hold:
    """What one request holds: its images, and the bytes and tokens charged for it. Its end gives everything back.

    images: as they were sent; each is empty once it is decoded. admitted: whether tokens were taken for them.
    """

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._tokens = self._bytes = 0
        self.images: list[bytes] = []
        self.admitted = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._admission.give_back(tokens=self._tokens, size=self._bytes)
        self._tokens = self._bytes = 0
        self.images = []

    def reserve_bytes(self, size: int) -> None:
        """Makes the bytes charged exactly `size`. Raises `Overloaded` if they do not fit, and then changes nothing."""
        if size > self._bytes:
            self._admission.take_bytes(size - self._bytes)
        else:
            self._admission.give_back(size=self._bytes - size)
        self._bytes = size

    def keep_images(self, images: list[bytes]) -> None:
        """From now on the request holds these and nothing else of its body. Raises `Overloaded`."""
        self.reserve_bytes(sum(map(len, images)))
        self.images = images

    def drop_image(self, index: int) -> None:
        """The image is decoded: its bytes are let go and given back."""
        self.reserve_bytes(self._bytes - len(self.images[index]))
        self.images[index] = b""

    def take_tokens(self, tokens: int, *, within_s: float = math.inf) -> None:
        """Raises `Invalid` or `Overloaded`, as `Admission.take_tokens`."""
        self._admission.take_tokens(tokens, within_s=within_s)
        self._tokens += tokens
        self.admitted = True

    def hand_over(self, size: int) -> None:
        """The answer is written: its queue tokens are free, and its `size` bytes are charged until they are sent."""
        self._admission.give_back(tokens=self._tokens)
        self._tokens = 0
        self._admission.charge_bytes(size)
        self._bytes += size
