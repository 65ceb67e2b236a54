"""Images and results as frames of bytes, between the processes that speak HTTP and those that own a device.

A frame of arrays is the array's own memory, in the byte order of the one machine that both ends run on. Knows nothing
of sockets, and nothing of what is done with a job.
"""

from collections.abc import Sequence
from dataclasses import astuple, dataclass

import numpy as np
import orjson
from numpy.typing import NDArray

from service.engine.client import ImageJob, ImageResult
from service.engine.cost import CostFit
from service.errors import DeadlineExceeded, EngineFault, ServiceError, Unavailable

HELLO, EMBED, CANCEL = b"hello", b"embed", b"cancel"

Frames = list[bytes | memoryview]

_ERRORS: dict[str, type[ServiceError]] = {error.code: error for error in (DeadlineExceeded, EngineFault, Unavailable)}


@dataclass(frozen=True, slots=True)
class EngineState:
    """What an engine says of itself with every reply. others_tokens: what it has to do for other processes. cost: what
    its packs cost."""

    ready: bool
    tokens_per_s: float | None
    others_tokens: int
    cost: CostFit | None = None


def job_frames(number: int, job: ImageJob) -> Frames:
    """`number` is the sender's own name for the job, which the reply brings back."""
    head = [number, job.grids, job.token_cap, job.deadline_s, job.want_tokens, job.alone, job.name]
    return [EMBED, orjson.dumps(head), np.ascontiguousarray(job.rows).data.cast("B")]


def read_job(head: bytes, rows: memoryview) -> tuple[int, ImageJob]:
    """The rows are a view of the frame."""
    number, grids, token_cap, deadline_s, want_tokens, alone, name = orjson.loads(head)
    tokens = sum(height * width for height, width in grids)
    shaped = np.frombuffer(rows, np.uint8).reshape(tokens, -1)
    return number, ImageJob(shaped, tuple(map(tuple, grids)), token_cap, deadline_s, want_tokens, alone, name)


def state_frame(state: EngineState) -> bytes:
    """The first frame of all that an engine sends; without others it is news of the engine alone."""
    return orjson.dumps([state.ready, state.tokens_per_s, state.others_tokens, state.cost and astuple(state.cost)])


def read_state(frame: bytes | memoryview) -> EngineState:
    ready, tokens_per_s, others_tokens, cost = orjson.loads(frame)
    return EngineState(ready, tokens_per_s, others_tokens, cost and CostFit(*cost))


def result_frames(number: int, outcome: ImageResult | ServiceError) -> Frames:
    """What follows the state in a reply."""
    if isinstance(outcome, ServiceError):
        return [orjson.dumps([number, outcome.code, outcome.message])]
    arrays = [outcome.pooled] if outcome.tokens is None else [outcome.pooled, outcome.tokens]
    times = [outcome.queue_s, outcome.pack_s, outcome.forward_s]
    head = orjson.dumps([number, None, [times, [array.shape for array in arrays]]])
    return [head, *map(_bytes_of, arrays)]


def read_result(frames: Sequence[bytes | memoryview]) -> tuple[int, ImageResult | ServiceError]:
    number, code, about = orjson.loads(frames[0])
    if code is not None:
        return number, _ERRORS[code](about)
    times, shapes = about
    pooled, *tokens = (
        np.frombuffer(frame, np.float32).reshape(shape) for frame, shape in zip(frames[1:], shapes, strict=True)
    )
    return number, ImageResult(pooled, tokens[0] if tokens else None, *times)


def _bytes_of(array: NDArray[np.float32]) -> memoryview:
    return np.ascontiguousarray(array).data.cast("B")
