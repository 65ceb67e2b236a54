"""The table of `docs/images.md`: what is read of each format, and what is refused with which words."""

import sys
from collections.abc import Iterable
from functools import cache
from importlib import import_module
from pathlib import Path

from tests.model.images.matrix.cell import Cell

MODULES = sorted(path.stem for path in Path(__file__).parent.glob("*_cells.py"))
START, END = "<!-- matrix: make images -->\n", "<!-- /matrix -->"


@cache
def cells_of(module: str) -> list[Cell]:
    """The cells that a module of this folder draws."""
    cells: list[Cell] = import_module(f"{__package__}.{module}").cells()
    return cells


def table() -> str:
    """In Markdown; a line for each row of cells, in the order in which the first of each is drawn."""
    rows: dict[tuple[str, str], list[Cell]] = {}
    for module in MODULES:
        for cell in cells_of(module):
            rows.setdefault((cell.format, cell.row), []).append(cell)
    lines = ["| format | picture | files tried | answer |", "|---|---|---|---|"]
    lines += [f"| {format} | {row} | {len(cells)} | {_answer(cells)} |" for (format, row), cells in rows.items()]
    return "\n".join(lines) + "\n"


def _answer(cells: Iterable[Cell]) -> str:
    answers = {f"refused: {cell.refused}" if cell.refused else "read" for cell in cells}
    return "; ".join(sorted(answers))


def write_table(page: Path) -> None:
    """Puts the table between its two markers."""
    before, start, rest = page.read_text(encoding="utf-8").partition(START)
    _, end, after = rest.partition(END)
    page.write_text(before + start + table() + end + after, encoding="utf-8")


if __name__ == "__main__":
    write_table(Path(sys.argv[1]))
