"""What the parent and its children tell each other: structs, which msgspec checks when they are read. Knows no socket.

What HTTP processes and engines send to each other is in `exchange.messages`. An item is an image, a text, or several of
them that become one vector.
"""

from typing import Any, Final, Generic, Literal, TypeVar

import msgspec

from service.limits import ModelFacts

T = TypeVar("T")


class MalformedMessage(Exception):
    """Bytes that are not a message of the expected direction. Names the message's type where it can be read."""


class Message(msgspec.Struct, tag=True, forbid_unknown_fields=True):
    """The name of its class tells it from the other messages of its direction."""


encode: Final = msgspec.msgpack.Encoder().encode


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


# From the parent to a child


class StartEngine(Message):
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


class ServeModel(Message):
    """The model that an HTTP process serves from now on. number: counted from the start of the server. engines: as they
    are now."""

    number: int
    model: ModelFacts
    engines: list[EngineStatus]


class StartHttp(Message):
    """The first message to an HTTP process. listening_fd: the inherited descriptor of the listening socket.
    replaces: as in `StartEngine`."""

    name: str
    parent_pid: int
    secret: str
    settings: dict[str, Any]
    served: ServeModel
    listening_fd: int
    replaces: str | None = None


class EngineUp(Message):
    """model: the number of its model."""

    model: int
    engine: int
    address: str


class Reloaded(Message):
    """To one HTTP process, which counts it: a model was loaded again, or could not be."""

    outcome: Literal["done", "failed"]


class EngineDown(Message):
    """An engine has died. model: the number of its model. suspects: the names of the items in its packs. backing_off:
    its next start is delayed. untrue: as in `EngineStatus`."""

    model: int
    engine: int
    suspects: list[str]
    backing_off: bool
    untrue: str | None = None


class Stop(Message):
    """Finish what was accepted, then exit."""


# From a child to the parent


class Ready(Message):
    facts: ModelFacts
    address: str


class StartFailed(Message):
    reason: str


class Alive(Message):
    """Sent every second, by the parent to HTTP processes too. at_s: by `time.monotonic`, which all processes share."""

    at_s: float


class PackBegins(Message):
    """Sent before a pack is submitted to the device, which may have another one under way. names: of its items that
    somebody sent. predicted_s: how long the device takes for it, once the packs with smaller numbers have ended."""

    number: int
    names: list[str]
    predicted_s: float | None


class PackEnds(Message):
    number: int
    succeeded: bool


class Untrue(Message):
    """The canary has failed, and the process ends. what: was wrong, as a clause."""

    what: str


class Listening(Message):
    address: str


class Moved(Message):
    """An HTTP process serves the model of this number, and uses no other."""

    model: int


ToEngine = StartEngine | Stop
FromEngine = Ready | StartFailed | Alive | PackBegins | PackEnds | Untrue
ToHttp = StartHttp | ServeModel | EngineUp | EngineDown | Reloaded | Alive | Stop
FromHttp = Listening | Moved | Alive

to_engine: Final = Reader[ToEngine](ToEngine)
from_engine: Final = Reader[FromEngine](FromEngine)
to_http: Final = Reader[ToHttp](ToHttp)
from_http: Final = Reader[FromHttp](FromHttp)
