"""The pages of docs/clients/ hold together; tests/clients/test_recipes.py runs their programs."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.clients.recipes import NAMES, PAGES, recipe

ROOT = Path(__file__).parents[2]
PINNED = re.findall(r"^([\w\[\]-]+)==", (Path(__file__).parent / "requirements.txt").read_text(), re.MULTILINE)


def test_the_index_leads_to_every_page() -> None:
    index = (PAGES / "index.md").read_text(encoding="utf-8")
    assert {path.name for path in PAGES.glob("*.md")} - {"index.md"} <= set(re.findall(r"\]\((\w+\.md)\)", index))


@pytest.mark.parametrize("name", NAMES)
def test_a_page_runs_the_program_that_it_shows(name: str) -> None:
    shown = recipe(name)
    assert shown.run[-3:] == [shown.file, "pictures", "crop.jpg"]
    assert set(shown.packages) <= set(PINNED), "not in tests/clients/requirements.txt"


@pytest.mark.parametrize("name", [name for name in NAMES if recipe(name).language == "python"])
def test_python_on_a_page_is_written_like_ours(name: str) -> None:
    for command in (["check", "--ignore=T20"], ["format", "--check"]):
        checked = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--stdin-filename", f"{name}.py", "-"],
            input=recipe(name).program, capture_output=True, text=True, cwd=ROOT, check=False,
        )  # fmt: skip
        assert checked.returncode == 0, checked.stdout + checked.stderr
