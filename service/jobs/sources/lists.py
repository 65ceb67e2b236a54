"""A list of paths: one a line, or with a NUL after each, as `find -print0` writes them."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from service.jobs.rows import Picture
from service.names import one_line
from service.settings import SettingsError

STDIN = "-"
_BLOCK_BYTES = 64 * 1024


class PathList:
    """The files that a list names, read as it comes. Empty lines count for nothing."""

    def __init__(self, name: str) -> None:
        """name: of the file, `-` for standard input. Raises `SettingsError` if there is none."""
        if name != STDIN and (not Path(name).exists() or Path(name).is_dir()):
            raise SettingsError(f"there is no list {one_line(name)}")
        self._name = name

    @property
    def total(self) -> int | None:
        return None

    def __iter__(self) -> Iterator[Picture]:
        with _opened(self._name) as file:
            for name in names_of(file):
                path = os.fsdecode(name)
                yield Picture(path, Path(path))


@contextmanager
def _opened(name: str) -> Iterator[BinaryIO]:
    if name == STDIN:
        yield sys.stdin.buffer
    else:
        with Path(name).open("rb") as file:
            yield file


def names_of(file: BinaryIO) -> Iterator[bytes]:
    """The names of a list. NULs separate them if there is one among its first bytes, otherwise line ends, which may
    be those of Windows."""
    rest, separator = b"", b""
    # `read1` gives what a pipe has, and does not wait for more.
    while block := file.read1(_BLOCK_BYTES):  # type: ignore[attr-defined]
        rest += block
        separator = separator or next((each for each in (b"\0", b"\n") if each in rest), b"")
        if separator:
            *names, rest = rest.split(separator)
            yield from _cleaned(names, separator)
    yield from _cleaned([rest], separator)


def _cleaned(names: list[bytes], separator: bytes) -> Iterator[bytes]:
    for name in names:
        if name := name if separator == b"\0" else name.removesuffix(b"\r"):
            yield name
