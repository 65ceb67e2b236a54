"""Other makers' servers. Each has a virtual environment of its own, which is made once."""

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PEERS = ("litserve", "infinity")
DEFAULT_FOLDER = Path("~/.cache/packlight-bench")

_PROGRAMS = Path(__file__).parent / "peers"
_INSTALL_S = 1800.0
_TORCH = "torch==2.13.0"
# Packages to install.
_PACKAGES = {
    "litserve": [_TORCH, "litserve==0.2.19", "transformers==5.23.0", "pillow>=13", "python-multipart"],
    # It imports aiohttp and protobuf without requiring them.
    "infinity": [_TORCH, "infinity_emb[torch,vision,server]==0.0.78", "aiohttp", "protobuf"],
}
# Packages to remove: torchvision comes built for CUDA, fails to import with a CPU torch, and is not needed.
_UNWANTED = {"infinity": ["torchvision"]}


class PeerUnavailable(Exception):
    """The peer cannot run on this machine. The message says why."""


@dataclass(frozen=True, slots=True)
class Peer:
    """An installed peer."""

    name: str
    folder: Path

    @property
    def python(self) -> str:
        return str(self.folder / "bin" / "python")

    def write_clip(self, folder: Path) -> None:
        """Raises `PeerUnavailable`."""
        _do([self.python, str(_PROGRAMS / "write_clip.py"), str(folder)])

    def litserve(
        self, model: Path, *, port: int, max_tokens: int, dtype: str, workers: int, batch_size: int
    ) -> list[str]:
        """The server's command. Its workers share the cores evenly."""
        threads = max(1, len(os.sched_getaffinity(0)) // workers)
        options = {
            "model": model, "port": port, "max-tokens": max_tokens, "dtype": dtype, "workers": workers,
            "threads": threads, "batch-size": batch_size, "batch-timeout-s": 0.01,
        }  # fmt: skip
        given = [part for name, value in options.items() for part in (f"--{name}", str(value))]
        return [self.python, str(_PROGRAMS / "litserve_server.py"), *given]

    def infinity(self, model: Path, *, port: int, batch_size: int) -> list[str]:
        """The server's command. On a CPU it computes in float32, whatever `--dtype` says."""
        return [
            str(self.folder / "bin" / "infinity_emb"), "v2", "--model-id", str(model), "--served-model-name", "clip",
            "--engine", "torch", "--device", "cpu", "--no-bettertransformer", "--batch-size", str(batch_size),
            "--host", "127.0.0.1", "--port", str(port), "--log-level", "warning",
        ]  # fmt: skip


INFINITY_ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "INFINITY_ANONYMOUS_USAGE_STATS": "0"}


def peer(name: str, folder: Path) -> Peer:
    """The peer's environment under `folder`, installed if missing. Raises `PeerUnavailable`."""
    made = Peer(name, folder.expanduser() / name)
    complete = made.folder / "complete"
    if not complete.exists():
        sys.stderr.write(f"installing {name} in {made.folder}, which takes minutes\n")
        _do([sys.executable, "-m", "venv", "--clear", str(made.folder)])
        _do([made.python, "-m", "pip", "install", "--quiet", *_PACKAGES[name]])
        if name in _UNWANTED:
            _do([made.python, "-m", "pip", "uninstall", "--quiet", "--yes", *_UNWANTED[name]])
        complete.touch()
    return made


def _do(command: Sequence[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PeerUnavailable(f"{' '.join(command[:5])} …: {error}") from error
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["it failed without a message"]
        raise PeerUnavailable(f"{' '.join(command[:5])} …: {lines[-1]}")
