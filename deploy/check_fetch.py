"""Runs what the chart's init container runs, against a stand-in for the hub: once with it, once without.

    python -m deploy.check_fetch --container fetch.json

The second pod finds the mark of the first and asks nobody; then the model loads without a network.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

from deploy.verify.hub import Hub

MODEL = "example/fetched"
_TIMEOUT_S = 120


class QuietHub(Hub):
    def log_message(self, format: str, *args: object) -> None:
        pass


def run(command: list[str], environment: dict[str, str]) -> str:
    """What the command says. Empty if it succeeds."""
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    return "" if result.returncode == 0 else f"exit {result.returncode}: {result.stdout}{result.stderr}"


def faults(container: dict[str, Any], folder: Path) -> Iterator[str]:
    """Faults of the container, as the chart gives it for `google/…` with a token."""
    checkpoint, models = folder / "checkpoint", folder / "models"
    checkpoint.mkdir()
    models.mkdir()
    subprocess.run([sys.executable, "-m", "deploy.verify.checkpoint", str(checkpoint)], timeout=_TIMEOUT_S, check=True)
    python, option, script, _, revision = container["command"]
    command = [sys.executable, option, script.replace("/models", str(models)), MODEL, revision]
    if python != "python" or {entry["name"] for entry in container["env"]} != {"HF_HOME", "HF_TOKEN"}:
        yield f"the container has another form: {container}"
    QuietHub.folder, QuietHub.token = checkpoint, "sesame"
    with ThreadingHTTPServer(("127.0.0.1", 0), QuietHub) as hub:
        threading.Thread(target=hub.serve_forever, daemon=True).start()
        environment = {"HF_HOME": str(models), "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}"}
        if "gated" not in run(command, environment):
            yield "without its token the model has to be refused as gated"
        if said := run(command, environment | {"HF_TOKEN": "sesame"}):
            yield f"it fetched nothing: {said}"
        hub.shutdown()
    if said := run(command, environment):
        yield f"it asked the hub again: {said}"
    offline = {"HF_HOME": str(models), "HF_HUB_OFFLINE": "1"}
    if said := run([sys.executable, "-m", "service", "info", "--model", MODEL], offline):
        yield f"the server does not find what was fetched: {said}"


def main() -> int:
    """0 if nothing is wrong."""
    parser = argparse.ArgumentParser(description="Runs the chart's init container.", allow_abbrev=False)
    parser.add_argument("--container", required=True, type=Path, metavar="FILE", help="the container, as JSON")
    container = json.loads(parser.parse_args().container.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        found = list(faults(container, Path(folder)))
    for fault in found:
        sys.stderr.write(f"{fault}\n")
    sys.stdout.write(f"the model is fetched once: {len(found)} faults\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
