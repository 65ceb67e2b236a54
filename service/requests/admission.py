"""Which requests are admitted: tokens and bytes are charged to each, and given back however it ends.

Nothing waits here. What does not fit is refused at once, with the time after which it would fit. One instance serves a
process, on its event loop alone. It asks the client how fast the device works.
"""

import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Self

from service.engine.client import EngineClient
from service.errors import Invalid, Overloaded, ServiceError
from service.fetching.urls import Url
from service.limits import Limits
from service.metrics import Metrics
from service.priority import Backlog
from service.requests.cache.lookups import Lookup
from service.requests.documents.rows import Document
from service.requests.inflight import InflightBytes

# What bounds the tokens of a class, by whether it is bulk.
_SETTINGS = ("max_queue_tokens", "max_queue_tokens, interactive_queue_share")
# An id of a text is an object, to which a list refers.
_ID_BYTES = 28 + 8
_EMPTY_TEXT_BYTES = sys.getsizeof("")


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


class Hold:
    """What one request holds: its images and texts, and the bytes and tokens charged to it. Its end gives all back.

    images: as they were sent; each is empty once it is decoded, and until it is fetched. urls: of those to be fetched,
    by index. texts: or the ids of texts. documents: which of the images become one vector with texts of their own; if
    there are any, every image is in one of them, and there are no other texts. faults: of images that could not be read
    as they came, by index; each is empty. digests: of images, by index, where they are known. admitted: whether tokens
    were taken. bulk: the class of the request, known before tokens are taken. lookup: of a request that was let in for
    pictures that may be known. image_fields: of each image, the field that brought it, which its errors name; empty if
    all are called `image`.
    """

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._tokens = self._bytes = 0
        self.images: list[bytes] = []
        self.urls: dict[int, Url] = {}
        self.texts: list[str | list[int]] = []
        self.documents: list[Document] = []
        self.faults: dict[int, ServiceError] = {}
        self.digests: dict[int, bytes] = {}
        self.admitted = False
        self.bulk = False
        self.lookup: Lookup | None = None
        self.image_fields: Sequence[str] = ()
        self._coming_bytes: dict[int, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._admission.give_back(tokens=self._tokens, size=self._bytes, bulk=self.bulk)
        self._tokens = self._bytes = 0
        if self.lookup is not None:
            self.lookup.end()
        self.images, self.urls, self.texts, self.documents, self._coming_bytes = [], {}, [], [], {}
        self.faults = {}

    @property
    def held_bytes(self) -> int:
        """Bytes charged."""
        return self._bytes

    def reserve_bytes(self, size: int) -> None:
        """Makes the bytes charged exactly `size`. Raises `Overloaded` if they do not fit, and then changes nothing."""
        if size > self._bytes:
            # A body that has begun to come is not given up for what others bring meanwhile.
            self._admission.take_bytes(size - self._bytes, bulk=self.bulk and not self._bytes)
        elif size < self._bytes:
            self._admission.give_back(size=self._bytes - size)
        self._bytes = size

    def keep(
        self,
        images: list[bytes],
        texts: Sequence[str | list[int]] = (),
        *,
        urls: Mapping[int, Url] | None = None,
        documents: Sequence[Document] = (),
        digests: Sequence[bytes] = (),
        faults: Mapping[int, ServiceError] | None = None,
    ) -> None:
        """From now on the request holds these and nothing else of its body. Raises `Overloaded`.

        urls: of images that are empty, by index; by default those that it holds. digests: of all images, if they were
        computed while the images came; by default those that it knows of the same images. faults: by index; by default
        those that it has.
        """
        kept = dict(self.urls if urls is None else urls)
        size = sum(map(len, images)) + sum(map(_bytes_of, texts)) + sum(map(len, kept.values()))
        size += sum(_bytes_of(part) for document in documents for part in document if isinstance(part, str))
        self.reserve_bytes(size)
        if digests or images is not self.images:
            self.digests = dict(enumerate(digests))
        self.images, self.texts, self.urls, self.documents = images, list(texts), kept, list(documents)
        self.faults = dict(self.faults if faults is None else faults)

    def coming_bytes(self, index: int) -> int:
        """Bytes charged for an image that is being fetched."""
        return self._coming_bytes.get(index, 0)

    def check_coming(self, index: int, size: int) -> None:
        """Raises `Overloaded` if an image that is being fetched could not have `size` bytes now."""
        self._admission.check_bytes(size - self.coming_bytes(index))

    def reserve_coming(self, index: int, size: int) -> None:
        """Makes the bytes charged for an image that is being fetched exactly `size`. Raises `Overloaded` if they do not
        fit, and then changes nothing."""
        self.reserve_bytes(self._bytes - self.coming_bytes(index) + size)
        self._coming_bytes[index] = size

    def put_image(self, index: int, data: bytes) -> None:
        """The image is fetched, and its bytes are charged."""
        assert self.coming_bytes(index) == len(data), f"{self.coming_bytes(index)} bytes charged for {len(data)}"
        self.images[index] = data
        del self._coming_bytes[index]
        self.reserve_bytes(self._bytes - len(self.urls.pop(index)))

    def drop_image(self, index: int) -> None:
        """The image is decoded: its bytes are let go and given back."""
        self.reserve_bytes(self._bytes - len(self.images[index]))
        self.images[index] = b""

    def check_queue(self) -> None:
        """Raises `Overloaded` if the queue is full."""
        self._admission.check_queue(None, bulk=self.bulk)

    def take_tokens(self, tokens: int, *, within_s: float = math.inf) -> None:
        """Raises `Invalid` or `Overloaded`, as `Admission.take_tokens`."""
        self._admission.take_tokens(tokens, within_s=within_s, bulk=self.bulk)
        self._tokens += tokens
        self.admitted = True

    def hand_over(self, size: int) -> None:
        """The answer is written: its queue tokens are free, and its `size` bytes are charged until they are sent."""
        self._admission.give_back(tokens=self._tokens, bulk=self.bulk)
        self._tokens = 0
        self._admission.charge_bytes(size)
        self._bytes += size


def _bytes_of(text: str | list[int]) -> int:
    """The memory of a text, whose characters take one, two or four bytes each, or of its ids."""
    return sys.getsizeof(text) - _EMPTY_TEXT_BYTES if isinstance(text, str) else _ID_BYTES * len(text)
