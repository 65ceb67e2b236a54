"""Tar shards, as WebDataset writes them: each is read from its start to its end, one file at a time."""

import bz2
import gzip
import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from io import BufferedReader
from pathlib import Path
from typing import IO, Any, Self

from model.images.formats import heic
from model.images.image_files import SUFFIXES
from service.jobs.packages import needed
from service.jobs.reading import too_large
from service.jobs.rows import Picture

_ZSTD_SUFFIXES = (".tar.zst", ".tzst")
SHARD_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", *_ZSTD_SUFFIXES)
# The module lets the last two out where a header of pax or of a sparse file is no number.
_BROKEN = (tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError, ValueError, TypeError)


class TarShards:
    """The pictures of shards, by the suffixes of their names; labels and captions between them are passed by.

    A link has an error: what it leads to may lie before it, and nothing is read twice.

    A row is called by its shard and its name in there: `shards/000.tar/0001.jpg`.
    """

    def __init__(self, shards: Sequence[Path], *, most_file_bytes: int) -> None:
        """Raises `SettingsError` if a package is missing that unpacks one of them."""
        self._shards, self._most_file_bytes = shards, most_file_bytes
        for shard in shards:
            if shard.name.lower().endswith(_ZSTD_SUFFIXES):
                with needed("pyarrow", str(shard)):
                    import pyarrow as _  # noqa: F401

    @property
    def total(self) -> int | None:
        return None

    def __iter__(self) -> Iterator[Picture]:
        for shard in self._shards:
            try:
                with (
                    shard.open("rb") as packed,
                    closing(_unpacked(packed)) as file,
                    # `|` reads forward only: a shard may be a pipe, and nothing is read twice.
                    tarfile.open(fileobj=file, mode="r|", tarinfo=_Member) as opened,
                ):
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


def _zstd(file: IO[bytes]) -> IO[bytes]:
    with needed("pyarrow", "a shard packed by zstd"):
        import pyarrow as pa
    unpacked: IO[bytes] = pa.CompressedInputStream(file, "zstd")
    return unpacked


# By the first bytes of a file. Unlike these, `tarfile` itself takes the end of the first part for that of the file:
# eStargz, bgzip and pbzip2 make files of several parts.
_UNPACKERS: dict[bytes, Callable[[Any], Any]] = {
    b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open, b"\x28\xb5\x2f\xfd": _zstd,
}  # fmt: skip


def _unpacked(file: BufferedReader) -> IO[bytes]:
    head = file.peek()
    for magic, unpacker in _UNPACKERS.items():
        if head.startswith(magic):
            unpacked: IO[bytes] = unpacker(file)
            return unpacked
    return file


class _Member(tarfile.TarInfo):
    """The module takes a broken header, and the end of the file, for the end of the tar, unless they come first."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.EmptyHeaderError:  # type: ignore[attr-defined]
            raise tarfile.ReadError("the mark of its end is missing") from None
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
