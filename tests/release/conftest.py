"""What is released, and an environment with nothing else in it.

`DIST` names a folder with wheel and sdist; without it they are built. `PIP_OPTIONS` goes to pip.
"""

import os
import secrets
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.guard import MARK

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Built:
    wheel: Path
    sdist: Path


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = Path(os.environ["DIST"]) if "DIST" in os.environ else tmp_path_factory.mktemp("dist")
    if "DIST" not in os.environ:
        command = [ROOT / "deploy/build.sh", folder]
        subprocess.run(command, env=os.environ | {"PYTHON": sys.executable}, check=True)
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return Built(wheel.resolve(), sdist.resolve())


@dataclass(frozen=True)
class Installed:
    """The wheel in a virtual environment of its own, and a user who has nothing else: no path, no setting, no file."""

    programs: Path
    environ: dict[str, str]

    def command(self, program: str, *arguments: object) -> list[str]:
        return [str(self.programs / program), *map(str, arguments)]

    def run(self, program: str, *arguments: object, cwd: Path, **environ: str) -> Any:
        return subprocess.run(
            self.command(program, *arguments), cwd=cwd, env=self.environ | environ, capture_output=True, text=True,
            check=False,
        )  # fmt: skip


@pytest.fixture(scope="session")
def installed(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    environment = tmp_path_factory.mktemp("environment")
    without_paths = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    # Of what is installed, programs import and compile a part. A pip of its own would take seconds, and nobody uses it.
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], env=without_paths, check=True)
    pip = [sys.executable, "-m", "pip", "--python", str(environment / "bin/python")]
    options = ["--no-compile", *os.environ.get("PIP_OPTIONS", "").split()]
    subprocess.run([*pip, "install", "--quiet", *options, f"{built.wheel}[loadtest]"], env=without_paths, check=True)
    subprocess.run([*pip, "check"], env=without_paths, check=True)
    # The mark begins with that of this run, whose guard looks after what carries it.
    mark = f"{os.environ.get(MARK, '')}/wheel-{secrets.token_hex(4)}"
    home = tmp_path_factory.mktemp("home")
    return Installed(environment / "bin", {"PATH": "/usr/bin:/bin", "HOME": str(home), MARK: mark})
