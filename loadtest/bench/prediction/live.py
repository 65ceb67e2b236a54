"""A real server under a load: what it answered, which packs it ran, what its processes and others took of the cores."""

import http.client
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from loadtest.bench.servers.processes import process_uses
from loadtest.bench.servers.running import Running, free_port, running
from loadtest.sending.fleet import Fleet
from loadtest.sending.records import Records
from loadtest.sending.sender import Load
from loadtest.traffic.bodies import Adapter
from loadtest.traffic.corpus import Corpus

Device = Literal["emulated", "cpu"]

# The forward of an engine has one thread, so that an engine is to a core what it is elsewhere to a device.
_ENVIRONMENT = {"OMP_NUM_THREADS": "1"}


@dataclass(frozen=True, slots=True)
class Pack:
    """One that ran. lengths: the tokens of each image. seconds: to arrange and to run it."""

    lengths: tuple[int, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class Seen:
    """templates: the number in its corpus of each request. cpu_s: of the server's processes by name, and `sender`.
    others: cores that programs beside this benchmark took."""

    records: Records
    templates: list[int]
    seconds: float
    cpu_s: dict[str, float]
    others: float


class Live:
    """A server, and a sender of the requests of some corpora."""

    def __init__(self, server: Running, fleet: Fleet, corpora: Sequence[Corpus]) -> None:
        self.server, self._fleet = server, fleet
        self._first = {
            id(corpus): sum(len(each.requests) for each in corpora[:place]) for place, corpus in enumerate(corpora)
        }

    def send(
        self, corpus: Corpus, order: Sequence[int], *, seconds: float, due_s: Any = None, concurrency: int = 0
    ) -> Seen:
        """Requests of a corpus by their numbers: at `due_s`, or so many in flight without pause."""
        first = self._first[id(corpus)]
        load = Load(
            0.0, seconds, [first + number for number in order], range(len(order)), due_s, concurrency, timeout_s=60.0
        )
        before, began_s, machine_s = self._cpu_s(), time.monotonic(), _machine_busy_s()
        records = self._fleet.run(load).records
        took_s = time.monotonic() - began_s
        spent = self._cpu_s()
        spent.subtract(before)
        others_s = _machine_busy_s() - machine_s - sum(spent.values())
        return Seen(records, (records.template - first).tolist(), took_s, dict(spent), max(0.0, others_s / took_s))

    def packs(self) -> list[Pack]:
        """The last 64 packs, the oldest first."""
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=10)
        try:
            connection.request("GET", "/stats")
            line = json.loads(connection.getresponse().readline())
        finally:
            connection.close()
        return [
            Pack(tuple(map(sum, pack["images"])), (pack["pack_ms"] + pack["forward_ms"]) / 1e3)
            for pack in line["packs"]
        ]

    def _cpu_s(self) -> "Counter[str]":
        spent: Counter[str] = Counter()
        for use in process_uses(self.server.pid):
            spent[use.name] += use.cpu_s  # type: ignore[assignment]
        # The sender is a child of this process, as the server is.
        mine = process_uses(os.getpid())
        servers = {name: spent[name] for name in spent}
        spent["sender"] = sum(use.cpu_s for use in mine) - sum(servers.values())  # type: ignore[assignment]
        return spent


@contextmanager
def serving(device: Device, model: str, engines: int, corpora: Sequence[Corpus]) -> Iterator[Live]:
    """A server with so many engine processes: of one thread each, or in front of emulated accelerators."""
    port = free_port()
    program = ["service", "serve"] if device == "cpu" else ["loadtest.bench.prediction.emulated"]
    command = [
        sys.executable, "-m", *program, "--port", str(port), "--model", model, "--devices", ",".join(["cpu"] * engines),
        "--engine", "process", "--log-level", "error", "--default-timeout-ms", "60000",
    ]  # fmt: skip
    adapter = Adapter(answer="base64")
    wires = [adapter.wire(request) for corpus in corpora for request in corpus.requests]
    with (
        running(command, port=port, ready_path="/readyz", environment=_ENVIRONMENT) as server,
        Fleet([(server.url, wires)], senders=1) as fleet,
    ):
        yield Live(server, fleet, corpora)


def _machine_busy_s() -> float:
    """Core-seconds that programs have run, and that the hypervisor has withheld, since the machine started."""
    fields = np.array(Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()[1:], dtype=float)
    return float(fields[:3].sum() + fields[5:8].sum()) / os.sysconf("SC_CLK_TCK")
