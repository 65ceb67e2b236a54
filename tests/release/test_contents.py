"""What the wheel and the sdist hold: all that a user needs, and nothing else."""

import subprocess
import tarfile
import tomllib
import zipfile
from email.message import Message
from email.parser import Parser

from tests.release.conftest import ROOT, Built

PACKAGES = ("model", "service", "loadtest")
# Documents of the checkout, and what measures it.
NOT_INSTALLED = (
    "loadtest/bench/",
    "loadtest/README.md",
    "loadtest/RESULTS.md",
    "loadtest/HISTORY.md",
    "loadtest/example.png",
)
BESIDE_THE_PACKAGES = {"CHANGELOG.md", "LICENSE", "MANIFEST.in", "README.md", "pyproject.toml"}


def in_the_checkout() -> set[str]:
    """The files of the packages: modules, weights, pages, tables."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *PACKAGES],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return {name for name in listed.stdout.splitlines() if not name.startswith(NOT_INSTALLED)}


def metadata(built: Built) -> Message:
    with zipfile.ZipFile(built.wheel) as wheel:
        (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
        return Parser().parsestr(wheel.read(name).decode())


def test_the_wheel_holds_every_file_of_the_packages_and_no_other(built: Built) -> None:
    with zipfile.ZipFile(built.wheel) as wheel:
        files = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert files == in_the_checkout(), "a file that is no module needs a line under [tool.setuptools.package-data]"


def test_the_sdist_holds_what_the_wheel_is_built_from_and_no_more(built: Built) -> None:
    with tarfile.open(built.sdist) as sdist:
        files = {member.name.partition("/")[2] for member in sdist if member.isfile()}
    made = {name for name in files if name in ("PKG-INFO", "setup.cfg") or ".egg-info/" in name}
    assert files - made == in_the_checkout() | BESIDE_THE_PACKAGES


def test_the_metadata_say_what_the_project_says(built: Built) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    written = metadata(built)
    assert (written["Name"], written["Version"]) == (project["name"], project["version"])
    assert written["License-Expression"] == project["license"]
    assert written["License-File"] == "LICENSE"
    assert written["Description-Content-Type"] == "text/markdown"
    assert {"heif", "loadtest"} <= set(written.get_all("Provides-Extra", []))
