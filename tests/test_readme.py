"""The documents are true: their table of settings, their files, their commands."""

import re
from pathlib import Path

from service.settings.table import table

ROOT = Path(__file__).parent.parent
DOCUMENTS = ["README.md", "CONTRIBUTING.md", "deploy/RUNBOOK.md", "loadtest/README.md"] + sorted(
    path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md")
)


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_table_of_settings_is_the_settings() -> None:
    written = re.search(
        r"<!-- settings: make settings -->\n(.*?)<!-- /settings -->", text("docs/settings.md"), re.DOTALL
    )
    assert written is not None
    assert written[1] == table(), "run `make settings`"


def test_every_room_is_in_the_map_of_the_house_and_every_room_in_the_map_exists() -> None:
    house = text("README.md").partition("## The house")[2]
    for package in ("model", "service"):
        rooms = {f"{path.parent.name}/" for path in (ROOT / package).glob("*/__init__.py")}
        assert not {room for room in rooms if room not in house}
    # Without the virtual environment, whose thousands of folders take seconds to walk.
    folders = {path.name for top in ROOT.glob("[a-z]*/") for path in (top, *top.rglob("*/"))}
    assert {*re.findall(r"\b([a-z]+)/", house)} <= folders


def test_every_module_that_the_readme_names_exists() -> None:
    named = re.findall(r"`((?:model|service)/[a-z/_]+\.py)`", text("README.md"))
    assert named
    assert not [name for name in named if not (ROOT / name).is_file()]


def test_the_readme_can_be_read_in_one_sitting() -> None:
    assert len(text("README.md").splitlines()) < 250


def test_make_has_the_targets_that_the_documents_name() -> None:
    named = {
        target for name in DOCUMENTS for target in re.findall(r"\bmake ([a-z-]+)`|^make ([a-z-]+)", text(name), re.M)
    }
    targets = {one or other for one, other in named}
    assert {"serve", "test"} <= targets
    for target in targets:
        assert re.search(rf"^{target}:", text("Makefile"), re.MULTILINE), target
