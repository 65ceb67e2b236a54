"""When a process that has died is started again, how its messages are heard, and how it ends with its parent."""

import asyncio
import os
import socket
import subprocess
import sys
from contextlib import suppress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.child_process import children_of
from service.processes.channel import framed
from service.processes.child import Child, Restarts
from service.processes.http_keeper import USEFUL_LIFE_S
from service.processes.messages import Alive, FromEngine, PackEnds, StartFailed, from_engine
from tests.service.running import PATIENCE_S

HEAD = """
import os, socket, sys, time
channel = socket.socket(fileno=int(sys.argv[1]))
"""


def sends(message: msgspec.Struct) -> str:
    """What a process runs to send it."""
    return f"channel.sendall({framed(message)!r})"


def test_a_process_with_useful_lives_is_started_at_once_however_often_it_dies() -> None:
    restarts = Restarts()
    assert [restarts.delay_s(useful=True) for _ in range(100)] == [0.0] * 100


def test_a_process_with_useless_lives_is_started_later_and_later_up_to_half_a_minute() -> None:
    restarts = Restarts()
    assert [restarts.delay_s(useful=False) for _ in range(9)] == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]


@given(st.lists(st.booleans(), max_size=30))
def test_one_useful_life_makes_up_for_all_that_was_before(lives: list[bool]) -> None:
    restarts = Restarts()
    for useful in lives:
        restarts.delay_s(useful=useful)
    assert restarts.delay_s(useful=True) == 0
    assert restarts.delay_s(useful=False) == 0.5


@given(st.lists(st.floats(0, 30), min_size=1, max_size=300))
def test_a_process_that_keeps_dying_is_started_a_bounded_number_of_times(lives_s: list[float]) -> None:
    """At worst a life of ten seconds is followed by three short ones: four starts in 13.5 seconds."""
    restarts, now_s = Restarts(), 0.0
    for starts, life_s in enumerate(lives_s, start=1):
        now_s += life_s + restarts.delay_s(useful=life_s >= USEFUL_LIFE_S)
        assert starts <= 6 + now_s * 4 / 13.5


def hear_all(program: str, *, patiently: bool = True) -> list[FromEngine]:
    """The messages of a process that runs `program`. patiently: no wait for a message is ever cancelled."""
    heard: list[FromEngine] = []

    async def main() -> None:
        child = await Child.spawn("engine-0", [sys.executable, "-c", HEAD + program], from_engine)
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(None if patiently else 0.01):
                    message = await child.hear()
                if message is None:
                    break
                heard.append(message)
        await child.ended()

    asyncio.run(asyncio.wait_for(main(), PATIENCE_S))
    return heard


def test_messages_are_heard_to_the_last_though_the_process_has_ended() -> None:
    assert hear_all(f"{sends(Alive(1.0))}; {sends(PackEnds(1, True))}; os._exit(1)") == [Alive(1.0), PackEnds(1, True)]


def test_a_message_of_any_length_is_heard() -> None:
    long = StartFailed("x" * 1_000_000)
    # A command may not be that long.
    assert hear_all(f"channel.sendall({framed(long)[:-1_000_000]!r} + b'x' * 1_000_000)") == [long]


def test_a_message_in_pieces_is_heard_whole_though_waits_for_it_are_cancelled() -> None:
    program = f"""
for byte in {framed(Alive(1.0)) + framed(Alive(2.0))!r}: channel.sendall(bytes([byte])); time.sleep(0.02)
"""
    assert hear_all(program, patiently=False) == [Alive(1.0), Alive(2.0)]


def test_a_message_that_is_cut_short_by_the_end_is_not_heard() -> None:
    assert hear_all(f"{sends(Alive(1.0))}; channel.sendall({framed(Alive(2.0))[:-1]!r})") == [Alive(1.0)]


def test_a_process_that_sends_a_malformed_message_is_killed_and_the_log_names_the_message(
    caplog: pytest.LogCaptureFixture,
) -> None:
    malformed = Alive("late")  # type: ignore[arg-type]
    assert hear_all(f"{sends(Alive(1.0))}; {sends(malformed)}; time.sleep(1000)") == [Alive(1.0)]
    assert "sent a malformed Alive" in caplog.text


def test_a_process_whose_parent_ended_before_it_could_be_tied_to_it_exits() -> None:
    program = "from model.child_process import die_with; die_with(parent_pid=1); print('alive')"
    child = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (child.returncode, child.stdout) == (1, "")


@pytest.mark.parametrize("said", [b"", framed(Alive(1.0))[:-1]])
def test_a_process_whose_parent_ended_before_it_said_anything_exits(said: bytes) -> None:
    program = "import sys; from service.processes.channel import *; Channel.inherited(sys.argv[1], None).receive()"
    ours, theirs = socket.socketpair()
    with ours, theirs:
        command = [sys.executable, "-c", program, str(theirs.fileno())]
        with subprocess.Popen(command, pass_fds=[theirs.fileno()], stderr=subprocess.PIPE) as child:
            ours.sendall(said)
            ours.close()
            theirs.close()
            assert child.wait(PATIENCE_S) == 1
            assert child.stderr is not None
            assert child.stderr.read() == b""


def test_whoever_is_cancelled_while_a_process_starts_leaves_none_behind() -> None:
    command = [sys.executable, "-c", "import time; time.sleep(60)"]

    async def cancelled_after(turns: int) -> bool:
        starting = asyncio.create_task(Child.spawn("x", command, from_engine))
        for _ in range(turns):
            await asyncio.sleep(0)
        if starting.done():
            child = starting.result()
            child.kill()
            await child.ended()
            return False
        starting.cancel()
        with suppress(asyncio.CancelledError):
            await starting
        return True

    async def main() -> None:
        before, turns = set(children_of(os.getpid())), 0
        while await cancelled_after(turns):
            assert set(children_of(os.getpid())) <= before
            turns += 1
        assert turns > 2

    asyncio.run(main())
