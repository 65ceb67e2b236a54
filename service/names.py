"""How the names of files are shown. A name is bytes to the system, and neither UTF-8 nor one line by necessity."""

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

# How many suffixes `SuffixCounts` names, and those of pictures, which it names first.
_MOST_SUFFIXES = 8
_PICTURES = (".heic", ".heif", ".hif", ".jxl", ".svg", ".pdf", ".psd", ".dng", ".cr2", ".cr3", ".nef", ".arw")


def utf8_name(path: Path | str) -> str:
    """The name, with `\\xNN` for each byte that is not UTF-8. It can be encoded, and written to any file."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def one_line(path: Path | str) -> str:
    """The name for a terminal or a log: control characters are escaped too."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in utf8_name(path))


class SuffixCounts:
    """How many files there are of each suffix, and the name of one of each."""

    def __init__(self, paths: Iterable[Path] = ()) -> None:
        self._counts: Counter[str] = Counter()
        self._names: dict[str, str] = {}
        for path in paths:
            self.add(path)

    def add(self, path: Path) -> None:
        suffix = path.suffix.lower()
        self._counts[suffix] += 1
        self._names[suffix] = min(self._names.get(suffix, path.name), path.name)

    @property
    def suffixes(self) -> Iterable[str]:
        """In lower case."""
        return self._counts.keys()

    def __str__(self) -> str:
        """`41 .heic (IMG_0001.HEIC), 2 .txt (a.txt)`"""
        order = sorted(self._counts, key=lambda suffix: (suffix not in _PICTURES, -self._counts[suffix], suffix))
        parts = [
            f"{self._counts[suffix]} {one_line(suffix) or 'without a suffix'} ({one_line(self._names[suffix])})"
            for suffix in order[:_MOST_SUFFIXES]
        ]
        rest = sum(self._counts[suffix] for suffix in order[_MOST_SUFFIXES:])
        return ", ".join(parts) + (f" and {rest} of other kinds" if rest else "")
