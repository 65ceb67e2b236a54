"""Tar shards, as WebDataset writes them: each is read from its start to its end, one file at a time."""

import tarfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

from model.images.formats import heic
from model.images.image_files import SUFFIXES
from service.jobs.reading import too_large
from service.jobs.rows import Picture

SHARD_SUFFIXES = (".tar", ".tar.gz", ".tgz")
# The module lets the last two out where a header of pax or of a sparse file is no number.
_BROKEN = (tarfile.TarError, OSError, EOFError, zlib.error, ValueError, TypeError)


class TarShards:
    """The pictures of shards, by the suffixes of their names; labels and captions between them are passed by.

    A link has an error: what it leads to may lie before it, and nothing is read twice.

    A row is called by its shard and its name in there: `shards/000.tar/0001.jpg`.
    """

    def __init__(self, shards: Sequence[Path], *, most_file_bytes: int) -> None:
        self._shards, self._most_file_bytes = shards, most_file_bytes

    @property
    def total(self) -> int | None:
        return None

    def __iter__(self) -> Iterator[Picture]:
        for shard in self._shards:
            try:
                # `|` reads forward only: a shard may be a pipe, and nothing is read twice.
                with tarfile.open(shard, "r|*", tarinfo=_Member) as opened:
                    yield from self._pictures(shard, opened)
            except _BROKEN as error:
                yield Picture(str(shard), error=f"the shard cannot be read to its end: {_reason(error)}")

    def _pictures(self, shard: Path, opened: tarfile.TarFile) -> Iterator[Picture]:
        suffixes = (*SUFFIXES, *heic.SUFFIXES) if heic.installed() else SUFFIXES
        while (member := opened.next()) is not None:
            # The module would keep them all, for a lookup by name.
            opened.members = []  # type: ignore[attr-defined]
            if not member.name.lower().endswith(suffixes) or _is_hidden(member.name):
                continue
            path = f"{shard}/{member.name}"
            if member.islnk() or member.issym():
                yield Picture(path, error="it is a link, which is not followed in a tar")
                continue
            if not member.isfile():
                continue
            if member.size > self._most_file_bytes:
                yield Picture(path, error=too_large(self._most_file_bytes))
                continue
            file = opened.extractfile(member)
            assert file, "a file has content"
            yield Picture(path, file.read())


class _Member(tarfile.TarInfo):
    """The module takes a broken header for the end of the file, unless it is the first."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        try:
            return super().frombuf(buf, encoding, errors)
        except (tarfile.InvalidHeaderError, tarfile.TruncatedHeaderError) as error:  # type: ignore[attr-defined]
            raise tarfile.ReadError(str(error)) from None


def _is_hidden(name: str) -> bool:
    """macOS puts a `._0001.jpg` beside each file, which is no picture."""
    return name.rpartition("/")[2].startswith("._")


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, ValueError | TypeError):
        return "a header is broken"
    return str(error) or type(error).__name__
