"""Lists of paths, by lines and by NULs, in whatever pieces they come."""

import io
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.jobs.sources.lists import PathList, names_of
from service.settings.names import SettingsError

NAMES = st.lists(st.binary(min_size=1, max_size=8).filter(lambda name: not {0, 10, 13} & set(name)), max_size=8)


class Pieces(io.BytesIO):
    """Gives a few bytes at a time, as a pipe may."""

    def __init__(self, data: bytes, size: int) -> None:
        super().__init__(data)
        self._size = size

    def read(self, size: int | None = -1) -> bytes:
        return super().read(self._size)


@given(names=NAMES, separator=st.sampled_from([b"\n", b"\r\n", b"\0"]), size=st.integers(1, 9), ends=st.booleans())
def test_names_come_out_whole(names: list[bytes], separator: bytes, size: int, ends: bool) -> None:
    data = separator.join(names) + separator * (ends and bool(names))
    assert list(names_of(Pieces(data, size))) == names


def test_a_name_may_hold_a_line_end_where_nuls_separate() -> None:
    assert list(names_of(io.BytesIO(b"two\nlines.png\0b.png\0"))) == [b"two\nlines.png", b"b.png"]


def test_a_name_that_is_not_utf8_names_its_file(tmp_path: Path) -> None:
    (tmp_path / "list").write_bytes(b"caf\xe9.png\n\nb.png\n")
    assert [os.fsencode(picture.path) for picture in PathList(str(tmp_path / "list"))] == [b"caf\xe9.png", b"b.png"]


def test_an_editors_mark_is_no_part_of_the_first_name(tmp_path: Path) -> None:
    (tmp_path / "list").write_bytes(b"\xef\xbb\xbfa.png\r\n\r\nb.png")
    assert [picture.path for picture in PathList(str(tmp_path / "list"))] == ["a.png", "b.png"]


def test_a_list_that_cannot_be_read_is_an_error_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "list").write_bytes(b"a.png\n")
    names = PathList(str(tmp_path / "list"))
    (tmp_path / "list").unlink()
    (failed,) = names
    assert failed.error == "the list cannot be read to its end: No such file or directory"


def test_a_standard_input_that_is_closed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(SettingsError, match="standard input is closed"):
        PathList("-")


def test_a_list_that_is_not_there_is_named(tmp_path: Path) -> None:
    for missing in (tmp_path / "missing", tmp_path):
        with pytest.raises(SettingsError, match="there is no list"):
            PathList(str(missing))
