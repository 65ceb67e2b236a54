"""The pages of docs/clients/ as programs: what a reader copies, and what the page says it prints."""

import re
from dataclasses import dataclass
from pathlib import Path

PAGES = Path(__file__).parents[2] / "docs/clients"
# Pages without a program.
EXPLAINING = ("index", "immich")
NAMES = tuple(sorted(path.stem for path in PAGES.glob("*.md") if path.stem not in EXPLAINING))
_FENCED = r"```(?P<{0}_kind>\w*)\n(?P<{0}>.*?)^```\n"
_PAGE = re.compile(
    _FENCED.format("commands").replace(r"\w*", "sh")
    + _FENCED.format("output").replace(r"\w*", "")
    + r".*?^`(?P<file>nearest\.\w+)`:\n\n"
    + _FENCED.format("program"),
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True)
class Recipe:
    """file: the program's name on the page. output: what it prints for the pictures of index.md."""

    file: str
    language: str
    program: str
    commands: str
    output: str

    @property
    def packages(self) -> list[str]:
        """What the page tells the reader to install with pip."""
        return re.findall(r"[\w\[\]-]+", " ".join(re.findall(r"pip install (.*)", self.commands)).replace("'", ""))

    @property
    def run(self) -> list[str]:
        """The command that runs the program, which is the last."""
        return self.commands.splitlines()[-1].split()


def recipe(name: str) -> Recipe:
    found = _PAGE.search((PAGES / f"{name}.md").read_text(encoding="utf-8"))
    assert found, f"docs/clients/{name}.md: commands, their output, and the program below its name are not found"
    return Recipe(found["file"], found["program_kind"], found["program"], found["commands"], found["output"])


def making_pictures() -> str:
    """The commands of index.md that make the folder and the picture."""
    found = re.search(r"```sh\n(.*?)packlight serve.*?```", (PAGES / "index.md").read_text(encoding="utf-8"), re.DOTALL)
    assert found
    return found[1]
