"""From what a user names to sources: files, folders, patterns, tar shards, tables and lists."""

import glob
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from model.images.formats import heic
from model.images.image_files import SUFFIXES
from service.jobs.packages import needed
from service.jobs.sources.files import A_URL, TABLE_SUFFIXES, File, Folder, is_url
from service.jobs.sources.lists import STDIN, PathList
from service.jobs.sources.source import Joined, Source
from service.jobs.sources.tars import SHARD_SUFFIXES, TarShards
from service.names import SuffixCounts, one_line
from service.settings.names import SettingsError

# `{000..012}` and `{train,val}`.
_BRACES = re.compile(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}")
_ANY_FOLDERS = re.compile(r"(?:^|(?<=/))\*\*(?:/|$)")
# A slip in a pattern must not become a list that fills the memory.
_MOST_NAMES = 1_000_000


def expanded(name: str) -> list[str]:
    """The names that braces stand for; the name itself if it is that of a file, or has no braces.

    `{000..012}` counts, with as many digits as its first number has. Raises `SettingsError` for more than a million.
    """
    match = _BRACES.search(name)
    if match is None or os.path.exists(name):
        return [name]
    first, last, listed = match.groups()
    if listed is None:
        if abs(int(last) - int(first)) >= _MOST_NAMES:
            raise SettingsError(f"{name} stands for more than {_MOST_NAMES:,} names")
        step = 1 if int(last) >= int(first) else -1
        parts = [f"{number:0{len(first)}d}" for number in range(int(first), int(last) + step, step)]
    else:
        parts = listed.split(",")
    head, tail = name[: match.start()], name[match.end() :]
    names: list[str] = []
    for part in parts:
        names += expanded(f"{head}{part}{tail}")
        if len(names) > _MOST_NAMES:
            raise SettingsError(f"{name} stands for more than {_MOST_NAMES:,} names")
    return names


class NamedSources:
    """The sources that some names stand for, in order. others: files of folders and patterns that are not read."""

    def __init__(
        self, names: Sequence[str], lists: Sequence[str] = (), *, column: str | None = None, most_file_bytes: int,
        out: Path | None = None,
    ) -> None:  # fmt: skip
        """names: as a user writes them; `-` is a list on standard input. lists: files that name files, one a line.

        column: of tables. most_file_bytes: larger files are not read. out: what is written, which a pattern does not
        match. Raises `SettingsError`, also if `out` is named as a source, and for a column without a table.
        """
        self.others = SuffixCounts()
        self._column, self._most_file_bytes, self._out = column, most_file_bytes, out
        self._has_table = False
        for name in lists:
            self._refuse_out(name)
        sources = [source for name in names for each in expanded(name) for source in self._sources(each)]
        sources += [PathList(name) for name in lists]
        if (names.count(STDIN) + list(lists).count(STDIN)) > 1:
            raise SettingsError("standard input is one list, and is named twice")
        if column is not None and not self._has_table:
            raise SettingsError(f"--column is for tables, and no source is one: {' or '.join(TABLE_SUFFIXES)}")
        self.source = Joined(sources)

    @property
    def is_empty(self) -> bool:
        """Whether nothing was named that holds a picture. Tables and lists may be empty: other programs made them."""
        return self.source.total == 0 and not self._has_table

    def _sources(self, name: str) -> Iterator[Source]:
        if not name:
            raise SettingsError("the name of a source is empty")
        if is_url(name):
            raise SettingsError(f"{one_line(name)} is {A_URL}")
        if name == STDIN:
            yield PathList(name)
        elif glob.has_magic(name) and not os.path.exists(name):
            for found in self._matches(name):
                yield from self._of_path(found)
        else:
            self._refuse_out(name)
            yield from self._of_path(Path(name))

    def _refuse_out(self, name: str) -> None:
        if self._is_out(name):
            raise SettingsError(f"{one_line(name)} is a source, and --out would replace it")

    def _is_out(self, path: Path | str) -> bool:
        # In this order a pattern asks no file of a million as long as there is no output.
        return self._out is not None and self._out.exists() and os.path.exists(path) and self._out.samefile(path)

    def _of_path(self, path: Path) -> Iterator[Source]:
        # Unlike those of `Path`, these functions take a name that is too long.
        if path.name.lower().endswith(SHARD_SUFFIXES) and not os.path.isdir(path):
            yield TarShards([path], most_file_bytes=self._most_file_bytes)
        elif path.suffix.lower() in TABLE_SUFFIXES and os.path.exists(path):
            with needed("pyarrow", str(path)):
                from service.jobs.sources.tables import TableSource
            self._has_table = True
            yield TableSource(path, column=self._column, most_file_bytes=self._most_file_bytes)
        elif os.path.isdir(path):
            yield Folder(path, self.others)
        else:
            yield File(path)

    def _matches(self, pattern: str) -> list[Path]:
        """The files that a pattern matches and that can be read, sorted; and whole folders, unless `**` finds their
        files as well. Raises `SettingsError` if there are none."""
        suffixes = (*SUFFIXES, *heic.SUFFIXES, *SHARD_SUFFIXES, *TABLE_SUFFIXES)
        found = []
        for path in sorted({Path(name) for name in _matching(pattern)}):
            if self._is_out(path):
                continue
            if path.name.lower().endswith(suffixes):
                found.append(path)
            elif path.is_file():
                self.others.add(path)
            elif path.is_dir() and "**" not in pattern:
                found.append(path)
        if not found:
            raise SettingsError(f"no file matches {one_line(pattern)}")
        return found


def _matching(pattern: str) -> Iterator[str]:
    """As `glob`, but `**` follows no links: one to a folder above would be followed over and over."""
    match = _ANY_FOLDERS.search(pattern)
    if match is None:
        yield from glob.iglob(pattern)
        return
    head, tail = pattern[: match.start()], pattern[match.end() :]
    for top in glob.iglob(head) if head else ["."]:
        for folder, below, _ in os.walk(top):
            # The files within a Lance dataset have its suffix, and are no tables.
            below[:] = [name for name in below if not name.startswith(".") and not name.endswith(".lance")]
            yield from _matching(os.path.join(glob.escape(folder), tail or "*"))
