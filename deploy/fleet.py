"""Two servers, the balancer before them, a Prometheus that scrapes them, and a load: processes that end together."""

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import yaml

from deploy.check_dashboard import ask

BALANCER = Path(__file__).parent / "balancer" / "envoy.yaml"
# The labels that the operator would give, of the release that check_chart renders.
LABELS = {"namespace": "ml", "service": "demo-packlight"}
SCRAPE_S = 1
PATIENCE_S = 90.0
# Each answer starts the next request, so a slow machine is not overloaded. It ends when it is told to.
LOAD = ("--concurrency", "4", "--duration", "600", "--mix", "thumbnails", "--param", "max_tokens=64")


class FleetError(Exception):
    """Something did not happen in time, or was wrong."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(what: str, condition: Callable[[], object]) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > end_s:
            raise FleetError(f"{what}: not within {PATIENCE_S:.0f} s")
        time.sleep(0.1)


def text(url: str) -> str:
    """What a URL answers with 200, and otherwise nothing."""
    try:
        with urlopen(url, timeout=5) as answer:
            return str(answer.read().decode())
    except (URLError, OSError):
        return ""


@dataclass
class Fleet:
    """Processes, each with its log in a folder. They end with the stack."""

    folder: Path
    stack: ExitStack
    ports: list[int] = field(default_factory=lambda: [free_port(), free_port()])
    servers: dict[int, "subprocess.Popen[bytes]"] = field(default_factory=dict)
    balancer: int = field(default_factory=free_port)
    admin: int = field(default_factory=free_port)
    prometheus: int = field(default_factory=free_port)

    def start(self, name: str, command: Sequence[str]) -> "subprocess.Popen[bytes]":
        log = self.stack.enter_context((self.folder / f"{name}.log").open("ab"))
        # The kernel kills it when this process dies, by SIGKILL too.
        process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *command], stdout=log, stderr=log)
        self.stack.callback(process.wait)
        self.stack.callback(process.kill)
        return process

    def start_server(self, port: int) -> None:
        packlight = str(Path(sys.executable).with_name("packlight"))
        self.servers[port] = self.start(f"server-{port}", [packlight, "serve", "--port", str(port)])

    def start_balancer(self, envoy: str) -> None:
        config = yaml.safe_load(BALANCER.read_text(encoding="utf-8"))
        config["admin"]["address"] = _address(self.admin)
        resources = config["static_resources"]
        resources["listeners"][0]["address"] = _address(self.balancer)
        servers = [{"endpoint": {"address": _address(port)}} for port in self.ports]
        resources["clusters"][0]["load_assignment"]["endpoints"] = [{"lb_endpoints": servers}]
        path = self.folder / "envoy.yaml"
        path.write_text(yaml.safe_dump(config), encoding="utf-8")
        # No shared memory, so that several may run on a host.
        self.start("envoy", [envoy, "-c", str(path), "--disable-hot-restart", "--concurrency", "1", "-l", "warning"])

    def start_prometheus(self) -> None:
        targets = [{"targets": [f"127.0.0.1:{port}" for port in self.ports], "labels": LABELS}]
        config = {
            "global": {"scrape_interval": f"{SCRAPE_S}s"},
            "scrape_configs": [{"job_name": "packlight", "static_configs": targets}],
        }
        path = self.folder / "prometheus.yml"
        path.write_text(yaml.safe_dump(config), encoding="utf-8")
        options = [f"--storage.tsdb.path={self.folder}/data", f"--web.listen-address=127.0.0.1:{self.prometheus}"]
        self.start("prometheus", ["prometheus", f"--config.file={path}", "--log.level=warn", *options])

    def start_load(self) -> "subprocess.Popen[bytes]":
        """Until it gets SIGINT, and then writes its report."""
        command = [sys.executable, "-m", "loadtest", "run", "--url", f"http://127.0.0.1:{self.balancer}", *LOAD]
        return self.start("load", [*command, "--quiet", "--json", str(self.folder / "load.json")])

    def ask(self, expr: str, *, at_s: float) -> list[tuple[dict[str, str], float]]:
        return ask(f"http://127.0.0.1:{self.prometheus}", expr, at_s=at_s)

    def healthy(self) -> set[int]:
        """Ports of the servers that the balancer sends to."""
        lines = text(f"http://127.0.0.1:{self.admin}/clusters").splitlines()
        found = [line.split("::")[1] for line in lines if line.endswith("::health_flags::healthy")]
        return {int(address.rpartition(":")[2]) for address in found}

    def scraped(self) -> set[int]:
        """Ports of the servers that answered Prometheus' last scrape."""
        ups = self.ask("up == 1", at_s=time.time())
        return {int(labels["instance"].rpartition(":")[2]) for labels, _ in ups}

    def settle(self, *ports: int) -> float:
        """Waits until balancer and Prometheus see just these servers. Gives a time at which they did."""
        until(f"{ports} healthy in the balancer", lambda: self.healthy() == set(ports))
        until(f"{ports} scraped", lambda: self.scraped() == set(ports))
        time.sleep(2 * SCRAPE_S)
        return time.time()


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}
