"""The version: pyproject.toml has it, and what cannot read it there gets it written from here.

    python -m deploy.version              prints it
    python -m deploy.version 0.2.0        makes it 0.2.0 everywhere, and the unreleased changes of CHANGELOG.md its own
    python -m deploy.version --release    fails unless the change log is ready for a release of it

Installed, the version is read from the package's metadata. `python3` alone runs this: nothing need be installed.
"""

import re
import sys
import tomllib
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).parents[1]
# A file, and what stands before the version in it.
WRITTEN = (
    ("pyproject.toml", r'^version = "'),
    ("Dockerfile", r"^ARG VERSION="),
    ("docker-compose.yml", r'^    image: "packlight:'),
    ("deploy/helm/packlight/Chart.yaml", r'^(?:version: |appVersion: ")'),
)
CHANGES = "CHANGELOG.md"
_UNRELEASED = "## Unreleased\n"
_NUMBER = r"\d+\.\d+\.\d+(?:(?:a|b|rc)\d+)?"


class VersionError(Exception):
    """What has to be mended before a release."""


def version(root: Path = ROOT) -> str:
    return str(tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"])


def written(root: Path = ROOT) -> dict[str, set[str]]:
    """For each file the versions that it names."""
    return {
        name: set(re.findall(rf"{before}({_NUMBER})", (root / name).read_text(encoding="utf-8"), re.MULTILINE))
        for name, before in WRITTEN
    }


def newest_release(changes: str) -> tuple[str, str] | None:
    """Version and date of the first heading of a release in a change log, or none if nothing has been released."""
    found = re.search(rf"^## ({_NUMBER}) - (\d{{4}}-\d\d-\d\d)$", changes, re.MULTILINE)
    return (found[1], found[2]) if found else None


def unreleased(changes: str) -> str:
    """What stands under the heading of what is not released yet."""
    _, _, rest = changes.partition(_UNRELEASED)
    return re.split(r"^## ", rest, maxsplit=1, flags=re.MULTILINE)[0].strip()


def set_version(new: str, *, today: str, root: Path = ROOT) -> None:
    """Writes a version everywhere. Raises `VersionError`, with nothing written, if there is nothing to release."""
    changes = (root / CHANGES).read_text(encoding="utf-8")
    if not re.fullmatch(_NUMBER, new):
        raise VersionError(f"{new} is no version: 1.2.3, 1.2.3a1, 1.2.3b1 or 1.2.3rc1")
    if not unreleased(changes):
        raise VersionError(f"{CHANGES} has nothing under {_UNRELEASED.strip()}")
    for name, before in WRITTEN:
        text = (root / name).read_text(encoding="utf-8")
        text = re.sub(rf"({before}){_NUMBER}", rf"\g<1>{new}", text, flags=re.MULTILINE)
        (root / name).write_text(text, encoding="utf-8")
    changes = changes.replace(_UNRELEASED, f"{_UNRELEASED}\n## {new} - {today}\n", 1)
    (root / CHANGES).write_text(changes, encoding="utf-8")


def require_ready(root: Path = ROOT) -> None:
    """Raises `VersionError` unless every file names one version, and the change log's newest release is it."""
    number, changes = version(root), (root / CHANGES).read_text(encoding="utf-8")
    others = {name: found for name, found in written(root).items() if found != {number}}
    if others:
        raise VersionError(f"pyproject.toml has {number}, and other files have {others}")
    newest = newest_release(changes)
    if newest is None or newest[0] != number:
        raise VersionError(
            f"the newest release in {CHANGES} is {newest and newest[0]}: python -m deploy.version {number}"
        )
    if unreleased(changes):
        raise VersionError(f"{CHANGES} has changes that are not released: move them under {number}")


def main(arguments: Sequence[str]) -> int:
    try:
        match arguments:
            case []:
                sys.stdout.write(version() + "\n")
            case ["--release"]:
                require_ready()
            case [new]:
                set_version(new, today=datetime.now(UTC).date().isoformat())
            case _:
                raise VersionError("one version at a time")
    except VersionError as error:
        sys.stderr.write(f"version: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
