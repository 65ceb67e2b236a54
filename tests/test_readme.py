"""The README is true: its table of settings, its files, its commands."""

import re
from pathlib import Path

from service.settings import table

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_table_of_settings_is_the_settings() -> None:
    written = re.search(r"<!-- settings: make settings -->\n(.*?)<!-- /settings -->", README, re.DOTALL)
    assert written is not None
    assert written[1] == table(), "run `make settings`"


def test_every_room_is_in_the_map_of_the_house_and_every_room_in_the_map_exists() -> None:
    house = README.partition("## The house")[2]
    for package in ("model", "service"):
        rooms = {f"{path.parent.name}/" for path in (ROOT / package).glob("*/__init__.py")}
        assert not {room for room in rooms if room not in house}
    for room in re.findall(r"\b([a-z]+)/", house):
        assert list(ROOT.glob(f"**/{room}/")), room


def test_make_has_the_targets_that_the_documents_name() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = set(re.findall(r"make ([a-z-]+)", README + (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")))
    assert {"serve", "test"} <= named
    for target in named:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
