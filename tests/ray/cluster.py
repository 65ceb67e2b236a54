"""A cluster of Ray on this machine with Packlight on it, and what its processes hold."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.process.server import command_of, is_there
from tests.ray.clients import KEY
from tests.service.running import PATIENCE_S, until

ROOT = Path(__file__).parents[2]
PROGRAMS = Path(sys.executable).parent
HOOK = {"RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "deploy.ray.ingress.middlewares"}
# Two replicas that load torch take 15 s on two quiet cores.
START_PATIENCE_S = 240.0
REPLICA, PROXY = "ray::ServeReplica", "ray::ProxyActor"


class Cluster:
    """One node. `close` it however it went."""

    def __init__(self, **environment: str) -> None:
        # Sockets lie in it, whose paths must be short.
        self._folder = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))
        self.port = free_port()
        address = f"127.0.0.1:{free_port()}"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("PACKLIGHT_", "RAY_"))},
            "PATH": f"{PROGRAMS}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "RAY_TMPDIR": str(self._folder),
            "RAY_ADDRESS": address, "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32), **environment,
        }  # fmt: skip
        self._serving: subprocess.Popen[bytes] | None = None
        self.log = self._folder / "serve.log"
        self.http = httpx.Client(base_url=self.url, headers={"X-API-Key": KEY}, timeout=PATIENCE_S, trust_env=False)
        start = ["ray", "start", "--head", f"--port={address.split(':')[1]}", "--num-cpus=2"]
        options = ["--include-dashboard=false", "--object-store-memory=300000000", "--disable-usage-stats"]
        subprocess.run([*start, *options], cwd=ROOT, env=self.environment, check=True, stdout=subprocess.DEVNULL)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def run(self, *, replicas: int, **autoscaling: Any) -> None:
        """`serve run` of the file that we ship, with one CPU a replica. Waits until all replicas answer."""
        config = yaml.safe_load((ROOT / "deploy/ray/serve.yaml").read_text())
        config["http_options"] = {"host": "127.0.0.1", "port": self.port}
        (deployment,) = config["applications"][0]["deployments"]
        deployment["ray_actor_options"] = {"num_cpus": 1}
        deployment["autoscaling_config"] |= {"min_replicas": replicas, "max_replicas": replicas} | autoscaling
        file = self._folder / "serve.yaml"
        file.write_text(yaml.safe_dump(config))
        if self._serving:
            self._serving.kill()
            self._serving.wait(PATIENCE_S)
        with self.log.open("ab") as log:
            self._serving = subprocess.Popen(
                ["serve", "run", str(file)], cwd=ROOT, env=self.environment, stdout=log, stderr=log
            )
        until(lambda: len(self.targets()) == replicas, patience_s=START_PATIENCE_S)

    def targets(self) -> dict[str, str]:
        """Addresses of the replicas, by their names."""
        with suppress(httpx.TransportError):
            answer = self.http.get("/replicas")
            if answer.status_code == 200:
                return {each["labels"]["instance"]: each["targets"][0] for each in answer.json()}
        return {}

    def pids(self, title: str) -> list[int]:
        return [pid for pid in self._all() if command_of(pid).startswith(title)]

    def _all(self) -> list[int]:
        """Ray's processes have the folder in their environment or in their command."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if str(self._folder).encode() in (folder / "environ").read_bytes() + (folder / "cmdline").read_bytes():
                    found.append(int(folder.name))
        return found

    def close(self) -> None:
        self.http.close()
        while left := [pid for pid in self._all() if is_there(pid)]:
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        if self._serving:
            self._serving.wait(PATIENCE_S)
        shutil.rmtree(self._folder, ignore_errors=True)


@contextmanager
def cluster(**environment: str) -> Iterator[Cluster]:
    made = Cluster(**HOOK, **environment)
    try:
        yield made
    finally:
        made.close()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def private_bytes(pid: int) -> int:
    """Memory of one process that it shares with no other and no file."""
    found = [line.split() for line in Path(f"/proc/{pid}/status").read_text().splitlines()]
    return next(int(words[1]) * 1024 for words in found if words[0] == "RssAnon:")
