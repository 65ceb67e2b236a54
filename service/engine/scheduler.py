"""Which images go into the next pack: pure policy.

The scheduler counts tokens and compares times. It has no clock (`now_s` is an argument), no thread, no lock and no
device. Times are seconds of one monotonic clock. Two threads that share a `Scheduler` hold one lock around every call.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

# A decision stops looking ahead after it has skipped this many images, so it costs the images that leave plus a
# constant, however long the queue is. In a simulation with 200 queued images of mixed sizes, 256 instead of 32 filled
# packs 0.1% fuller.
MAX_SKIPPED = 32


@dataclass(slots=True, eq=False)
class QueuedImage:
    """What the scheduler knows of an image. The engine derives from it to carry the rows and the future.

    arrived_s: when it was queued. deadline_s: the instant from which it is too late, None for never. alone: it gets a
    pack of its own. Two images are equal only if they are the same object.
    """

    tokens: int
    arrived_s: float
    deadline_s: float | None
    alone: bool = field(default=False, kw_only=True)
    # Only the scheduler writes the next two. Packs that took a later image while this one did not fit:
    passed_over: int = field(default=0, init=False)
    # True from `add` until the image is taken, found late, or dropped.
    queued: bool = field(default=False, init=False)


ImageT = TypeVar("ImageT", bound=QueuedImage)


@dataclass(frozen=True, slots=True)
class Decision(Generic[ImageT]):
    """What one call of `Scheduler.next_pack` took out of the queue; both lists in order of arrival.

    With `pack` empty and `wait_s` None the queue is empty.
    """

    pack: list[ImageT]  # to run now; empty: nothing to run
    late: list[ImageT]  # removed: their deadlines have passed, or would pass before their pack is done
    wait_s: float | None  # seconds for which images are held back, unless an `add` comes sooner. None: none are held


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
    """A queue in order of arrival (the order of `add`) and the rule that takes packs from it.

    A pack is filled from the head. An image that does not fit in the space left is skipped, and later ones that fit go
    ahead of it, until `max_passed_over` packs have done so. From then on no pack takes anything behind it without
    taking it as well. Zero means strict order.

    No image starves. Every image fits an empty pack, so each pack takes the head: an image with k others ahead of it is
    in the (k + 1)th pack at the latest. Space is offered in order of arrival, so no image leaves the queue in a later
    pack than it would in strict order.

    If the device's rate is known, an image whose deadline would pass while its pack runs gives way to images that can
    still be in time. Otherwise, once the queue is as long as the deadlines, the device would run only images that are
    answered too late. If no image can be in time they run all the same, since the rate is only an estimate.

    An image that is `alone` fills a pack, however small it is.

    With `max_wait_s` above zero a pack that is not full is held back until its oldest image has waited that long. The
    hold never outlasts a deadline: if a held image would be too late afterwards, the pack goes at once.
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
        # A dropped image stays in here, unseen, until a decision reaches it: removing it would cost a walk.
        self._queue: deque[ImageT] = deque()
        self._queue_images = self._queue_tokens = 0

    @property
    def max_batch_tokens(self) -> int:
        return self._max_batch_tokens

    def set_max_batch_tokens(self, tokens: int) -> None:
        """Bounds packs from now on. Raises `ValueError` if a queued image would not fit any."""
        if any(image.queued and image.tokens > tokens for image in self._queue):
            raise ValueError(f"a queued image would not fit a pack of {tokens} tokens")
        self._max_batch_tokens = tokens

    @property
    def queue_images(self) -> int:
        return self._queue_images

    @property
    def queue_tokens(self) -> int:
        return self._queue_tokens

    def add(self, image: ImageT) -> None:
        """Queues `image` behind all others. Raises `ValueError` if it is empty or no pack could hold it."""
        if not 1 <= image.tokens <= self._max_batch_tokens:
            raise ValueError(f"an image of {image.tokens} tokens; max_batch_tokens is {self._max_batch_tokens}")
        self._queue.append(image)
        image.queued = True
        self._queue_images += 1
        self._queue_tokens += image.tokens

    def drop(self, image: ImageT) -> bool:
        """Removes an image whose caller has left. From here on it counts nowhere. False if it was not queued."""
        queued = image.queued
        if queued:
            self._leave([image])
        return queued

    def next_pack(self, now_s: float, *, tokens_per_s: float | None = None) -> Decision[ImageT]:
        """Decides what runs now, and removes what is late (`now_s` at or past its deadline) on the way.

        tokens_per_s: the device's rate, which tells how long a pack of the queue would run. What would be too late by
        its end is late. None: not known.

        Reads the images that leave and at most `MAX_SKIPPED` that stay; a late one behind those is found by a later
        decision and never run. A hold reads the whole queue, which is less than a pack. If no image can be in time, all
        are read to find that out.
        """
        end_s = now_s
        if tokens_per_s:
            end_s += self._next_tokens() / tokens_per_s
        pack, late, full = self._take(now_s, end_s)
        wait_s = None if full else self._hold_s(pack, now_s, runs_s=end_s - now_s)
        if wait_s is not None:
            # A pack that is not full was the whole queue, so this keeps the order of arrival.
            self._queue.extend(pack)
            pack = []
        self._leave(pack)
        self._leave(late)
        return Decision(pack, late, wait_s)

    def drain(self) -> list[ImageT]:
        """Empties the queue and returns all that was in it, late images too, in order of arrival."""
        images = [image for image in self._queue if image.queued]
        self._leave(images)
        self._queue.clear()
        return images

    def _leave(self, images: Sequence[ImageT]) -> None:
        for image in images:
            image.queued = False
            self._queue_tokens -= image.tokens
        self._queue_images -= len(images)

    def _room(self) -> _Room:
        return _Room(self._max_batch_tokens, self._max_batch_images)

    def _next_tokens(self) -> int:
        """Tokens of the next pack, roughly: up to a full pack of the queue, in order of arrival."""
        if self._max_batch_images is None:
            return min(self._queue_tokens, self._max_batch_tokens)
        room = self._room()
        for image in self._queue:
            if image.queued and not room.take(image):
                break
        return room.taken_tokens

    def _take(self, now_s: float, end_s: float) -> tuple[list[ImageT], list[ImageT], bool]:
        """Takes out a pack and the late images found on the way, as if packs were never held back.

        end_s: when the pack would be done. The third value tells whether the pack is full: no space is left, or a
        queued image did not fit.
        """
        pack: list[ImageT] = []
        late: list[ImageT] = []
        skipped: list[ImageT] = []
        room = self._room()
        overtaken = 0  # so many of `skipped`, the first ones, have seen a later image taken
        while self._queue and not room.full and len(skipped) < MAX_SKIPPED:
            image = self._queue.popleft()
            if not image.queued:
                continue
            if image.deadline_s is not None and end_s >= image.deadline_s:
                late.append(image)
            elif room.take(image):
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
            return self._take_late(now_s, late)
        return pack, late, room.full or bool(skipped)

    def _take_late(self, now_s: float, late: Sequence[ImageT]) -> tuple[list[ImageT], list[ImageT], bool]:
        """Takes a pack of the images whose deadlines have not passed yet. `late` is the whole queue."""
        self._queue.extend(image for image in late if image.deadline_s is None or now_s < image.deadline_s)
        passed = [image for image in late if image.deadline_s is not None and now_s >= image.deadline_s]
        pack, _, full = self._take(now_s, now_s)
        return pack, passed, full

    def _hold_s(self, images: Sequence[ImageT], now_s: float, *, runs_s: float) -> float | None:
        """Seconds for which `images`, less than a full pack, are held back; None: they go now.

        runs_s: how long their forward takes.
        """
        # Without a wait there is no hold, even for an image stamped a moment after `now_s` was read.
        if not images or self._max_wait_s <= 0:
            return None
        end_s = min(image.arrived_s for image in images) + self._max_wait_s
        done_s = end_s + runs_s
        if now_s >= end_s or any(image.deadline_s is not None and image.deadline_s <= done_s for image in images):
            return None
        return end_s - now_s
