"""The peers that `forward` and `serve` can be measured beside, and whether they are installed.

With `--install` those that are missing, or were installed with other versions, are installed under `build/peers`, each
in an environment of its own. `make peers` does the same, with PyTorch's builds for CPUs where those serve.
"""

import argparse
import sys
from pathlib import Path

from loadtest.bench.peers import environments


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--install", action="store_true", help="install what is missing")
    parser.add_argument("--only", nargs="+", choices=environments.NAMES, default=environments.NAMES, metavar="NAME")
    parser.add_argument("--peers-dir", type=Path, default=environments.DEFAULT_FOLDER, help="where they are installed")


def measure(options: argparse.Namespace) -> list[dict[str, object]]:
    return [_row(name, options) for name in options.only]


def _row(name: str, options: argparse.Namespace) -> dict[str, object]:
    row: dict[str, object] = {"peer": name, "packages": " ".join(environments.packages(name))}
    try:
        if options.install and not environments.is_installed(name, options.peers_dir):
            sys.stderr.write(f"installing {name}, which takes minutes\n")
            environments.install(name, options.peers_dir)
        return row | {"environment": str(environments.environment(name, options.peers_dir))}
    except environments.PeerUnavailable as error:
        return row | {"cannot_run": str(error)} | ({"verdict": "failed"} if options.install else {})
