"""Tar shards: pictures by their suffixes, in order, and an error where a shard ends early."""

import bz2
import gzip
import io
import lzma
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from service.jobs.rows import Picture
from service.jobs.sources.tars import TarShards
from tests.service.jobs.parts import png

MEMBERS = {
    "a/0001.jpg": b"1", "a/0001.json": b"{}", "a/0002.IMG.PNG": b"22", "a/._0002.png": b"x", "0003.cls": b"3",
    "0003.webp": b"333", f"{'long' * 60}.png": b"4",
}  # fmt: skip


def shard(path: Path, members: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as file:  # type: ignore[call-overload]
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize(
    ("name", "mode"),
    [("x.tar", "w"), ("x.tar.gz", "w:gz"), ("x.tgz", "w:gz"), ("x.tar.bz2", "w:bz2"), ("x.txz", "w:xz")],
)
def test_pictures_come_in_order_and_labels_are_passed_by(tmp_path: Path, name: str, mode: str) -> None:
    path = shard(tmp_path / name, MEMBERS, mode)
    found = list(TarShards([path, path], most_file_bytes=100))
    wanted = ("a/0001.jpg", "a/0002.IMG.PNG", "0003.webp", f"{'long' * 60}.png")
    assert found == [Picture(f"{path}/{member}", MEMBERS[member]) for member in wanted] * 2


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz", "zst"])
def test_a_packed_shard_of_several_parts_is_read_to_its_end(tmp_path: Path, kind: str) -> None:
    """bgzip and pbzip2 write such files."""
    whole = shard(tmp_path / "x.tar", {f"{number}.png": png(number) for number in range(9)}).read_bytes()
    packed = [_PACK[kind](part) for part in (whole[:3072], whole[3072:])]
    path = tmp_path / f"x.tar.{kind}"
    path.write_bytes(b"".join(packed))
    assert [picture.data for picture in TarShards([path], most_file_bytes=10**6)] == [png(n) for n in range(9)]
    path.write_bytes(packed[0])
    assert "the shard cannot be read to its end: " in list(TarShards([path], most_file_bytes=10**6))[-1].error


def _zstd(data: bytes) -> bytes:
    return bytes(pa.compress(data, codec="zstd", asbytes=True))


_PACK: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zst": _zstd,
}  # fmt: skip


def test_a_shard_that_is_cut_between_two_files_is_broken(tmp_path: Path) -> None:
    path = shard(tmp_path / "x.tar", {"a.jpg": b"a", "b.jpg": b"b"})
    path.write_bytes(path.read_bytes()[:1024])
    first, error = TarShards([path], most_file_bytes=9)
    assert (first.data, error.path) == (b"a", str(path))
    assert error.error == "the shard cannot be read to its end: the mark of its end is missing"


def test_a_member_over_the_bound_is_not_read(tmp_path: Path) -> None:
    path = shard(tmp_path / "x.tar", {"a.jpg": bytes(101), "b.jpg": b"b"})
    large, small = TarShards([path], most_file_bytes=100)
    assert "more than 100 bytes" in large.error
    assert small.data == b"b"


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_shard_that_is_cut_gives_what_it_has_and_an_error(tmp_path: Path, mode: str) -> None:
    path = shard(tmp_path / "x.tar", {f"{number}.png": png(number) for number in range(30)}, mode)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    *pictures, broken = TarShards([path], most_file_bytes=10**6)
    assert 5 < len(pictures) < 30
    assert all(picture.data == png(number) for number, picture in enumerate(pictures))
    assert (broken.path, broken.error.startswith("the shard cannot be read to its end: ")) == (str(path), True)


@pytest.mark.parametrize("broken", [b"\x01" * 512, b"0001.png"])
def test_a_broken_header_is_not_taken_for_the_end(tmp_path: Path, broken: bytes) -> None:
    path = shard(tmp_path / "x.tar", {"a.jpg": b"a", "b.jpg": b"b", "c.jpg": b"c"})
    whole = path.read_bytes()
    path.write_bytes(whole[:1024] + broken + whole[1536:] * (len(broken) == 512))
    first, error = TarShards([path], most_file_bytes=9)
    assert first.data == b"a"
    assert error.error.startswith("the shard cannot be read to its end: ")


def test_a_sparse_file_whose_map_is_no_number_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as file:
        info = tarfile.TarInfo("a.jpg")
        info.pax_headers = {"GNU.sparse.map": "0,x"}
        file.addfile(info)
    (error,) = TarShards([path], most_file_bytes=9)
    assert error.error == "the shard cannot be read to its end: a header is broken"


def test_a_link_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as file:
        for kind in (tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.DIRTYPE):
            info = tarfile.TarInfo("a.jpg")
            info.type, info.linkname = kind, "0.jpg"
            file.addfile(info)
    hard, soft = TarShards([path], most_file_bytes=9)
    assert "a link" in hard.error
    assert hard == soft


def test_a_shard_that_is_missing_or_no_tar_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "text.tar").write_text("no tar" * 200)
    errors = [each.error for each in TarShards([tmp_path / "no.tar", tmp_path / "text.tar"], most_file_bytes=9)]
    assert errors[0].endswith(": No such file or directory")
    assert len(errors) == 2
