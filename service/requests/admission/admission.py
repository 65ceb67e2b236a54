"""Which requests are admitted, by the tokens and the bytes that all of them hold.

Nothing waits here. What does not fit is refused at once, with the time after which it would fit. One instance serves a
process, on its event loop alone. It asks the client how fast the device works.
"""

import math
import time
from collections.abc import Callable

from service.engine.client import EngineClient
from service.errors import Invalid, Overloaded
from service.limits import Limits
from service.metrics import Metrics
from service.priority import Backlog
from service.requests.admission.inflight import InflightBytes

# What bounds the tokens of a class, by whether it is bulk.
_SETTINGS = ("max_queue_tokens", "max_queue_tokens, interactive_queue_share")


class Admission:
    """Bounds the tokens that are queued, and the bytes of bodies and answers that are held."""

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
        self._max_queue_tokens = limits.max_queue_tokens
        self._usual_tokens, self._max_batch_tokens = limits.default_max_tokens, limits.max_batch_tokens
        self._bulk_share = limits.bulk_share
        self._backlog = Backlog(
            limits.max_queue_tokens, interactive_share=limits.interactive_queue_share, bulk_share=limits.bulk_share
        )
        self._client, self._metrics, self._clock = client, metrics, clock
        self._kept_bytes = int(limits.interactive_queue_share * max_inflight_bytes)
        self._bytes = InflightBytes(
            max_inflight_bytes, upload_timeout_s=upload_timeout_s, on_change=metrics.inflight_bytes.set, clock=clock
        )

    @property
    def tokens(self) -> int:
        """Tokens of both classes."""
        return self._backlog.tokens

    def retry_after_s(self, tokens: int, *, bulk: bool = False) -> int:
        """Seconds until `tokens` would fit if no new work arrived: the backlog over the measured rate, at least 1.

        The backlog is counted in whole packs, since a pack frees its tokens at once, and is at most what is queued. A
        bulk request waits until all that is queued leaves it room, and until its own class does.
        """
        rate = self._client.tokens_per_s
        own, most = self._backlog.held(bulk=bulk), self._backlog.most(self._clock(), bulk=bulk)
        freed: float = self._freed(own + tokens - most, self.tokens)
        if bulk and (beyond := own + tokens - self._backlog.ever(bulk=True)) > 0:
            freed = max(freed, self._with_interactive(self._freed(beyond, own)))
        return max(1, math.ceil(freed / rate)) if rate else 1

    def wait_s(self, tokens: int, *, bulk: bool = False) -> float:
        """How long `tokens` more would take at the measured rate. 0 for none, an unknown rate or an empty queue.

        The pack that they join fills further until it runs: by as many tokens as are queued, and at most to a full
        pack. An empty queue takes anything; otherwise a rate once measured too low would never be measured again.
        An interactive request waits for its own class, for what bulk has of those packs, and for a pack of bulk that is
        under way.
        """
        rate = self._client.tokens_per_s
        if not (tokens and rate and self.tokens):
            return 0.0
        whole, own = self._max_batch_tokens, self._backlog.held(bulk=bulk)
        if bulk:
            return (self._with_interactive(own + tokens) + min(self.tokens, whole)) / rate
        ahead = own + tokens + min(own, whole)
        beside = whole + ahead * self._bulk_share / (1 - self._bulk_share)
        return (ahead + min(self._backlog.held(bulk=True), beside)) / rate

    @property
    def bytes(self) -> int:
        return self._bytes.held

    def check_queue(self, expected_tokens: int | None, *, bulk: bool = False) -> None:
        """Raises `Overloaded` if so many tokens more do not fit; None, for an unknown number, counts as one.

        An empty queue admits anything, since an image may take fewer tokens than expected.
        """
        if bulk:
            self._backlog.asked_for_bulk(self._clock())
        if self.tokens and not self._fits(expected_tokens or 1, bulk=bulk):
            retry_after_s = self.retry_after_s(expected_tokens or self._usual_tokens, bulk=bulk)
            raise self._refusal("queue_full", self._queue_message(bulk=bulk), retry_after_s)

    def take_tokens(self, tokens: int, *, within_s: float = math.inf, bulk: bool = False) -> None:
        """Raises `Invalid` for what could never fit, and `Overloaded` for what does not fit now or would take longer
        than `within_s`, the rest of its deadline. A deadline that has passed is left to the decoder. None always fit:
        a class may hold more than it could take by now."""
        if tokens > (ever := self._backlog.ever(bulk=bulk)):
            raise Invalid(
                f"the request takes {tokens} tokens; at most {ever} can be queued ({_SETTINGS[bulk]})",
                param="max_request_tokens",
                reason="never_fits",
            )
        if bulk:
            self._backlog.asked_for_bulk(self._clock())
        if tokens and not self._fits(tokens, bulk=bulk):
            raise self._refusal("queue_full", self._queue_message(bulk=bulk), self.retry_after_s(tokens, bulk=bulk))
        if 0 < within_s < (wait_s := self.wait_s(tokens, bulk=bulk)):
            message = (
                f"{self.tokens} tokens are queued; an answer would take {wait_s:.1f} s, and the deadline is in "
                f"{within_s:.1f} s (timeout_ms, default_timeout_ms)"
            )
            raise self._refusal("would_be_late", message, math.ceil(wait_s - within_s))
        self._change_tokens(tokens, bulk=bulk)

    def check_bytes(self, size: int, *, bulk: bool = False) -> None:
        """Raises `Overloaded` if `size` bytes more do not fit. Bulk leaves a share to others."""
        self._bytes.check(size, left=self._kept_bytes if bulk else 0)

    def take_bytes(self, size: int, *, bulk: bool = False) -> None:
        """Raises `Overloaded` as `check_bytes`."""
        self._bytes.take(size, left=self._kept_bytes if bulk else 0)

    def charge_bytes(self, size: int) -> None:
        """Charges bytes that are held already, even over the limit, which then admits no further body."""
        self._bytes.charge(size)

    def give_back(self, *, tokens: int = 0, size: int = 0, bulk: bool = False) -> None:
        """bulk: the class of the tokens."""
        if tokens:
            self._change_tokens(-tokens, bulk=bulk)
        if size:
            self._bytes.give_back(size)

    def _freed(self, tokens: int, queued: int) -> int:
        """What packs give back that free so many tokens, at most all that are queued."""
        packs = math.ceil(tokens / self._max_batch_tokens)
        return min(packs * self._max_batch_tokens, queued)

    def _with_interactive(self, tokens: float) -> float:
        """What the device runs until it has run so many of bulk: all interactive ones before them, or if those fill
        packs, and so may for long, what is beside the share of bulk."""
        before = self._backlog.held(bulk=False)
        return tokens + before if before < self._max_batch_tokens else tokens / self._bulk_share

    def _fits(self, tokens: int, *, bulk: bool) -> bool:
        return self._backlog.held(bulk=bulk) + tokens <= self._backlog.most(self._clock(), bulk=bulk)

    def _queue_message(self, *, bulk: bool) -> str:
        if bulk:
            held, most = self._backlog.held(bulk=True), self._backlog.most(self._clock(), bulk=True)
            return f"{held} tokens of bulk requests are queued, of at most {most} now ({_SETTINGS[True]})"
        return f"{self.tokens} tokens are queued, of at most {self._max_queue_tokens} ({_SETTINGS[False]})"

    def _refusal(self, reason: str, message: str, retry_after_s: int) -> Overloaded:
        return Overloaded(f"overloaded: {message}", retry_after_s=retry_after_s, reason=reason)

    def _change_tokens(self, tokens: int, *, bulk: bool) -> None:
        self._backlog.change(tokens, bulk=bulk)
        self._metrics.queue_tokens.set(self.tokens)
        self._metrics.priority_queue_tokens[bulk].set(self._backlog.held(bulk=bulk))
