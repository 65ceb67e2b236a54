"""Every message that the processes of one server send to each other: structs, which msgspec checks when they are read.

Arrays follow the messages that tell of them: see `exchange.wire`. Knows nothing of sockets.
"""

import math
from typing import Any, Final, Generic, Literal, TypeVar

import msgspec

from service.engine.client import PackTrace
from service.engine.cost import CostFit
from service.engine.pack_log import PackReport
from service.limits import ModelFacts

T = TypeVar("T")


class MalformedMessage(Exception):
    """Bytes that are not a message of the expected direction. Names the message's type where it can be read."""


class _Message(msgspec.Struct, tag=True, forbid_unknown_fields=True):
    """The name of its class tells it from the other messages of its direction."""


# From the parent to a child


class StartEngine(_Message):
    """The first message to an engine process. settings: see `Settings.for_child`. replaces: how the life before it
    ended, None for the first."""

    name: str
    parent_pid: int
    secret: str
    settings: dict[str, Any]
    replaces: str | None = None


class EngineStatus(msgspec.Struct):
    """address: None while the engine is down. backing_off: it will stay down for a while. untrue: what was wrong with
    its vectors, as a clause, if that is why it is down."""

    address: str | None
    backing_off: bool = False
    untrue: str | None = None


class ServeModel(_Message):
    """The model that an HTTP process serves from now on. number: counted from the start of the server. engines: as they
    are now."""

    number: int
    model: ModelFacts
    engines: list[EngineStatus]


class StartHttp(_Message):
    """The first message to an HTTP process. listening_fd: the inherited descriptor of the listening socket.
    replaces: as in `StartEngine`."""

    name: str
    parent_pid: int
    secret: str
    settings: dict[str, Any]
    served: ServeModel
    listening_fd: int
    replaces: str | None = None


class EngineUp(_Message):
    """model: the number of its model."""

    model: int
    engine: int
    address: str


class Reloaded(_Message):
    """To one HTTP process, which counts it: a model was loaded again, or could not be."""

    outcome: Literal["done", "failed"]


class EngineDown(_Message):
    """An engine has died. model: the number of its model. suspects: the names of the images in its packs. backing_off:
    its next start is delayed. untrue: as in `EngineStatus`."""

    model: int
    engine: int
    suspects: list[str]
    backing_off: bool
    untrue: str | None = None


class Stop(_Message):
    """Finish what was accepted, then exit."""


# From a child to the parent


class Ready(_Message):
    facts: ModelFacts
    address: str


class StartFailed(_Message):
    reason: str


class Alive(_Message):
    """Sent every second, by the parent to HTTP processes too. at_s: by `time.monotonic`, which all processes share."""

    at_s: float


class PackBegins(_Message):
    """Sent before a pack is submitted to the device, which may have another one under way. names: of its images.
    predicted_s: how long the device takes for it, once the packs with smaller numbers have ended."""

    number: int
    names: list[str]
    predicted_s: float | None


class PackEnds(_Message):
    number: int
    succeeded: bool


class Untrue(_Message):
    """The canary has failed, and the process ends. what: was wrong, as a clause."""

    what: str


class Listening(_Message):
    address: str


class Moved(_Message):
    """An HTTP process serves the model of this number, and uses no other."""

    model: int


# From an HTTP process to an engine


class Hello(_Message):
    """The first message on a connection; nothing else is read before it. The descriptor of the sender's slab comes with
    it. name: of the sender; the engine calls the sender's job n `name:n`."""

    secret: str
    name: str


class Embed(_Message):
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


class EmbedText(_Message):
    """A `TextJob` without its ids, which follow. tokens: the number of them."""

    number: int
    tokens: int
    token_cap: int
    deadline_s: float | None
    alone: bool
    trace: str = ""
    bulk: bool = False


class EmbedDocument(_Message):
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


class Cancel(_Message):
    """Nobody waits for this job any more. It is answered all the same: with `Dropped` if it was still in the queue."""

    number: int


class TellPacks(_Message):
    """Asks for the packs that ended later. Sent twice a second while somebody listens to `/stats`, and never else."""

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


class News(_Message):
    state: EngineState


class Packs(_Message):
    """The last packs of the engine, whoever sent their images and texts."""

    state: EngineState
    packs: list[PackReport]


class Embedded(_Message):
    """A `JobResult` without its arrays, which follow. shapes: of those arrays."""

    number: int
    shapes: list[tuple[int, ...]]
    queue_s: float
    pack_s: float
    forward_s: float
    pack_id: str
    pack_trace: PackTrace | None = None


class Failed(_Message):
    """The image has no vectors. code, message: of a `ServiceError`."""

    number: int
    code: str
    message: str


class Dropped(_Message):
    """A job was cancelled before its turn came."""

    number: int


Answer = Embedded | Failed | Dropped


class Answers(_Message):
    """What became of some jobs, a pack's together. The arrays of all of them follow in order."""

    state: EngineState
    answers: list[Answer]


class _AnyMessage(msgspec.Struct):
    type: str


class Reader(Generic[T]):
    """Reads the messages of one direction."""

    def __init__(self, messages: Any) -> None:
        """messages: their class, or the union of their classes."""
        self._decoder = msgspec.msgpack.Decoder(messages)

    def __call__(self, data: bytes | memoryview) -> T:
        """Raises `MalformedMessage`."""
        try:
            message: T = self._decoder.decode(data)
        except msgspec.MsgspecError as error:
            raise MalformedMessage(f"malformed {_type_of(data)}: {error}") from None
        return message


def _type_of(data: bytes | memoryview) -> str:
    try:
        return msgspec.msgpack.decode(data, type=_AnyMessage).type
    except msgspec.MsgspecError:
        return "message"


encode: Final = msgspec.msgpack.Encoder().encode

ToEngine = StartEngine | Stop
FromEngine = Ready | StartFailed | Alive | PackBegins | PackEnds | Untrue
ToHttp = StartHttp | ServeModel | EngineUp | EngineDown | Reloaded | Alive | Stop
FromHttp = Listening | Moved | Alive
Request = Hello | Embed | EmbedText | EmbedDocument | Cancel | TellPacks
Reply = News | Packs | Answers

to_engine: Final = Reader[ToEngine](ToEngine)
from_engine: Final = Reader[FromEngine](FromEngine)
to_http: Final = Reader[ToHttp](ToHttp)
from_http: Final = Reader[FromHttp](FromHttp)
request: Final = Reader[Request](Request)
reply: Final = Reader[Reply](Reply)
