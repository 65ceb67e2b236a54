"""The seam between HTTP and the device: what a request hands over for each image, and what it gets back.

Whoever implements `EngineClient` owns a device; whoever calls it knows of none.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from service.engine.cost import CostFit
from service.limits import ModelFacts


@dataclass(frozen=True, slots=True, eq=False)
class ImageJob:
    """One image ready for a pack.

    rows: uint8 `[N, 3*P*P]`, its segments end to end. grids: `(grid_h, grid_w)` of each segment, in patches.
    token_cap: what it might have used. deadline_s: by `time.monotonic`, or None. want_tokens: the vectors of its tokens
    too. alone: it takes a pack of its own. name: what the record of packs calls it.
    """

    rows: NDArray[np.uint8]
    grids: tuple[tuple[int, int], ...]
    token_cap: int
    deadline_s: float | None
    want_tokens: bool
    alone: bool = False
    name: str = ""

    @property
    def tokens(self) -> int:
        return len(self.rows)

    @property
    def lengths(self) -> list[int]:
        """Tokens of each segment."""
        return [height * width for height, width in self.grids]


@dataclass(frozen=True, slots=True, eq=False)
class ImageResult:
    """What came of one image.

    pooled: float32 `[S, E]`, one row a segment, not normalised. tokens: float32 `[N, D]` or None, for N output tokens;
    D is another than E if a projection follows the pooling.
    queue_s, pack_s, forward_s: how long it waited, and how long its pack was laid out and ran.
    """

    pooled: NDArray[np.float32]
    tokens: NDArray[np.float32] | None
    queue_s: float
    pack_s: float
    forward_s: float


class EngineClient(Protocol):
    """A device that embeds images in packs."""

    @property
    def model(self) -> ModelFacts: ...

    @property
    def alive(self) -> bool:
        """True while jobs are taken: the engine is there, and not stuck in one pack."""
        ...

    @property
    def ready(self) -> bool:
        """True only while the device has answered lately: alive, and its packs do not all fail."""
        ...

    @property
    def whole(self) -> bool:
        """True only while each of its devices is ready: what `engine_up` says."""
        ...

    @property
    def tokens_per_s(self) -> float | None:
        """The measured rate of late, or None before the first pack."""
        ...

    @property
    def cost(self) -> CostFit | None:
        """What packs cost one device, by those of late; None before enough of them have run."""
        ...

    async def submit(self, job: ImageJob) -> ImageResult:
        """Raises `DeadlineExceeded` if its turn comes too late, `EngineFault` if its pack failed, `Unavailable` if the
        engine is gone. Cancelling the call takes the image out of the queue."""
        ...

    def close(self, *, timeout_s: float) -> bool:
        """Ends the engine; jobs still queued fail with `Unavailable`. False if the device was still at work by then."""
        ...
