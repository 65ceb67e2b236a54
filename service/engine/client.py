"""The seam between requests and devices: what is handed over for each image, and what comes back.

An implementation of `EngineClient` owns the devices, or reaches the processes that do. Its callers know of no device.
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
    token_cap: the most tokens it could have used. deadline_s: by `time.monotonic`, or None. want_tokens: return its
    token vectors as well. alone: it gets a pack of its own. name: identifies it in the record of packs.
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
class JobResult:
    """The vectors of one image, and where its time went.

    pooled: float32 `[S, E]`, one row a segment, not normalised. tokens: float32 `[N, D]` for N output tokens, or None;
    D differs from E if a projection follows the pooling. queue_s: the wait for its pack. pack_s, forward_s: how long
    arranging and running that pack took.
    """

    pooled: NDArray[np.float32]
    tokens: NDArray[np.float32] | None
    queue_s: float
    pack_s: float
    forward_s: float


class EngineClient(Protocol):
    """Devices that embed images in packs."""

    @property
    def model(self) -> ModelFacts: ...

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
    def tokens_per_s(self) -> float | None:
        """The recent rate of all devices, or None before the first pack."""
        ...

    @property
    def cost(self) -> CostFit | None:
        """What packs cost one device. None before enough of them have run."""
        ...

    async def submit(self, job: ImageJob) -> JobResult:
        """Raises `DeadlineExceeded` if its turn comes too late, `EngineFault` if its pack failed, and `Unavailable` if
        the engine has stopped. Cancelling the call takes the image out of the queue."""
        ...
