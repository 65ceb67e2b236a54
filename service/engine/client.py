"""The seam between requests and devices: what is handed over for each image or text, and what comes back.

An implementation of `EngineClient` owns the devices, or reaches the processes that do. Its callers know of no device.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from model.pack import SOFT_TOKEN
from service.engine.cost.fit import CostFit
from service.engine.pack_log import PackReport
from service.limits import ModelFacts
from service.metrics import ItemKind, PackItem


# Jobs and results are made for each image, and making them takes four times as long if they are frozen. Nobody writes
# to them all the same.
@dataclass(slots=True, eq=False)
class ImageJob:
    """One image ready for a pack.

    rows: uint8 `[N, 3*P*P]`, its segments end to end. grids: `(grid_h, grid_w)` of each segment, in patches.
    token_cap: the most tokens it could have used. deadline_s: by `time.monotonic`, or None. want_tokens: return its
    token vectors as well. alone: nothing else is on the device while it runs. name: identifies it in the
    record of packs. trace: the W3C `traceparent` of its span; empty if it is not traced. bulk: as in `QueuedItem`.
    canary: nobody sent it.
    """

    rows: NDArray[np.uint8]
    grids: tuple[tuple[int, int], ...]
    token_cap: int
    deadline_s: float | None
    want_tokens: bool
    alone: bool = False
    name: str = ""
    trace: str = ""
    bulk: bool = False
    canary: bool = False

    kind: ClassVar[ItemKind] = "image"

    @property
    def tokens(self) -> int:
        return len(self.rows)

    @property
    def lengths(self) -> list[int]:
        """Tokens of each segment."""
        return [height * width for height, width in self.grids]

    @property
    def items(self) -> list[PackItem]:
        """What metrics count it as."""
        return [PackItem("canary" if self.canary else self.kind, self.tokens, self.token_cap)]

    @property
    def pictures(self) -> list[list[int]]:
        """Tokens of each segment, for each picture that somebody sent."""
        return [] if self.canary else [self.lengths]

    def harmless(self) -> Self:
        """A gray picture of the same shape, for which nobody waits."""
        return replace(self, rows=np.full_like(self.rows, 128), want_tokens=False, name="", trace="")


@dataclass(slots=True, eq=False)
class TextJob:
    """One text ready for a pack, where it is one segment.

    ids: int32 `[N]`, as the text tower takes them. The other fields are those of `ImageJob`.
    """

    ids: NDArray[np.int32]
    token_cap: int
    deadline_s: float | None
    alone: bool = False
    name: str = ""
    trace: str = ""
    bulk: bool = False
    canary: bool = False

    kind: ClassVar[ItemKind] = "text"

    @property
    def tokens(self) -> int:
        return len(self.ids)

    @property
    def lengths(self) -> list[int]:
        """Tokens of its only segment."""
        return [len(self.ids)]

    @property
    def items(self) -> list[PackItem]:
        """What metrics count it as."""
        return [PackItem("canary" if self.canary else self.kind, self.tokens, self.token_cap)]

    @property
    def pictures(self) -> list[list[int]]:
        """A text has none."""
        return []

    def harmless(self) -> Self:
        """The same text, for which nobody waits: any ids are harmless."""
        return replace(self, ids=self.ids.copy(), name="", trace="")


@dataclass(slots=True, eq=False)
class DocumentJob:
    """Texts and pictures that become one vector, or one of them alone, ready for a pack.

    ids: int32 `[N]`, with a `SOFT_TOKEN` for each soft token of a picture. rows, grids: those of all pictures, as in
    `ImageJob`, one grid each. text_tokens: how many of the ids are counted, 0 without a text: the others stand around
    pictures. token_caps: the most tokens of each picture, text_cap: of the text. The other fields are those of
    `ImageJob`.
    """

    ids: NDArray[np.int32]
    rows: NDArray[np.uint8]
    grids: tuple[tuple[int, int], ...]
    text_tokens: int
    token_caps: tuple[int, ...]
    text_cap: int
    deadline_s: float | None
    alone: bool = False
    name: str = ""
    trace: str = ""
    bulk: bool = False
    canary: bool = False

    @property
    def kind(self) -> ItemKind:
        return "image" if self.grids else "text"

    @property
    def tokens(self) -> int:
        """Patches of all pictures, and the ids that are counted."""
        return len(self.rows) + self.text_tokens

    @property
    def lengths(self) -> list[int]:
        """Tokens of each picture, and of the text if there is one."""
        return [height * width for height, width in self.grids] + [self.text_tokens] * bool(self.text_tokens)

    @property
    def uncounted(self) -> int:
        """Rows of the text encoder that are no soft tokens and are not counted."""
        return int((self.ids != SOFT_TOKEN).sum()) - self.text_tokens

    @property
    def items(self) -> list[PackItem]:
        """What metrics count it as: each picture, and the text."""
        if self.canary:
            return [PackItem("canary", self.tokens, self.tokens)]
        caps = zip(self.grids, self.token_caps, strict=True)
        items = [PackItem("image", height * width, cap) for (height, width), cap in caps]
        return items + [PackItem("text", self.text_tokens, self.text_cap)] * bool(self.text_tokens)

    @property
    def pictures(self) -> list[list[int]]:
        """Tokens of the only segment of each picture that somebody sent."""
        return [] if self.canary else [[height * width] for height, width in self.grids]

    def harmless(self) -> Self:
        """Gray pictures of the same shapes between the same ids, for which nobody waits."""
        return replace(self, ids=self.ids.copy(), rows=np.full_like(self.rows, 128), name="", trace="")


Job = ImageJob | TextJob | DocumentJob


@dataclass(frozen=True, slots=True)
class PackTrace:
    """What the span of a pack is made from. traces: of its jobs that are traced. began_s, ended_s: by
    `time.monotonic`, from its choice to its end. images, texts, tokens: of all that it held. computed_tokens: by the
    device, filler included."""

    traces: tuple[str, ...]
    began_s: float
    ended_s: float
    images: int
    texts: int
    tokens: int
    computed_tokens: int


@dataclass(slots=True, eq=False)
class JobResult:
    """The vectors of one image or text, and where its time went.

    pooled: float32 `[S, E]`, one row a segment, not normalised. tokens: float32 `[N, D]` for the N output tokens of an
    image, or None; D differs from E if a projection follows the pooling. queue_s: the wait for its pack to be chosen,
    and for the device to end the pack before. pack_s: how long arranging and submitting that pack took, perhaps while
    the device worked on the one before. forward_s: how long the device worked on it, copies included. The three add up
    to the time from `submit` to the end of the pack. pack_id: of that pack in `EngineClient.packs`. pack_trace: of that
    pack, with the first of its results that is traced, and with no other.
    """

    pooled: NDArray[np.float32]
    tokens: NDArray[np.float32] | None
    queue_s: float
    pack_s: float
    forward_s: float
    pack_id: str = ""
    pack_trace: PackTrace | None = None


@dataclass(frozen=True, slots=True)
class Trust:
    """Whether devices compute what they should, as far as their canaries tell.

    untrue: what was wrong with the vectors of a device that gets no more work until it is replaced; None if there is no
    such device. doubts: how often one was found so; all that it computed since its last canary is in doubt. proven_s:
    what was computed before, by `time.monotonic`, was right; infinite if nobody watches.
    """

    untrue: str | None = None
    doubts: int = 0
    proven_s: float = math.inf


class JobClient(Protocol):
    """What takes images and texts of one model, and gives back their vectors."""

    @property
    def model(self) -> ModelFacts: ...

    @property
    def cost(self) -> CostFit | None:
        """What packs cost one device. None before enough of them have run."""
        ...

    async def submit(self, job: Job) -> JobResult:
        """Raises `DeadlineExceeded` if its turn comes too late, `EngineFault` if its pack failed, and `Unavailable` if
        the engine has stopped. Cancelling the call takes the job out of the queue."""
        ...


class EngineClient(JobClient, Protocol):
    """Devices that embed images and texts in packs."""

    @property
    def accepts_jobs(self) -> bool:
        """Whether `submit` is worth a try: a device is there, or will be soon, and is not stuck in a pack."""
        ...

    @property
    def any_device_ready(self) -> bool:
        """Whether a device has answered lately: it accepts jobs, and its packs do not all fail. `/readyz` says this."""
        ...

    @property
    def all_devices_ready(self) -> bool:
        """The same of every device. The metric `engine_up` says this."""
        ...

    @property
    def trust(self) -> Trust: ...

    @property
    def tokens_per_s(self) -> float | None:
        """The recent rate of all devices, or None before the first pack."""
        ...

    @property
    def packs(self) -> Sequence[Sequence[PackReport]]:
        """The last packs of each device, the oldest first, whoever sent their images and texts."""
        ...

    def refresh_packs(self) -> None:
        """Asks for what `packs` may lack. A device in another process answers a moment later."""
        ...
