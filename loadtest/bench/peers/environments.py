"""Virtual environments with the pinned packages of each peer, made by `python -m loadtest.bench peers --install`."""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

DEFAULT_FOLDER = Path(__file__).parents[3] / "build" / "peers"

_INSTALL_S = 1800.0
_TORCH = "torch==2.13.0"
_TRANSFORMERS = "transformers==5.24.0"
_LITSERVE = ["litserve==0.2.19", "pillow>=13,<14", "python-multipart"]
_PACKAGES = {
    "openvino": [_TORCH, _TRANSFORMERS, "openvino==2026.4.1", "nncf==3.4.0", *_LITSERVE],
    "onnxruntime": [_TORCH, _TRANSFORMERS, "onnxruntime==1.32.0", "onnx==1.23.2", "onnxscript==0.7.2"],
    "litserve": [_TORCH, _TRANSFORMERS, *_LITSERVE],
    # It imports aiohttp and protobuf without requiring them.
    "infinity": [_TORCH, "infinity_emb[torch,vision,server]==0.0.78", "aiohttp", "protobuf"],
}
# Packages to remove: torchvision comes built for CUDA, fails to import with a CPU torch, and is not needed.
_UNWANTED = {"infinity": ["torchvision"]}
NAMES = tuple(_PACKAGES)


class PeerUnavailable(Exception):
    """The peer cannot run on this machine. The message says why."""


def packages(name: str) -> Sequence[str]:
    """What is installed for the peer, with versions."""
    return _PACKAGES[name]


def environment(name: str, folder: Path) -> Path:
    """The peer's environment under `folder`. Raises `PeerUnavailable` if it lacks what `packages` says."""
    made = folder.expanduser() / name
    if not is_installed(name, folder):
        raise PeerUnavailable(f"{name} is not installed in {made}: `make peers` does it")
    return made


def is_installed(name: str, folder: Path) -> bool:
    stamp = _stamp(folder.expanduser() / name)
    return stamp.exists() and stamp.read_text(encoding="utf-8") == _wanted(name)


def install(name: str, folder: Path) -> None:
    """Makes the peer's environment anew. `PIP_OPTIONS` are options for pip. Raises `PeerUnavailable`."""
    made = folder.expanduser() / name
    shutil.rmtree(made, ignore_errors=True)
    pip = [str(made / "bin" / "python"), "-m", "pip"]
    options = shlex.split(os.environ.get("PIP_OPTIONS", ""))
    run([sys.executable, "-m", "venv", str(made)])
    run([*pip, "install", "--quiet", "--disable-pip-version-check", *options, *_PACKAGES[name]])
    if name in _UNWANTED:
        run([*pip, "uninstall", "--quiet", "--yes", *_UNWANTED[name]])
    _stamp(made).write_text(_wanted(name), encoding="utf-8")


def run(command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
    """Waits for a program that installs or writes something. environment: beside this process's.

    Raises `PeerUnavailable` with the end of what it said."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_INSTALL_S, check=False,
            env={**os.environ, **(environment or {})},
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PeerUnavailable(f"{' '.join(command[:5])} …: {error}") from error
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["it failed without a message"]
        raise PeerUnavailable(f"{' '.join(command[:5])} …: {lines[-1]}")


def _stamp(made: Path) -> Path:
    return made / "installed.txt"


def _wanted(name: str) -> str:
    return "\n".join(_PACKAGES[name]) + "\n"
