"""The words for a wrong field, and that a failed request holds nothing once it is answered."""

import gc
import tracemalloc
import weakref
from collections.abc import Callable, Iterator

import pytest
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from service.errors import from_validation_error, let_go
from tests import pictures
from tests.service.engine.test_engine import Loaded
from tests.service.running import Running, raw_request, serving, until

# A megabyte that takes no time to compress or to read: three workers of a test run load this file.
WHOLE = pictures.save(Image.fromarray(pictures.noise(600, 600)), "PNG", compress_level=0)
CUT = WHOLE[: len(WHOLE) // 2]
NO_IMAGE = b"\x89PNG\r\n\x1a\n" + WHOLE
TIMES = 5
SLOW = pytest.mark.slow


@pytest.fixture
def _nothing_is_collected() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    tracemalloc.stop()
    gc.enable()


def held_bytes() -> int:
    """Bytes allocated by the service: mostly bodies."""
    taken = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(True, "*/service/[!t]*.py")])
    return sum(statistic.size for statistic in taken.statistics("filename"))


def fails_unknown(server: Running) -> int:
    server.decoder.fault = RuntimeError("a defect")
    status = server.embed(WHOLE).status_code
    server.decoder.fault = None
    return status


def is_left(server: Running) -> int:
    server.decoder.headers_free.clear()
    with server.connect() as connection:
        connection.sendall(raw_request(WHOLE))
        until(lambda: server.metric("inflight_bytes") >= len(WHOLE))
    until(server.is_empty)
    server.decoder.headers_free.set()
    return 499


@pytest.mark.parametrize(
    ("status", "fail"),
    [
        pytest.param(422, lambda server: server.embed(NO_IMAGE).status_code, id="header", marks=SLOW),
        pytest.param(422, lambda server: server.embed(CUT).status_code, id="pixels"),
        pytest.param(
            422,
            lambda server: server.embed_form([WHOLE, NO_IMAGE, CUT]).status_code,
            id="one of a form",
            marks=SLOW,
        ),
        pytest.param(200, lambda server: server.embed_form([NO_IMAGE, CUT], partial=True).status_code, id="partial"),
        pytest.param(
            422,
            lambda server: server.embed_form([WHOLE] * 3, max_tokens=0).status_code,
            id="parameter",
            marks=SLOW,
        ),
        pytest.param(504, lambda server: server.embed(WHOLE, timeout_ms=1).status_code, id="deadline", marks=SLOW),
        pytest.param(500, fails_unknown, id="defect"),
        pytest.param(499, is_left, id="client gone"),
    ],
)
@pytest.mark.usefixtures("_nothing_is_collected")
def test_a_failed_request_holds_no_body_even_without_garbage_collection(
    loaded: Loaded, status: int, fail: Callable[[Running], int]
) -> None:
    with serving(loaded) as server:
        # Not before: to trace what a server is made of takes as long as all else here.
        tracemalloc.start()
        fail(server)
        before = held_bytes()
        for _ in range(TIMES):
            assert fail(server) == status
        until(lambda: held_bytes() - before < len(CUT))


class Held:
    """Can be referred to weakly."""


def raised(error: Exception) -> "weakref.ref[Held]":
    """Held by a frame that the error came through."""

    def fail(held: Held) -> None:
        raise error

    held = Held()
    with pytest.raises(type(error)):
        fail(held)
    return weakref.ref(held)


def test_frames_behind_an_error_are_emptied_too() -> None:
    """Those of its cause, of its context, and of each error in a group."""
    first, member, last = ValueError(1), KeyError(2), OSError(3)
    group = ExceptionGroup("one", [member])
    held = [raised(error) for error in (first, member, group, last)]
    first.__context__, group.__cause__, last.__context__ = group, last, first
    assert all(there() for there in held)
    let_go(first)
    assert not any(there() for there in held)


# What pydantic found wrong, in words


class Inner(BaseModel):
    side: int = Field(1, ge=1)


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid")

    images: list[Inner] = []
    name: str = ""

    @field_validator("name")
    @classmethod
    def _check(cls, value: str) -> str:
        if value == "secret":
            raise ValueError("Names are public")
        return value


@pytest.mark.parametrize(
    ("content", "depth", "param", "message"),
    [
        ({"images": [{}, {"side": 0}]}, 1, "images", "images: input should be greater than or equal to 1"),
        ({"images": [{}, {"side": 0}]}, 2, "images.1", "images.1: input should be greater than or equal to 1"),
        ({"size": 3}, 1, "size", "there is no parameter 'size'; there are: images, name"),
        ({"name": "secret"}, 1, "name", "name: names are public"),
        ({"x" * 99: 3}, 1, "x" * 40, f"there is no parameter '{'x' * 40}'; there are: images, name"),
    ],
)
def test_a_fault_names_its_field_and_says_what_is_wrong(
    content: dict[str, object], depth: int, param: str, message: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate(content)
    invalid = from_validation_error(caught.value, Outer, depth=depth)
    assert (invalid.param, invalid.message) == (param, message)
