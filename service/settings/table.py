"""The table of docs/settings.md: `make settings` writes it."""

import sys
from pathlib import Path

from service.settings.loading import default_of
from service.settings.settings import Settings


def table() -> str:
    """The table of docs/settings.md, in Markdown."""
    lines = ["| setting | default | |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = default_of(field)
        lines.append(f"| `{name}` | {default and f'`{default}`'} | {field.description} |")
    return "\n".join(lines) + "\n"


def write_table(page: Path) -> None:
    """Puts the table between its two markers."""
    before, start, rest = page.read_text(encoding="utf-8").partition("<!-- settings: make settings -->\n")
    _, end, after = rest.partition("<!-- /settings -->")
    page.write_text(before + start + table() + end + after, encoding="utf-8")


if __name__ == "__main__":
    write_table(Path(sys.argv[1]))
