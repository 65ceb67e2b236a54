"""A list of paths: one a line, or with a NUL after each, as `find -print0` writes them."""

import os
import sys
from collections.abc import Iterator
from io import BytesIO, FileIO

from service.jobs.rows import Picture
from service.jobs.sources.files import listed
from service.names import one_line
from service.settings.names import SettingsError

STDIN = "-"
_BLOCK_BYTES = 64 * 1024
# Some editors of Windows begin a file with it.
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class PathList:
    """The files that a list names, read as it comes. Empty lines count for nothing."""

    def __init__(self, name: str) -> None:
        """name: of the file, `-` for standard input. Raises `SettingsError` if there is none."""
        if name == STDIN and sys.stdin is None:
            raise SettingsError("standard input is closed")
        if name != STDIN and (not os.path.exists(name) or os.path.isdir(name)):
            raise SettingsError(f"there is no list {one_line(name)}")
        self._name = name

    @property
    def total(self) -> int | None:
        return None

    def __iter__(self) -> Iterator[Picture]:
        try:
            with self._opened() as file:
                for number, name in enumerate(names_of(file)):
                    yield listed(os.fsdecode(name if number else name.removeprefix(_BYTE_ORDER_MARK)))
        except OSError as error:
            yield Picture(self._name, error=f"the list cannot be read to its end: {error.strerror or error}")

    def _opened(self) -> FileIO:
        # Without a buffer: that of `sys.stdin` has a lock, and a process that ends while a thread waits in it aborts.
        if self._name == STDIN:
            return FileIO(0, closefd=False)
        return FileIO(self._name)


def names_of(file: FileIO | BytesIO) -> Iterator[bytes]:
    """The names of a list. NULs separate them if there is one among its first bytes, otherwise line ends, which may
    be those of Windows. file: unbuffered, so that it gives what a pipe has and does not wait for more."""
    rest, separator = b"", b""
    while block := file.read(_BLOCK_BYTES):
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
