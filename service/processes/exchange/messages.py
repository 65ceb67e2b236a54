"""What HTTP processes and engine processes send to each other. Arrays follow the messages that tell of them (`wire`).

Knows no socket.
"""

import math
from typing import Final

import msgspec

from service.engine.client import PackTrace
from service.engine.cost.fit import CostFit
from service.engine.pack_log import PackReport
from service.processes.messages import Message, Reader

# From an HTTP process to an engine


class Hello(Message):
    """The first message on a connection; nothing else is read before it. The descriptor of the sender's slab comes with
    it. name: of the sender; the engine calls the sender's job n `name:n`."""

    secret: str
    name: str


class Embed(Message):
    """An `ImageJob` without its rows, each of `row_bytes`. number: the sender's own, repeated in the answer. rows_at:
    the byte of the sender's slab at which they begin; None if they follow this message."""

    number: int
    grids: tuple[tuple[int, int], ...]
    row_bytes: int
    rows_at: int | None
    token_cap: int
    deadline_s: float | None
    want_tokens: bool
    alone: bool
    trace: str = ""
    bulk: bool = False


class EmbedText(Message):
    """A `TextJob` without its ids, which follow. tokens: the number of them."""

    number: int
    tokens: int
    token_cap: int
    deadline_s: float | None
    alone: bool
    trace: str = ""
    bulk: bool = False


class EmbedDocument(Message):
    """A `DocumentJob` without its arrays: its ids follow, and then its rows if `rows_at` is None, as in `Embed`. ids:
    the number of them."""

    number: int
    ids: int
    grids: tuple[tuple[int, int], ...]
    row_bytes: int
    rows_at: int | None
    text_tokens: int
    token_caps: tuple[int, ...]
    text_cap: int
    deadline_s: float | None
    alone: bool
    trace: str = ""
    bulk: bool = False


class Cancel(Message):
    """Nobody waits for this job any more. It is answered all the same: with `Dropped` if it was still in the queue."""

    number: int


class TellPacks(Message):
    """Asks for the packs that ended later. Sent twice a second, and only while somebody listens to `/stats`."""

    ended_s: float


# From an engine to an HTTP process


class EngineState(msgspec.Struct):
    """Sent with all answers. others_tokens: what the engine has to do for other processes. cost: of its packs.
    processes: how many share it. others_bulk_tokens: those of `others_tokens` that are bulk. proven_s: as in
    `Trust`."""

    ready: bool
    tokens_per_s: float | None
    others_tokens: int
    cost: CostFit | None = None
    processes: int = 1
    others_bulk_tokens: int = 0
    proven_s: float = math.inf


class News(Message):
    state: EngineState


class Packs(Message):
    """The last packs of the engine, whoever sent their images and texts."""

    state: EngineState
    packs: list[PackReport]


class Embedded(Message):
    """A `JobResult` without its arrays, which follow. shapes: of those arrays."""

    number: int
    shapes: list[tuple[int, ...]]
    queue_s: float
    pack_s: float
    forward_s: float
    pack_id: str
    pack_trace: PackTrace | None = None


class Failed(Message):
    """The job has no vectors. code, message: of a `ServiceError`."""

    number: int
    code: str
    message: str


class Dropped(Message):
    """A job was cancelled before its turn came."""

    number: int


Answer = Embedded | Failed | Dropped


class Answers(Message):
    """What became of some jobs, a pack's together. The arrays of all of them follow in order."""

    state: EngineState
    answers: list[Answer]


Request = Hello | Embed | EmbedText | EmbedDocument | Cancel | TellPacks
Reply = News | Packs | Answers

request: Final = Reader[Request](Request)
reply: Final = Reader[Reply](Reply)
