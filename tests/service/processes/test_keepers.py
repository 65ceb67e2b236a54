"""What keeps processes running, with small processes that do as a test says."""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from service.processes.engine_keeper import CannotStart, EngineKeeper
from service.processes.http_keeper import HttpKeeper
from tests.service.running import PATIENCE_S, until

# A child gets its channel's number as its last argument, and a configuration as the first line.
HEAD = """
import os, sys, time
from service.processes.channel import Channel, die_with
channel = Channel.inherited(sys.argv[1]); config = channel.receive(); die_with(config["parent"])
def ready(): channel.send({"ready": {"life": config["replaces"]}, "address": str(os.getpid())})
"""


class Bench:
    """An engine that runs a program, and what was told of it."""

    def __init__(self, program: str, hang_after_s: float = 5.0) -> None:
        self.told: list[tuple[object, ...]] = []
        self.changed = asyncio.Event()
        command = [sys.executable, "-c", HEAD + program]
        self.keeper = EngineKeeper(
            0, command, {"name": "engine-0", "parent": os.getpid()}, hang_after_s=hang_after_s,
            on_up=lambda number, address: self._tell("up"),
            on_down=lambda number, names, backing_off: self._tell("down", list(names), backing_off),
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


def told_of(program: str, events: int, **options: float) -> list[tuple[object, ...]]:
    """What is told of an engine until there were so many events."""
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
    program = 'ready(); channel.send({"begins": ["a", "b"], "predicted_s": None}); os._exit(1)'
    assert told_of(program, 3) == [("up",), ("down", ["a", "b"], True), ("up",)]


def test_an_engine_that_has_run_a_pack_is_started_again_at_once():
    program = """
ready(); channel.send({"begins": ["a"], "predicted_s": None}); channel.send({"ends": True})
os._exit(1)
"""
    assert told_of(program, 3) == [("up",), ("down", [], False), ("up",)]


def test_a_pack_that_failed_is_no_useful_work():
    program = """
ready(); channel.send({"begins": ["a"], "predicted_s": None}); channel.send({"ends": False})
os._exit(1)
"""
    assert told_of(program, 2) == [("up",), ("down", [], True)]


def test_an_engine_that_falls_silent_is_killed():
    assert told_of("ready(); time.sleep(1000)", 2, hang_after_s=1) == [("up",), ("down", [], True)]


@pytest.mark.parametrize("predicted_s", [None, 0.01])
def test_a_pack_that_takes_too_long_is_ended_though_the_process_is_alive(predicted_s: float | None):
    program = f"""
ready(); channel.send({{"begins": ["a"], "predicted_s": {predicted_s}}})
while True: channel.send({{"alive": time.monotonic()}}); time.sleep(0.1)
"""
    assert told_of(program, 2, hang_after_s=1) == [("up",), ("down", ["a"], True)]


def test_a_pack_may_take_ten_times_what_was_predicted():
    program = """
ready(); channel.send({"begins": ["a"], "predicted_s": 0.3})
for _ in range(15): channel.send({"alive": time.monotonic()}); time.sleep(0.1)
channel.send({"ends": True}); os._exit(1)
"""
    assert told_of(program, 2, hang_after_s=1) == [("up",), ("down", [], False)]


def test_an_engine_that_cannot_be_started_again_is_tried_later_and_its_reason_logged(caplog: pytest.LogCaptureFixture):
    program = """
if config["replaces"] is None: ready(); channel.send({"ends": True})
else: channel.send({"failed": "the folder is gone"})
os._exit(1)
"""
    assert told_of(program, 3) == [("up",), ("down", [], False), ("down", [], True)]
    assert "the folder is gone" in caplog.text


def test_an_engine_that_comes_back_with_another_model_is_not_used(caplog: pytest.LogCaptureFixture):
    program = """
if config["replaces"] is None: ready(); os._exit(1)
channel.send({"ready": {"fingerprint": "another"}, "address": "here"}); time.sleep(1000)
"""
    assert told_of(program, 3) == [("up",), ("down", [], True), ("down", [], True)]
    assert "another fingerprint" in caplog.text


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


def test_the_next_life_knows_what_became_of_the_one_before():
    async def main() -> None:
        bench = Bench("ready(); time.sleep(1000)", hang_after_s=1)
        await bench.hears(3)
        assert (await bench.keeper.facts) == {"life": None}
        assert bench.keeper.address is not None
        bench.keeper.kill()
        await ended(bench)

    run(main)


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ('channel.send({"failed": "no such folder"})', "no such folder"),
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
        bench = Bench("ready(); assert channel.receive() == {'stop': True}")
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


def http_keeper(program: str, folder: Path) -> HttpKeeper:
    starts = folder / "starts"

    def config() -> dict[str, object]:
        count = len(starts.read_text()) if starts.exists() else 0
        starts.write_text("x" * (count + 1))
        return {"name": "http-0", "parent": os.getpid(), "replaces": count}

    return HttpKeeper("http-0", [sys.executable, "-c", HEAD + program], config, descriptor=2)


def test_an_http_process_that_dies_is_started_again_and_told_what_it_is_told(tmp_path: Path):
    program = """
channel.send({"listening": "here"})
if config["replaces"] == 0: os._exit(1)
assert channel.receive() == {"engine": 0}
assert channel.receive() == {"stop": True}
"""

    async def main() -> None:
        keeper = http_keeper(program, tmp_path)
        task = asyncio.create_task(keeper.keep())
        assert await keeper.listening == "here"
        await asyncio.to_thread(until, lambda: len((tmp_path / "starts").read_text()) == 2)
        await asyncio.sleep(0.2)
        keeper.tell({"engine": 0})
        keeper.stop()
        await task

    run(main)


def test_an_http_process_that_never_listened_cannot_start(tmp_path: Path):
    async def main() -> None:
        with pytest.raises(CannotStart, match="status 9"):
            await http_keeper("os._exit(9)", tmp_path).keep()

    run(main)
