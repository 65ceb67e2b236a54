"""Parquet and Lance with bytes or paths, and which column is taken."""

from pathlib import Path
from typing import Any

import lance
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.jobs.rows import Picture
from service.jobs.sources.columns import picture_column
from service.jobs.sources.tables import TableSource
from service.settings.names import SettingsError


def table(tmp_path: Path, kind: str, columns: dict[str, Any]) -> Path:
    path = tmp_path / f"x.{kind}"
    if kind == "parquet":
        pq.write_table(pa.table(columns), path, row_group_size=50)
    else:
        lance.write_dataset(pa.table(columns), str(path), max_rows_per_file=50)
    return path


@pytest.mark.parametrize("kind", ["parquet", "lance"])
def test_bytes_are_called_by_table_and_row(tmp_path: Path, kind: str) -> None:
    data = [bytes([number]) * 3 for number in range(120)]
    data[7] = b""
    path = table(tmp_path, kind, {"label": list(range(120)), "image": pa.array(data, pa.large_binary())})
    source = TableSource(path, column=None, most_file_bytes=10)
    assert source.total == 120
    found = list(source)
    assert found[7] == Picture(f"{path}#7", error="the row has no picture")
    assert found[:7] + found[8:] == [
        Picture(f"{path}#{number}", each) for number, each in enumerate(data) if number != 7
    ]


@pytest.mark.parametrize("kind", ["parquet", "lance"])
def test_paths_are_called_by_themselves(tmp_path: Path, kind: str) -> None:
    path = table(tmp_path, kind, {"caption": ["a", "b", "c"], "path": ["x.png", None, "y/z.jpg"]})
    assert list(TableSource(path, column=None, most_file_bytes=10)) == [
        Picture("x.png", Path("x.png")), Picture(f"{path}#1", error="the row has no picture"),
        Picture("y/z.jpg", Path("y/z.jpg")),
    ]  # fmt: skip


def test_the_image_of_hugging_faces_datasets_is_taken(tmp_path: Path) -> None:
    images = [{"bytes": b"1", "path": "1.png"}, {"bytes": None, "path": "2.png"}, {"bytes": bytes(11), "path": None}]
    path = table(tmp_path, "parquet", {"image": images, "hash": pa.array([b"x"] * 3)})
    first, second, third = TableSource(path, column=None, most_file_bytes=10)
    assert (first, second) == (Picture(f"{path}#0", b"1"), Picture("2.png", Path("2.png")))
    assert "more than 10 bytes" in third.error


@pytest.mark.parametrize(
    ("columns", "asked", "taken"),
    [
        ({"photo_bytes": pa.binary(), "path": pa.string()}, None, "photo_bytes"),
        ({"hash": pa.binary(), "jpg": pa.binary_view()}, None, "jpg"),
        ({"File_Name": pa.large_string(), "caption": pa.string()}, None, "File_Name"),
        ({"where": pa.string(), "image": pa.binary()}, "where", "where"),
        ({"path": pa.dictionary(pa.int32(), pa.string()), "n": pa.int32()}, None, "path"),
        ({"jpg": pa.dictionary(pa.int32(), pa.binary()), "n": pa.int32()}, "jpg", "jpg"),
        ({"a": pa.binary(), "b": pa.binary()}, None, "a and b of t may both be the pictures"),
        ({"caption": pa.string(), "n": pa.int32()}, None, "--column names one of caption, n"),
        ({"n": pa.int32()}, "n", "the column n of t is int32: neither bytes nor paths"),
        ({"n": pa.int32()}, "m", "t has no column m; it has n"),
    ],
)
def test_the_column_of_pictures_is_found_or_asked_for(
    columns: dict[str, pa.DataType], asked: str | None, taken: str
) -> None:
    schema = pa.schema(list(columns.items()))
    if taken in columns:
        assert picture_column(schema, asked, table="t") == taken
    else:
        with pytest.raises(SettingsError, match=taken):
            picture_column(schema, asked, table="t")


def test_a_table_that_is_cut_is_refused_by_name(tmp_path: Path) -> None:
    path = table(tmp_path, "parquet", {"path": ["x.png"] * 100})
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(SettingsError, match=r"x\.parquet cannot be opened"):
        TableSource(path, column=None, most_file_bytes=10)


def test_a_dictionary_stands_for_its_values(tmp_path: Path) -> None:
    path = table(tmp_path, "parquet", {"path": pa.array(["x.png", "y.png", "x.png"]).dictionary_encode()})
    assert [row.path for row in TableSource(path, column=None, most_file_bytes=10)] == ["x.png", "y.png", "x.png"]


def test_a_path_that_is_not_utf8_is_an_error(tmp_path: Path) -> None:
    names = pa.array([b"\xff.png", b"a.png"]).view(pa.string())
    path = table(tmp_path, "parquet", {"path": names})
    first, second = TableSource(path, column=None, most_file_bytes=10)
    assert (first.error, second.path) == ("the path is not UTF-8", "a.png")


def test_a_column_that_is_there_twice_cannot_be_named(tmp_path: Path) -> None:
    schema = pa.schema([("image", pa.binary())] * 2)
    with pytest.raises(SettingsError, match="has 2 columns image"):
        picture_column(schema, "image", table="t")


@pytest.mark.parametrize("kind", ["parquet", "lance"])
def test_a_name_may_look_like_an_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a:b").mkdir()
    path = table(tmp_path, kind, {"image": [b"1"]}).rename(f"a:b/x.{kind}")
    assert [row.data for row in TableSource(Path(f"a:b/x.{kind}"), column=None, most_file_bytes=10)] == [b"1"]
    assert path


def test_a_folder_of_parquet_is_told_how_to_name_its_files(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").mkdir()
    with pytest.raises(SettingsError, match=r"x\.parquet/\*\.parquet' names its files"):
        TableSource(tmp_path / "x.parquet", column=None, most_file_bytes=10)
