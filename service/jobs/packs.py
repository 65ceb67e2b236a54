"""Decoded pictures in, their vectors out, in packs that the server's scheduler chooses and its executor runs."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from model.errors import DeviceLost
from service.engine.client import ImageJob, JobResult
from service.engine.device import Device
from service.engine.executor import PackExecutor
from service.engine.forward import have_directions
from service.engine.outcomes import Outcome
from service.engine.pack_log import PackReport
from service.engine.queue.room import QueuedItem
from service.engine.scheduler import Scheduler
from service.engine.under_way import Submitted
from service.jobs.rows import Decoded, Embedded, Failed, Row
from service.limits import Limits
from service.metrics import Metrics
from service.requests.results import image_embedding

# With so many packs queued, the scheduler finds pictures that fill the next one.
QUEUED_PACKS = 2


@dataclass(slots=True)
class PackCount:
    """What the device has done so far, and what it would have computed if it had padded the images of each pack to the
    longest of them, or to their caps. full_tokens: of packs without room left."""

    packs: int = 0
    image_tokens: int = 0
    computed_tokens: int = 0
    longest_tokens: int = 0
    cap_tokens: int = 0
    full_tokens: int = 0

    def add(self, pack: PackReport, max_batch_tokens: int) -> None:
        self.packs += 1
        self.image_tokens += pack.tokens
        self.computed_tokens += pack.computed_tokens
        self.longest_tokens += pack.longest_tokens
        self.cap_tokens += pack.cap_tokens
        self.full_tokens += max_batch_tokens

    @property
    def padding_waste(self) -> float:
        """Padding over everything computed, from 0 to 1."""
        return 1 - self.image_tokens / self.computed_tokens if self.computed_tokens else 0.0

    @property
    def fill(self) -> float:
        """Tokens of images over what the packs could have held, from 0 to 1."""
        return self.image_tokens / self.full_tokens if self.full_tokens else 0.0


@dataclass(slots=True, eq=False)
class QueuedPicture(QueuedItem):
    """A decoded picture in the queue."""

    picture: Decoded
    job: ImageJob = field(init=False)

    def __post_init__(self) -> None:
        plan = self.picture.plan
        grids = tuple(segment.grid for segment in plan.segments)
        self.job = ImageJob(self.picture.rows, grids, plan.token_cap, deadline_s=None, want_tokens=False)

    def forget_rows(self) -> None:
        """Its pack has run: the rows are no longer needed, and are most of what a picture takes."""
        self.picture = replace(self.picture, rows=self.picture.rows[:0].copy())
        self.job = replace(self.job, rows=self.picture.rows)


class Packs:
    """The queue of one device, and the device.

    `add`, `queue_tokens` and `next_pack` share one lock if several threads call them; one thread at a time calls
    `submit`, and one `run`.
    """

    def __init__(self, device: Device, limits: Limits, *, normalize: bool = True) -> None:
        self._executor = PackExecutor(device, limits, metrics=Metrics())
        self._scheduler: Scheduler[QueuedPicture] = Scheduler(
            max_batch_tokens=limits.max_batch_tokens, max_batch_items=limits.max_batch_items
        )
        self._normalize = normalize
        self._counted = ""
        self.count = PackCount()

    @property
    def queue_tokens(self) -> int:
        return self._scheduler.queue_tokens

    @property
    def well_filled(self) -> bool:
        """Whether enough is queued for the next pack to be full."""
        return self._scheduler.queue_tokens >= QUEUED_PACKS * self._scheduler.max_batch_tokens

    def add(self, picture: Decoded) -> QueuedPicture:
        item = QueuedPicture(picture.plan.tokens, arrived_s=0.0, deadline_s=None, picture=picture)
        self._scheduler.add(item)
        return item

    def next_pack(self) -> list[QueuedPicture]:
        """Empty if nothing is queued."""
        if (bound := self._executor.max_batch_tokens) != self._scheduler.max_batch_tokens:
            self._scheduler.set_max_batch_tokens(bound)
        return self._scheduler.next_pack(0.0).pack

    def submit(self, items: Sequence[QueuedPicture]) -> Submitted[QueuedPicture]:
        """Begins a pack. Copies all rows, which takes as long as a small forward."""
        pack = self._executor.begin(items)
        self._executor.submit(pack)
        return pack

    def run(self, pack: Submitted[QueuedPicture]) -> Iterator[list[tuple[QueuedPicture, Outcome]]]:
        """Outcomes as they come. A pack that fails is halved until the picture at fault is found. Raises
        `DeviceLost`, also for a device on which nothing succeeds any more."""
        items = list(pack.items)
        for outcomes in self._executor.collect(pack):
            reports = self._executor.log.packs
            if reports and reports[-1].id != self._counted:
                self._counted = reports[-1].id
                self.count.add(reports[-1], self._scheduler.max_batch_tokens)
            done, items = items[: len(outcomes)], items[len(outcomes) :]
            for item in done:
                item.forget_rows()
            yield list(zip(done, outcomes, strict=True))
        if self._executor.failing:
            self._executor.probe()
            if self._executor.failing:
                raise DeviceLost("the device fails on every picture, and on a plain gray one as well")

    def row(self, picture: Decoded, outcome: Outcome) -> Row:
        """The row of a picture whose pack has run."""
        if not isinstance(outcome, JobResult):
            return Failed(picture.path, str(outcome), picture.sha256)
        vector = image_embedding(outcome.pooled, normalize=self._normalize)
        if not have_directions(vector[None]):
            return Failed(picture.path, "the mean of its segments' vectors has no direction", picture.sha256)
        return Embedded(picture.path, picture.sha256, picture.plan, _own(vector), picture.repaired, picture.thumb)

    def embed(self, pictures: Iterable[Decoded]) -> Iterator[Row]:
        """The row of each picture as its pack is done, with no thread: for callers that bring pictures by the batch.

        All of them are queued first, so a batch of several packs fills all packs but the last. A device that works by
        itself has the next pack while it runs one. Raises `DeviceLost`.
        """
        for picture in pictures:
            self.add(picture)
        under_way: deque[Submitted[QueuedPicture]] = deque()
        while self.queue_tokens or under_way:
            while self.queue_tokens and len(under_way) < self._executor.depth:
                under_way.append(self.submit(self.next_pack()))
            for done in self.run(under_way.popleft()):
                for item, outcome in done:
                    yield self.row(item.picture, outcome)


def _own(vector: NDArray[np.float32]) -> NDArray[np.float32]:
    """A view would keep the vectors of the whole pack."""
    return vector if vector.base is None else vector.copy()
