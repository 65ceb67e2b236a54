"""The faults of a soak. Each strikes the scene, and ends when its cause is gone.

excused: what a request may get because of it, beside the answer that it asked for.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from loadtest.bench.servers.running import end_with_parent
from loadtest.bench.soak.scene import FILES, Scene
from loadtest.sending.records import CONNECTION

_OVERLOADED, _UNAVAILABLE = 429, 503
# Less than the server takes for a hang.
_STOPPED_S, _STALLED_S = 4.0, 6.0
# More than that: until the process has been killed by its parent.
_REPLACED_S = 45.0
_SLOW_DISK_S, _FULL_S, _IDLE_S, _STEP_S, _AWAY_S = 10.0, 8.0, 8.0, 4.0, 5.0
_WRITERS = 3
_HANGING_UP = 100
# Writes and syncs four megabytes again and again. Arguments: the file.
_WRITER = """
import os, sys
file = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
while True:
    os.pwrite(file, bytes(4 << 20), 0)
    os.fsync(file)
"""


@dataclass(frozen=True, slots=True)
class Fault:
    """sign: its letter in the drawing. strike: says why it was in vain. needs: what the scene must not lack.
    replaces_engine: another process takes the engine's place."""

    name: str
    sign: str
    about: str
    strike: Callable[[Scene], Awaitable[str | None]]
    excused: frozenset[int] = frozenset()
    needs: str = ""
    replaces_engine: bool = False


async def _kill_engine(scene: Scene) -> None:
    _signal(scene.youngest("engine"), signal.SIGKILL)


async def _kill_http(scene: Scene) -> None:
    # Always the youngest, so that one of several lives through the whole run, and shows what grows.
    _signal(scene.youngest("http"), signal.SIGKILL)


async def _stop_engine(scene: Scene) -> None:
    await _stopped(scene.youngest("engine"), _STOPPED_S)


async def _stop_http(scene: Scene) -> None:
    await _stopped(scene.youngest("http"), _STOPPED_S)


async def _stop_supervisor(scene: Scene) -> None:
    await _stopped(scene.server.pid, _STOPPED_S)


async def _hang_engine(scene: Scene) -> str | None:
    return await _hung(scene, scene.youngest("engine"))


async def _hang_http(scene: Scene) -> str | None:
    return await _hung(scene, scene.youngest("http"))


async def _hung(scene: Scene, pid: int | None) -> str | None:
    """Ends when the process is gone."""
    _signal(pid, signal.SIGSTOP)
    if await _gone(scene, pid):
        return None
    _signal(pid, signal.SIGCONT)
    return "the process was not replaced"


async def _gone(scene: Scene, pid: int | None) -> bool:
    """Waits until a process of the server has ended; false if it stays."""
    try:
        async with asyncio.timeout(_REPLACED_S):
            while any(use.pid == pid for use in scene.processes()):  # noqa: ASYNC110 - no event tells of it
                await asyncio.sleep(0.1)
    except TimeoutError:
        return False
    return True


async def _slow_disk(scene: Scene) -> str | None:
    """Others write and sync on the disk of model, log and code, the model's file has left the page cache, and the
    server reads it again meanwhile."""
    files = [scene.folder / f"noise-{number}" for number in range(_WRITERS)]
    command = [sys.executable, "-c", _WRITER]
    writers = [await asyncio.create_subprocess_exec(*command, str(file), preexec_fn=end_with_parent) for file in files]
    try:
        for path in scene.model_files():
            _forget(path)
        missed = await _reload(scene)
        await asyncio.sleep(_SLOW_DISK_S)
    finally:
        for writer in writers:
            writer.kill()
            await writer.wait()
        for file in files:
            file.unlink(missing_ok=True)
    return missed


async def _fill_tmp(scene: Scene) -> None:
    """An HTTP process is killed meanwhile, so that another starts without room."""
    path = scene.tmp / "filled"
    try:
        _fill(path)
        await _kill_http(scene)
        await asyncio.sleep(_FULL_S)
    finally:
        path.unlink(missing_ok=True)


def _fill(path: Path) -> None:
    with suppress(OSError), open(path, "wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


async def _idle_connections(scene: Scene) -> None:
    """More connections than the server's processes may have files, which send nothing."""
    async with asyncio.TaskGroup() as group:
        for _ in range(FILES * 3):
            group.create_task(_idle(scene.server.port))


async def _idle(port: int) -> None:
    with suppress(OSError):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with suppress(TimeoutError):
            async with asyncio.timeout(_IDLE_S):
                # Until the server closes it.
                await reader.read()
                await asyncio.sleep(_IDLE_S)
        writer.close()


async def _step_clock(scene: Scene) -> None:
    """An hour ahead, two back, and right again."""
    assert scene.clock
    for ahead_s in (3600, -3600, 0):
        scene.clock.set(ahead_s)
        await asyncio.sleep(_STEP_S)


async def _stop_store(scene: Scene) -> None:
    assert scene.store
    await _stopped(scene.store.pid, _STOPPED_S)


async def _kill_store(scene: Scene) -> None:
    """It comes back empty."""
    assert scene.store
    scene.store.kill()
    await asyncio.sleep(_AWAY_S)
    await asyncio.to_thread(scene.store.start)


async def _stop_log(scene: Scene) -> None:
    """What takes the log stands still, as a log driver does whose disk hangs."""
    await _stopped(scene.log_writer.pid, _STALLED_S)


async def _reload(scene: Scene) -> str | None:
    """No fault, but an operation under which nothing may be lost. Ends when the model before is gone."""
    engine = scene.youngest("engine")
    _signal(scene.server.pid, signal.SIGHUP)
    return None if await _gone(scene, engine) else "the model was not loaded again"


async def _hang_up(scene: Scene) -> None:
    """Clients that announce an upload, send some of it, and are gone."""
    async with asyncio.TaskGroup() as group:
        for _ in range(_HANGING_UP):
            group.create_task(_half_an_upload(scene.server.port))


async def _half_an_upload(port: int) -> None:
    with suppress(OSError):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST /embed HTTP/1.1\r\nHost: soak\r\nContent-Type: image/jpeg\r\nContent-Length: 99999\r\n\r\n")
        writer.write(bytes(20_000))
        await writer.drain()
        await asyncio.sleep(0.5)
        writer.transport.abort()


FAULTS: Sequence[Fault] = (
    Fault("engine killed", "E", "SIGKILL", _kill_engine, frozenset({_OVERLOADED, _UNAVAILABLE}),
          replaces_engine=True),
    Fault("HTTP process killed", "H", "SIGKILL", _kill_http, frozenset({CONNECTION})),
    Fault("engine stopped", "S", "SIGSTOP for 4 s", _stop_engine, frozenset({_OVERLOADED})),
    Fault("HTTP process stopped", "P", "SIGSTOP for 4 s", _stop_http),
    Fault("supervisor stopped", "U", "SIGSTOP for 4 s", _stop_supervisor),
    Fault("engine hung", "G", "SIGSTOP until it is replaced", _hang_engine, frozenset({_OVERLOADED, _UNAVAILABLE}),
          replaces_engine=True),
    Fault("HTTP process hung", "Q", "SIGSTOP until it is replaced", _hang_http, frozenset({CONNECTION})),
    Fault("slow disk", "D", "three programs write and sync; a reload reads the model from it", _slow_disk,
          replaces_engine=True),
    Fault("temporary folder full", "F", "and an HTTP process killed", _fill_tmp, frozenset({CONNECTION}),
          "temporary folder"),
    Fault("descriptors run out", "I", f"{FILES * 3} idle connections, {FILES} files a process", _idle_connections,
          frozenset({_UNAVAILABLE, CONNECTION})),
    Fault("clock steps", "T", "an hour ahead, two back, right again", _step_clock, needs="clock"),
    Fault("store stopped", "R", "SIGSTOP for 4 s", _stop_store, needs="store"),
    Fault("store killed", "X", "SIGKILL, away for 5 s, back empty", _kill_store, needs="store"),
    Fault("log stalled", "L", "what takes the log is stopped for 6 s", _stop_log),
    Fault("model reloaded", "N", "SIGHUP", _reload, replaces_engine=True),
    Fault("clients hang up", "C", f"{_HANGING_UP} amid their uploads", _hang_up, frozenset({_OVERLOADED})),
)  # fmt: skip


def named(names: Sequence[str]) -> list[Fault]:
    """Raises `ValueError` for a name that no fault has; `engine-killed` and `engine killed` are one."""
    by_name = {fault.name.lower().replace(" ", "-"): fault for fault in FAULTS}
    wanted = [name.lower().replace(" ", "-") for name in names]
    if unknown := [name for name in wanted if name not in by_name]:
        raise ValueError(f"no fault is called {', '.join(unknown)}; there are {', '.join(by_name)}")
    return [by_name[name] for name in wanted]


async def _stopped(pid: int | None, seconds: float) -> None:
    _signal(pid, signal.SIGSTOP)
    try:
        await asyncio.sleep(seconds)
    finally:
        _signal(pid, signal.SIGCONT)


def _signal(pid: int | None, number: signal.Signals) -> None:
    """Does nothing if the process has ended, or if there is none."""
    if pid is not None:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _forget(path: Path) -> None:
    """Drops a file from the page cache, as far as nobody has it mapped."""
    with open(path, "rb") as file, suppress(OSError):
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
