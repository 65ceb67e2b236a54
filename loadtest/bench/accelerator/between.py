"""Patch rows from a process without a device to an emulated one in another, without HTTP: what passing them costs.

Run as a file by both processes, with the modules of this checkout or of one whose processes spoke ZeroMQ.
"""

import asyncio
import importlib
import importlib.util
import json
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_CHECKOUT = Path(__file__).parents[3]
_IN_FLIGHT = 192
_TOKENS, _ROW_BYTES, _WIDTH = 256, 768, 768
_SECRET = "secret"
_WARM_S = 1.0

Rows = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Passed:
    """Processor time an image of 256 tokens: of the engine, and of the process that has it but for writing its rows."""

    images_s: float
    sender_us: float
    engine_us: float


def measured(seconds: float, checkout: Path | None = None) -> Passed:
    """Raises `CalledProcessError`."""
    environment = os.environ | {"PYTHONPATH": str((checkout or _CHECKOUT).resolve())}
    command = [sys.executable, __file__, "sender", str(seconds)]
    answer = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, cwd="/")
    return Passed(**json.loads(answer.stdout.splitlines()[-1]))


def _shares_rows() -> bool:
    return importlib.util.find_spec("service.processes.exchange") is not None


def _facts() -> Any:
    from model.sizing.geometry import Geometry
    from service.limits import ModelFacts

    return ModelFacts(
        name="emulated", dim=_WIDTH, token_dim=_WIDTH, geometry=Geometry.for_naflex(16, 256), default_max_tokens=256,
        parameters=1, fingerprint="", fast_fingerprint="", device="cuda:0", dtype="bfloat16", attention="varlen",
    )  # fmt: skip


async def _engine(address: str) -> None:
    """Serves, and writes its processor time whenever it is asked for it."""
    from service.engine.engine import Engine
    from service.limits import Limits
    from service.metrics import Metrics

    device = _device()
    vectors = partial(device.sampled_vectors, width=_WIDTH)
    limits = Limits(256, 1024, 16_384, 64 * 16_384)
    if _shares_rows():
        from service.processes.exchange.job_server import JobServer

        engine = Engine(device.EmulatedDevice(device.H200_BASE, vectors=vectors), _facts(), limits, metrics=Metrics())
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listening.bind(f"\0{address}")
        listening.listen()
        _server = JobServer(engine, listening, _SECRET, max_row_bytes=2**24)
    else:
        zmq: Any = importlib.import_module("zmq.asyncio")
        earlier: Any = importlib.import_module("service.processes.engine_process")
        runner: Any = device.EmulatedRunner(device.H200_BASE, vectors=vectors)
        router = zmq.Context().socket(importlib.import_module("zmq").ROUTER)
        router.set_hwm(0)
        router.bind(address)
        engine = Engine(runner, _facts(), limits, metrics=Metrics())
        _serving = asyncio.create_task(earlier.JobServer(engine, router, _SECRET).serve())
    _say("up")
    while await asyncio.to_thread(sys.stdin.readline):
        _say(repr(time.process_time()))


def _client(address: str) -> tuple[Any, Callable[[int, int], Rows]]:
    """And what makes arrays for rows."""
    from service.metrics import Metrics
    from service.processes.messages import EngineStatus

    parts: dict[str, Any] = {"name": "sender", "engines": [EngineStatus(address)], "secret": _SECRET}
    if _shares_rows():
        from service.processes.exchange.remote import RemoteEngine
        from service.processes.exchange.slab import Slab

        slab = Slab(2 * _IN_FLIGHT * _TOKENS * _ROW_BYTES)
        return RemoteEngine(_facts(), **parts, slab=slab, metrics=Metrics()), slab.rows
    earlier: Any = importlib.import_module("service.processes.remote")
    return earlier.RemoteEngine(_facts(), **parts, metrics=Metrics()), lambda *shape: np.empty(shape, np.uint8)


class _EngineProcess:
    """Runs `_engine` in a process of its own."""

    def __init__(self, address: str) -> None:
        command = [sys.executable, __file__, "engine", address]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._line() == "up"

    def cpu_s(self) -> float:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return float(self._line())

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()


class _Sender:
    """Keeps images in flight."""

    def __init__(self, client: Any, new_rows: Callable[[int, int], Rows]) -> None:
        self._client, self._new_rows = client, new_rows
        self._picture = np.random.default_rng(0).integers(0, 256, (_TOKENS, _ROW_BYTES), dtype=np.uint8)
        self.images, self._writing_s, self.ended = 0, 0.0, False

    def cpu_s(self) -> float:
        return time.process_time() - self._writing_s

    async def run(self) -> None:
        from service.engine.client import ImageJob

        while not self.ended:
            began_s = time.thread_time()
            rows = self._new_rows(_TOKENS, _ROW_BYTES)
            rows[...] = self._picture
            self._writing_s += time.thread_time() - began_s
            await self._client.submit(ImageJob(rows, ((16, 16),), 256, time.monotonic() + 600, False))
            self.images += 1


async def _send(seconds: float) -> Passed:
    name = f"packlight-bench-{secrets.token_hex(8)}"
    address = name if _shares_rows() else f"ipc://@{name}"
    engine = _EngineProcess(address)
    client, new_rows = _client(address)
    client.start()
    sender = _Sender(client, new_rows)
    callers = [asyncio.create_task(sender.run()) for _ in range(_IN_FLIGHT)]
    await asyncio.sleep(_WARM_S)
    began_s, images, mine_s, engines_s = time.perf_counter(), sender.images, sender.cpu_s(), engine.cpu_s()
    await asyncio.sleep(seconds)
    took_s, done = time.perf_counter() - began_s, sender.images - images
    mine_s, engines_s = sender.cpu_s() - mine_s, engine.cpu_s() - engines_s
    sender.ended = True
    await asyncio.gather(*callers)
    client.close()
    engine.end()
    return Passed(done / took_s, mine_s / done * 1e6, engines_s / done * 1e6)


def _device() -> Any:
    """By the path of its file: an earlier checkout has none."""
    spec = importlib.util.spec_from_file_location("emulated_device", Path(__file__).with_name("device.py"))
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201


if __name__ == "__main__":
    # The folder of this file comes first, and holds modules with common names.
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).parent.resolve()]
    if sys.argv[1] == "engine":
        asyncio.run(_engine(sys.argv[2]))
    else:
        import uvloop

        _say(json.dumps(asdict(uvloop.run(_send(float(sys.argv[2]))))))
