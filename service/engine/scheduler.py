"""Which images go into the next pack: pure policy.

Counts tokens and compares times, and that is all: it knows no clock (`now_s` is an argument), no thread, no lock, no
future and no device. Times are seconds of one monotonic clock. Not safe to call from two threads at once: whoever
shares a `Scheduler` holds one lock around every call.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

# A decision looks no further once it has skipped this many images. What it costs is then the images that leave the
# queue plus a constant, however many wait. Simulated on queues of 200 images of mixed sizes, 256 in place of 32 filled
# packs 0.1% fuller.
MAX_SKIPPED = 32


@dataclass(slots=True, eq=False)
class QueuedImage:
    """What the scheduler knows of one image. The engine derives from it to carry the rows and the future.

    `tokens` is exact, `arrived_s` the instant it was queued, `deadline_s` the instant from which it is too late, None
    for never; `alone` asks for a pack of its own. Two images are the same only if they are one object.
    """

    tokens: int
    arrived_s: float
    deadline_s: float | None
    alone: bool = field(default=False, kw_only=True)
    # Packs that took a later image while this one did not fit. Only the scheduler writes it.
    passed_over: int = field(default=0, init=False)
    # Its caller has left. Set from outside, from any thread; honoured at the next decision that reaches the image.
    gone: bool = field(default=False, init=False)


ImageT = TypeVar("ImageT", bound=QueuedImage)


@dataclass(frozen=True, slots=True)
class Decision(Generic[ImageT]):
    """What one call of `Scheduler.next_pack` took out of the queue; each list in order of arrival.

    With `pack` empty and `wait_s` None the queue is empty.
    """

    pack: list[ImageT]  # to run now; empty: nothing to run
    gone: list[ImageT]  # dropped: their callers have left
    late: list[ImageT]  # dropped: their deadlines have passed, or would before their pack was done
    wait_s: float | None  # seconds for which images are held back; an `add` may end it sooner. None: none are held


class _Room:
    """The space left in a pack while it is filled. Any image fits an empty pack."""

    def __init__(self, max_tokens: int, max_images: int | None) -> None:
        self._max_tokens, self._max_images = max_tokens, max_images
        self._images = 0
        self.taken_tokens = 0

    @property
    def full(self) -> bool:
        return self.taken_tokens >= self._max_tokens or self._images == self._max_images

    def take(self, image: QueuedImage) -> bool:
        """Takes the image if it fits. An image that is `alone` takes all the space there is."""
        tokens = self._max_tokens if image.alone else image.tokens
        fits = not self._images or not (self.full or self.taken_tokens + tokens > self._max_tokens)
        if fits:
            self.taken_tokens += tokens
            self._images += 1
        return fits


class Scheduler(Generic[ImageT]):
    """A queue in order of arrival, which is the order of `add`, and the rule that takes packs from it.

    A pack is filled from the head. An image that does not fit in the room that is left is skipped, and later ones that
    do fit go ahead of it, until `max_passed_over` packs have done so: from then on nothing behind it is taken into a
    pack without it. Zero is strict order.

    Nothing waits for ever. Every image fits an empty pack, so each pack takes the head: with k images ahead of it, an
    image is in the (k + 1)th pack at the latest. Nor does being skipped cost it its place: room is offered in order of
    arrival, so no image leaves a queue in a later pack than it would in strict order.

    Where the rate of the device is known, an image whose deadline would pass while its pack ran gives way to those that
    can still be in time. Otherwise a queue whose wait is as long as the deadlines would run nothing but images that are
    answered too late, for as long as it is that long. Where none can be in time they run all the same: the rate is a
    guess, and there is nothing better to do.

    An image that is `alone` fills a pack, however small it is, and waits its turn like any that fills one.

    With `max_wait_s` above zero a pack that is not full is held back until its oldest image has waited that long. The
    hold never outlasts a deadline: if any image held would be too late after the hold, the pack goes at once.
    """

    def __init__(
        self,
        *,
        max_batch_tokens: int,
        max_batch_images: int | None = None,
        max_wait_s: float = 0.0,
        max_passed_over: int = 8,
    ) -> None:
        """max_batch_images: None for as many as fit."""
        self._max_batch_tokens, self._max_batch_images = max_batch_tokens, max_batch_images
        self._max_wait_s = max_wait_s
        self._max_passed_over = max_passed_over
        self._queue: deque[ImageT] = deque()
        self._queue_tokens = 0

    @property
    def max_batch_tokens(self) -> int:
        return self._max_batch_tokens

    def lower(self, max_batch_tokens: int) -> None:
        """From now on packs hold no more than this. Raises `ValueError` where an image that waits would fit none."""
        if any(image.tokens > max_batch_tokens for image in self._queue):
            raise ValueError(f"an image that waits would not fit a pack of {max_batch_tokens} tokens")
        self._max_batch_tokens = max_batch_tokens

    @property
    def queue_images(self) -> int:
        """Images in the queue, among them gone and late ones that no decision has reached."""
        return len(self._queue)

    def add(self, image: ImageT) -> None:
        """Queue `image` behind all others. Raises `ValueError` if it is empty or no pack could hold it."""
        if not 1 <= image.tokens <= self._max_batch_tokens:
            raise ValueError(f"an image of {image.tokens} tokens; max_batch_tokens is {self._max_batch_tokens}")
        self._queue.append(image)
        self._queue_tokens += image.tokens

    def next_pack(self, now_s: float, *, tokens_per_s: float | None = None) -> Decision[ImageT]:
        """Decide what runs now, and drop what was gone or late (`now_s` at or past its deadline) on the way.

        tokens_per_s: by which it is known how long a pack of what waits would run; what would be too late by its end is
        late. None: not known.

        Reads the images that leave and at most `MAX_SKIPPED` that stay; those behind are read by a later decision,
        and so a gone or late one among them is reported then, never run. A hold reads all that waits: less than a pack.
        Where none can be in time, all are read to find that out.
        """
        end_s = now_s
        if tokens_per_s:
            end_s += self._next_tokens() / tokens_per_s
        decision, full = self._take(now_s, end_s)
        self._queue_tokens -= sum(image.tokens for image in (*decision.gone, *decision.late))
        wait_s = None if full else self._hold_s(decision.pack, now_s, runs_s=end_s - now_s)
        if wait_s is None:
            self._queue_tokens -= sum(image.tokens for image in decision.pack)
            return decision
        # A pack that is not full was all that waited, so the order of arrival stands.
        self._queue.extend(decision.pack)
        return Decision([], decision.gone, decision.late, wait_s)

    def drain(self) -> list[ImageT]:
        """Empty the queue and return all that was in it, gone and late ones too, in order of arrival."""
        images = list(self._queue)
        self._queue.clear()
        self._queue_tokens = 0
        return images

    def _room(self) -> _Room:
        return _Room(self._max_batch_tokens, self._max_batch_images)

    def _next_tokens(self) -> int:
        """Tokens of a pack of what waits."""
        if self._max_batch_images is None:
            return min(self._queue_tokens, self._max_batch_tokens)
        space = self._room()
        for image in self._queue:
            if not space.take(image):
                break
        return space.taken_tokens

    def _take(self, now_s: float, end_s: float) -> tuple[Decision[ImageT], bool]:
        """Take a pack out of the queue, as though nothing were ever held back; and whether that pack is full.

        end_s: when it would be done. Full: no room is left, or an image that waits did not fit.
        """
        pack: list[ImageT] = []
        gone: list[ImageT] = []
        late: list[ImageT] = []
        skipped: list[ImageT] = []
        space = self._room()
        overtaken = 0  # the first so many of `skipped` have seen a later image taken
        while self._queue and not space.full and len(skipped) < MAX_SKIPPED:
            image = self._queue.popleft()
            if image.gone:
                gone.append(image)
            elif image.deadline_s is not None and end_s >= image.deadline_s:
                late.append(image)
            elif space.take(image):
                pack.append(image)
                overtaken = len(skipped)
            else:
                skipped.append(image)
                if image.passed_over >= self._max_passed_over:
                    break
        for image in skipped[:overtaken]:
            image.passed_over += 1
        self._queue.extendleft(reversed(skipped))
        if not pack and late and end_s > now_s:
            return self._take_late(now_s, gone, late)
        return Decision(pack, gone, late, wait_s=None), space.full or bool(skipped)

    def _take_late(self, now_s: float, gone: list[ImageT], late: list[ImageT]) -> tuple[Decision[ImageT], bool]:
        """Take a pack of those whose deadlines have not passed yet: nothing else waits."""
        self._queue.extend(image for image in late if image.deadline_s is None or now_s < image.deadline_s)
        again, full = self._take(now_s, now_s)
        passed = [image for image in late if image.deadline_s is not None and now_s >= image.deadline_s]
        return Decision(again.pack, gone + again.gone, passed + again.late, wait_s=None), full

    def _hold_s(self, waiting: Sequence[ImageT], now_s: float, *, runs_s: float) -> float | None:
        """Seconds for which `waiting`, less than a full pack, is held back; None: it goes now.

        runs_s: how long its forward takes."""
        # Without a wait there is no hold, even for an image stamped a moment after `now_s` was read.
        if not waiting or self._max_wait_s <= 0:
            return None
        end_s = min(image.arrived_s for image in waiting) + self._max_wait_s
        done_s = end_s + runs_s
        if now_s >= end_s or any(image.deadline_s is not None and image.deadline_s <= done_s for image in waiting):
            return None
        return end_s - now_s
