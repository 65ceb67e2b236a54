"""The keepers of processes, with small processes that do as a test says."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from msgspec import msgpack

from service.processes import child
from service.processes import http_keeper as http_keeper_module
from service.processes.channel import LENGTH_BYTES
from service.processes.engine_keeper import CannotStart, EngineKeeper
from service.processes.http_keeper import HttpKeeper
from service.processes.messages import EngineUp, ServeModel, StartEngine, StartHttp, Stop
from tests.service.processes.test_messages import FACTS
from tests.service.running import PATIENCE_S, until

# What all programs begin with. A child gets the number of its channel as its last argument, and a start message. It
# imports nothing of the service: that takes ten times as long as all that most of the programs do.
HEAD = f"""
import os, socket, sys, time
from msgspec import msgpack
from model.child_process import die_with
channel = socket.socket(fileno=int(sys.argv[1])); channel.set_inheritable(False); received = channel.makefile("rb")
def hear(): return msgpack.decode(received.read(int.from_bytes(received.read({LENGTH_BYTES}))))
def send(kind, **fields):
    data = msgpack.encode({{"type": kind}} | fields)
    channel.sendall(len(data).to_bytes({LENGTH_BYTES}) + data)
def begin(*names, number=1, predicted_s=None): send("PackBegins", number=number, names=names, predicted_s=predicted_s)
def end(number=1, succeeded=True): send("PackEnds", number=number, succeeded=succeeded)
def lies(what): send("Untrue", what=what)
def alive(): send("Alive", at_s=time.monotonic()); time.sleep(0.1)
def ready(**others): send("Ready", facts={msgpack.decode(msgpack.encode(FACTS))} | others, address=str(os.getpid()))
start = hear(); die_with(start["parent_pid"])
"""


# On a loaded machine a process that ends at once may take ten seconds to end.
ENDLESS_S = 1e6


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that was of no use is started again after a tenth of the usual time."""
    monkeypatch.setattr(child, "_FIRST_DELAY_S", 0.05)


class Bench:
    """An engine that runs a program, and what was told of it."""

    def __init__(self, program: str, hang_after_s: float = 5.0, untrue: str | None = None) -> None:
        self.told: list[tuple[object, ...]] = []
        self.changed = asyncio.Event()
        command = [sys.executable, "-c", HEAD + program]
        self.keeper = EngineKeeper(
            0, command, StartEngine("engine-0", os.getpid(), "secret", {}), hang_after_s=hang_after_s, untrue=untrue,
            on_up=lambda number, address: self._tell("up"),
            on_down=lambda number, names, backing_off, untrue: self._tell(
                "down", list(names), backing_off, *([untrue] if untrue else [])
            ),
        )  # fmt: skip
        self.task = asyncio.create_task(self.keeper.keep())

    def _tell(self, *event: object) -> None:
        self.told.append(event)
        self.changed.set()

    async def hears(self, events: int) -> None:
        while len(self.told) < events:
            self.changed.clear()
            await self.changed.wait()


def run(main: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(PATIENCE_S):
            await main()

    asyncio.run(bounded())


async def ended(bench: Bench) -> bool:
    bench.task.cancel()
    await asyncio.gather(bench.task, return_exceptions=True)
    return await bench.keeper.end(within_s=5)


def told_of(program: str, events: int, **options: Any) -> list[tuple[object, ...]]:
    """The first events that are told of an engine."""
    told: list[tuple[object, ...]] = []

    async def main() -> None:
        bench = Bench(program, **options)
        await bench.hears(events)
        told.extend(bench.told[:events])
        bench.keeper.kill()
        await ended(bench)

    run(main)
    return told


def test_an_engine_that_dies_in_a_pack_leaves_the_names_of_its_images():
    assert told_of('ready(); begin("a", "b"); os._exit(1)', 3) == [("up",), ("down", ["a", "b"], True), ("up",)]


def test_an_engine_that_has_run_a_pack_is_started_again_at_once():
    program = 'ready(); begin("a"); end(); os._exit(1)'
    assert told_of(program, 3) == [("up",), ("down", [], False), ("up",)]


def test_an_engine_whose_canary_fails_suspects_no_image_and_its_successor_has_to_pass_one():
    program = """
if start["replaces"] != "untrue":
    ready(); begin("a"); end(); begin("b"); lies("page has the vector of icon"); os._exit(4)
begin(); end(); ready(); begin("c"); os._exit(1)
"""
    wrong = "page has the vector of icon"
    assert told_of(program, 4) == [("up",), ("down", [], False, wrong), ("up",), ("down", ["c"], True)]


def test_a_first_engine_whose_canary_fails_at_once_cannot_start_and_is_not_said_to_be_a_successor():
    async def main() -> None:
        bench = Bench('begin(); lies("page has the vector of icon"); os._exit(4)')
        with pytest.raises(CannotStart, match="^the canary of engine-0 has failed before it was ready: page has"):
            await bench.task

    run(main)


def test_an_engine_whose_canary_fails_again_is_not_up_and_is_started_later():
    program = """
if not start["replaces"]:
    ready(); lies("first"); os._exit(4)
begin(); lies("second"); os._exit(4)
"""
    assert told_of(program, 3) == [("up",), ("down", [], True, "first"), ("down", [], True, "second")]


def test_an_engine_of_a_model_that_is_loaded_again_for_wrong_vectors_has_to_show_that_it_is_right():
    program = """
if start["replaces"] == "untrue": begin(); end(); ready()
begin("a"); os._exit(1)
"""
    assert told_of(program, 2, untrue="it lied") == [("up",), ("down", ["a"], True)]


def test_a_pack_of_the_canary_alone_is_no_useful_work():
    program = 'ready(); begin(); end(); begin("a"); os._exit(1)'
    assert told_of(program, 2) == [("up",), ("down", ["a"], True)]


def test_a_pack_that_failed_is_no_useful_work():
    program = 'ready(); begin("a"); end(succeeded=False); os._exit(1)'
    assert told_of(program, 2) == [("up",), ("down", [], True)]


def test_an_engine_that_falls_silent_is_killed():
    assert told_of("ready(); time.sleep(1000)", 2, hang_after_s=1) == [("up",), ("down", [], True)]


@pytest.mark.parametrize("predicted_s", [None, 0.01])
def test_a_pack_that_takes_too_long_is_ended_though_the_process_is_alive(predicted_s: float | None):
    program = f"""
ready(); begin("a", predicted_s={predicted_s})
while True: alive()
"""
    assert told_of(program, 2, hang_after_s=1) == [("up",), ("down", ["a"], True)]


def test_a_pack_may_take_ten_times_what_was_predicted():
    program = """
ready(); begin("a", predicted_s=0.3)
for _ in range(15): alive()
end(); os._exit(1)
"""
    assert told_of(program, 2, hang_after_s=1) == [("up",), ("down", [], False)]


def test_an_engine_that_dies_leaves_the_names_of_the_packs_that_have_not_ended_in_order():
    begins = 'begin("b", number=3); begin("a", number=4); begin("c", "d", number=5)'
    program = f"ready(); {begins}; end(4); os._exit(1)"
    assert told_of(program, 2) == [("up",), ("down", ["b", "c", "d"], False)]


def test_the_time_for_which_the_whole_server_is_paused_is_no_time_of_a_pack():
    told: list[tuple[object, ...]] = []
    program = """
ready(); begin("a"); alive(); hear()
send("Alive", at_s=time.monotonic() + 30); end(); os._exit(1)
"""

    async def main() -> None:
        bench = Bench(program, hang_after_s=20)
        await bench.hears(1)
        # As after a pause, the loop finds that its wait took so much longer.
        asyncio.get_running_loop().time = lambda: time.monotonic() + 30  # type: ignore[method-assign]
        assert bench.keeper._child
        bench.keeper._child.tell(Stop())
        await bench.hears(2)
        told.extend(bench.told)
        await ended(bench)

    run(main)
    assert told == [("up",), ("down", [], False)]


@pytest.mark.slow
def test_the_time_of_a_pack_is_counted_from_the_end_of_the_one_before():
    program = """
ready(); begin("a", predicted_s=0.3); begin("b", number=2, predicted_s=0.3)
for _ in range(15): alive()
end()
for _ in range(15): alive()
end(2); os._exit(1)
"""
    assert told_of(program, 2, hang_after_s=1) == [("up",), ("down", [], False)]


def test_an_engine_that_cannot_be_started_again_is_tried_later_and_its_reason_logged(caplog: pytest.LogCaptureFixture):
    program = """
if start["replaces"] is None: ready(); begin("a"); end()
else: send("StartFailed", reason="the folder is gone")
os._exit(1)
"""
    assert told_of(program, 3) == [("up",), ("down", [], False), ("down", [], True)]
    assert "the folder is gone" in caplog.text


def test_an_engine_that_comes_back_with_another_model_is_not_used(caplog: pytest.LogCaptureFixture):
    program = """
if start["replaces"] is None: ready(); os._exit(1)
ready(fingerprint="another"); time.sleep(1000)
"""
    assert told_of(program, 3) == [("up",), ("down", [], True), ("down", [], True)]
    assert "another fingerprint" in caplog.text


def test_an_engine_that_sends_a_malformed_message_is_replaced(caplog: pytest.LogCaptureFixture):
    program = 'ready(); begin("a"); end(succeeded="well"); time.sleep(1000)'
    assert told_of(program, 3) == [("up",), ("down", ["a"], True), ("up",)]
    assert "malformed PackEnds" in caplog.text


def test_a_system_without_room_for_a_process_is_asked_again(monkeypatch: pytest.MonkeyPatch):
    async def main() -> None:
        bench = Bench("ready(); os._exit(1)")
        await bench.hears(1)
        real = asyncio.create_subprocess_exec
        refusals = [OSError(24, "Too many open files")]

        async def spawn(*given: object, **options: object) -> object:
            if refusals:
                raise refusals.pop()
            return await real(*given, **options)  # type: ignore[arg-type]

        monkeypatch.setattr(asyncio, "create_subprocess_exec", spawn)
        await bench.hears(4)
        assert [event[0] for event in bench.told[:4]] == ["up", "down", "down", "up"]
        bench.keeper.kill()
        await ended(bench)

    run(main)


def test_the_next_life_knows_how_the_one_before_ended(caplog: pytest.LogCaptureFixture):
    program = """
if start["replaces"] is None: ready(); time.sleep(1000)
send("StartFailed", reason=f"it replaces one that {start['replaces']}")
"""
    assert told_of(program, 3, hang_after_s=1) == [("up",), ("down", [], True), ("down", [], True)]
    assert "it replaces one that hung" in caplog.text


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ('send("StartFailed", reason="no such folder")', "no such folder"),
        ("os._exit(7)", "status 7"),
        ("os.kill(os.getpid(), 11)", "SIGSEGV"),
    ],
)
def test_an_engine_that_never_was_ready_cannot_start_and_the_reason_is_told(program: str, reason: str):
    async def main() -> None:
        bench = Bench(program)
        with pytest.raises(CannotStart, match=reason):
            await bench.task

    run(main)


def test_an_engine_that_is_told_to_stop_ends_by_itself():
    async def main() -> None:
        bench = Bench("ready(); assert hear()['type'] == 'Stop'")
        await bench.hears(1)
        assert await ended(bench)

    run(main)


def test_an_engine_that_will_not_stop_is_killed():
    async def main() -> None:
        bench = Bench("ready(); time.sleep(1000)", hang_after_s=100)
        await bench.hears(1)
        bench.task.cancel()
        await asyncio.gather(bench.task, return_exceptions=True)
        assert not await bench.keeper.end(within_s=0.5)

    run(main)


class HttpBench:
    """The keeper of an HTTP process that runs a program, in which `start["name"]` is the number of its life."""

    def __init__(self, program: str, *, begins: bool = True, hang_after_s: float = 100.0) -> None:
        self.lives = 0
        self.model = 0
        command = [sys.executable, "-c", HEAD + program]
        self.keeper = HttpKeeper("http-0", command, self._start, listening_fd=2, hang_after_s=hang_after_s)
        if begins:
            self.keeper.begin()
        self.task = asyncio.create_task(self.keeper.keep())

    def _start(self) -> StartHttp:
        self.lives += 1
        return StartHttp(str(self.lives), os.getpid(), "secret", {}, ServeModel(self.model, FACTS, []), 2)

    async def lives_reach(self, lives: int) -> None:
        while self.lives < lives:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def test_an_http_process_that_falls_silent_is_killed_and_replaced(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(http_keeper_module, "_LAST_WORDS_S", 0.0)

    async def main() -> None:
        bench = HttpBench('send("Listening", address="here"); time.sleep(1000)', hang_after_s=0.5)
        await bench.lives_reach(2)
        bench.task.cancel()
        await asyncio.gather(bench.task, return_exceptions=True)
        await bench.keeper.end()

    run(main)


def test_an_http_process_whose_later_starts_take_longer_is_given_more_time(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(http_keeper_module, "_PATIENCE", 0.0)
    for name, value in [("_SLICE_S", 0.05), ("_FIRST_DELAY_S", 0.0)]:
        monkeypatch.setattr(child, name, value)
    program = """
if start["name"] != "1": time.sleep(0.5)
send("Listening", address="here"); os._exit(1)
"""

    async def main() -> None:
        bench = HttpBench(program, hang_after_s=0.2)
        while caplog.text.count(") died: ") < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        bench.task.cancel()
        await asyncio.gather(bench.task, return_exceptions=True)
        await bench.keeper.end()

    run(main)
    assert ") hung: " in caplog.text


def test_an_http_process_that_dies_is_started_again_and_told_what_it_is_told():
    program = """
send("Listening", address="here")
if start["name"] == "1": os._exit(1)
assert hear() == {"type": "EngineUp", "model": 0, "engine": 0, "address": "there"}
assert hear()["type"] == "Stop"
"""

    async def main() -> None:
        bench = HttpBench(program)
        assert await bench.keeper.listening == "here"
        await bench.lives_reach(2)
        bench.keeper.tell(EngineUp(0, 0, "there"))
        bench.keeper.stop()
        await bench.task

    run(main)


@pytest.mark.parametrize("answer", ["send('Moved', model=1)", "os._exit(1)"])
def test_a_process_has_moved_when_it_says_so_or_when_its_successor_starts_with_the_newer_model(answer: str):
    program = f"""
send("Listening", address="here")
if start["served"]["number"] == 0:
    assert hear()["number"] == 1
    {answer}
assert hear()["type"] == "Stop"
"""

    async def main() -> None:
        bench = HttpBench(program)
        await bench.keeper.listening
        moved = asyncio.create_task(bench.keeper.moved(1))
        await asyncio.sleep(0)
        assert not moved.done()
        bench.model = 1
        bench.keeper.tell(ServeModel(1, FACTS, []))
        await moved
        await bench.lives_reach(1 if "Moved" in answer else 2)
        bench.keeper.stop()
        await bench.task

    run(main)


@pytest.mark.parametrize(("useful_s", "waits"), [(ENDLESS_S, ["0.05 s", "0.1 s", "0.2 s"]), (0.0, ["at once"] * 3)])
def test_an_http_process_whose_life_was_short_is_started_later_and_later_though_it_listened(
    useful_s: float, waits: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(http_keeper_module, "USEFUL_LIFE_S", useful_s)

    async def main() -> None:
        bench = HttpBench('send("Listening", address="here"); os._exit(1)')
        await bench.lives_reach(4)
        bench.keeper.stop()
        await bench.task

    run(main)
    assert [line.rpartition("again ")[2].removeprefix("in ") for line in caplog.messages[:3]] == waits


def test_an_http_process_that_waits_for_its_next_start_can_be_stopped_at_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(http_keeper_module, "USEFUL_LIFE_S", ENDLESS_S)
    for name in ("_FIRST_DELAY_S", "_LONGEST_DELAY_S"):
        monkeypatch.setattr(child, name, ENDLESS_S)

    async def main() -> None:
        bench = HttpBench('send("Listening", address="here"); os._exit(1)')
        await bench.lives_reach(1)
        await asyncio.to_thread(until, lambda: "starting it again" in caplog.text)
        bench.keeper.stop()
        await bench.task
        assert bench.lives == 1

    run(main)


def test_an_http_process_is_started_before_it_may_begin_and_then_told_what_to_serve_first():
    async def main() -> None:
        bench = HttpBench('send("Listening", address="here"); assert hear()["type"] == "Stop"', begins=False)
        while bench.keeper.pid is None:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        bench.keeper.tell(EngineUp(0, 0, "too early"))
        assert bench.lives == 0
        bench.keeper.begin()
        assert await bench.keeper.listening == "here"
        bench.keeper.stop()
        await bench.task

    run(main)


def test_an_http_process_that_never_listened_cannot_start():
    async def main() -> None:
        with pytest.raises(CannotStart, match="status 9"):
            await HttpBench("os._exit(9)").task

    run(main)


def test_an_http_process_that_dies_before_it_may_begin_cannot_start():
    """It is not noticed only when the engines have loaded the model, which may take minutes."""

    async def main() -> None:
        bench = HttpBench("", begins=False)
        while bench.keeper.pid is None:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        os.kill(bench.keeper.pid, signal.SIGKILL)
        with pytest.raises(CannotStart, match="died: it ended with signal SIGKILL before it listened"):
            await bench.task

    run(main)


def test_an_http_process_that_is_killed_has_ended_before_the_server_does():
    async def main() -> None:
        bench = HttpBench("time.sleep(1000)", begins=False)
        while bench.keeper.pid is None:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        bench.task.cancel()
        await asyncio.gather(bench.task, return_exceptions=True)
        await bench.keeper.end()
        with pytest.raises(ProcessLookupError):
            os.kill(bench.keeper.pid, 0)

    run(main)
