"""How the names of files are shown. A name is bytes to the system, and neither UTF-8 nor one line by necessity."""

import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

# How many suffixes `suffix_counts` names, and those of pictures, which it names first.
_MOST_SUFFIXES = 8
_PICTURES = (".heic", ".heif", ".hif", ".jxl", ".svg", ".pdf", ".psd", ".dng", ".cr2", ".cr3", ".nef", ".arw")


def utf8_name(path: Path | str) -> str:
    """The name, with `\\xNN` for each byte that is not UTF-8. It can be encoded, and written to any file."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def one_line(path: Path | str) -> str:
    """The name for a terminal or a log: control characters are escaped too."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in utf8_name(path))


def suffix_counts(paths: Sequence[Path]) -> str:
    """How many files there are of each suffix, each with a name: `41 .heic (IMG_0001.HEIC), 2 .txt (a.txt)`."""
    by_suffix: dict[str, list[Path]] = defaultdict(list)
    for path in paths:
        by_suffix[path.suffix.lower()].append(path)
    order = sorted(by_suffix, key=lambda suffix: (suffix not in _PICTURES, -len(by_suffix[suffix]), suffix))
    parts = [
        f"{len(by_suffix[suffix])} {one_line(suffix) or 'without a suffix'} ({one_line(by_suffix[suffix][0].name)})"
        for suffix in order[:_MOST_SUFFIXES]
    ]
    rest = sum(len(by_suffix[suffix]) for suffix in order[_MOST_SUFFIXES:])
    return ", ".join(parts) + (f" and {rest} of other kinds" if rest else "")
