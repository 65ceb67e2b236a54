"""Errors let go of what they came through: a request that failed holds nothing once it is answered."""

import gc
import tracemalloc
import weakref
from collections.abc import Callable, Iterator

import pytest

from service.errors import let_go
from tests import pictures
from tests.service.engine.test_engine import Loaded
from tests.service.running import Running, raw_request, serving, until

WHOLE = pictures.save(pictures.picture(600, 600), "PNG")
CUT = WHOLE[: len(WHOLE) // 2]
NO_IMAGE = b"\x89PNG\r\n\x1a\n" + WHOLE
TIMES = 5


@pytest.fixture
def _nothing_is_collected() -> Iterator[None]:
    gc.collect()
    gc.disable()
    tracemalloc.start()
    yield
    tracemalloc.stop()
    gc.enable()


def held_bytes() -> int:
    """By what the service allocated: mostly bodies, and rows of the last pack."""
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
        pytest.param(422, lambda server: server.embed(NO_IMAGE).status_code, id="header"),
        pytest.param(422, lambda server: server.embed(CUT).status_code, id="pixels"),
        pytest.param(422, lambda server: server.embed_form([WHOLE, NO_IMAGE, CUT]).status_code, id="one of a form"),
        pytest.param(200, lambda server: server.embed_form([NO_IMAGE, CUT], partial=True).status_code, id="partial"),
        pytest.param(422, lambda server: server.embed_form([WHOLE] * 3, max_tokens=0).status_code, id="parameter"),
        pytest.param(504, lambda server: server.embed(WHOLE, timeout_ms=1).status_code, id="deadline"),
        pytest.param(500, fails_unknown, id="defect"),
        pytest.param(499, is_left, id="client gone"),
    ],
)
@pytest.mark.usefixtures("_nothing_is_collected")
def test_what_failed_holds_no_body_even_where_nothing_is_collected(
    loaded: Loaded, status: int, fail: Callable[[Running], int]
) -> None:
    with serving(loaded) as server:
        fail(server)
        before = held_bytes()
        for _ in range(TIMES):
            assert fail(server) == status
        until(lambda: held_bytes() - before < len(CUT))


class Held:
    """Can be referred to weakly."""


def raised(error: Exception) -> "weakref.ref[Held]":
    """What a frame that the error came through holds."""

    def fail(held: Held) -> None:
        raise error

    held = Held()
    with pytest.raises(type(error)):
        fail(held)
    return weakref.ref(held)


def test_frames_behind_an_error_are_emptied_too() -> None:
    """Of its cause, of what it was raised over, and of each of a group."""
    first, member, last = ValueError(1), KeyError(2), OSError(3)
    group = ExceptionGroup("one", [member])
    held = [raised(error) for error in (first, member, group, last)]
    first.__context__, group.__cause__, last.__context__ = group, last, first
    assert all(there() for there in held)
    let_go(first)
    assert not any(there() for there in held)
