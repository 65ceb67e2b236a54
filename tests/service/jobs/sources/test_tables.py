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


@pytest.mark.parametrize("kind", ["parquet", "lance"])
def test_a_column_of_lists_has_several_pictures_a_row(tmp_path: Path, kind: str) -> None:
    images = [[{"bytes": b"1", "path": None}, {"bytes": None, "path": "2.png"}], None, [], [None]]
    path = table(tmp_path, kind, {"images": images, "hash": [[1], [2], [3], [4]]})
    source = TableSource(path, column=None, most_file_bytes=10)
    assert source.total is None
    assert list(source) == [
        Picture(f"{path}#0.0", b"1"), Picture("2.png", Path("2.png")),
        Picture(f"{path}#3.0", error="the row has no picture"),
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["parquet", "lance"])
@pytest.mark.parametrize("column", ["sample.image", "sample.image.bytes"])
def test_a_column_may_lie_in_another(tmp_path: Path, kind: str, column: str) -> None:
    rows = [{"image": {"bytes": b"1", "path": None}, "n": 1}, None, {"image": None, "n": 2}]
    path = table(tmp_path, kind, {"sample": rows})
    assert list(TableSource(path, column=column, most_file_bytes=10)) == [
        Picture(f"{path}#0", b"1"), Picture(f"{path}#1", error="the row has no picture"),
        Picture(f"{path}#2", error="the row has no picture"),
    ]  # fmt: skip


def test_pictures_that_lance_keeps_as_blobs_are_read(tmp_path: Path) -> None:
    field = pa.field("image", pa.large_binary(), metadata={"lance-encoding:blob": "true"})
    path = tmp_path / "x.lance"
    lance.write_dataset(pa.table({"image": pa.array([b"1", b"22"], pa.large_binary())}, pa.schema([field])), str(path))
    assert [row.data for row in TableSource(path, column=None, most_file_bytes=10)] == [b"1", b"22"]


def test_a_cell_that_is_no_file_here_says_what_it_is(tmp_path: Path) -> None:
    path = table(tmp_path, "parquet", {"image": ["https://a.b/c.jpg", "S3://b/c.jpg", "shards/0.TAR", "a:b.jpg"]})
    url, store, shard, file = TableSource(path, column=None, most_file_bytes=10)
    assert "it is a URL" in url.error
    assert "it is a URL" in store.error
    assert "as a source of its own" in shard.error
    assert (file.error, file.data) == ("", Path("a:b.jpg"))


@pytest.mark.parametrize(
    ("columns", "asked", "taken"),
    [
        ({"photo_bytes": pa.binary(), "path": pa.string()}, None, "photo_bytes"),
        ({"hash": pa.binary(), "jpg": pa.binary_view()}, None, "jpg"),
        ({"File_Name": pa.large_string(), "caption": pa.string()}, None, "File_Name"),
        ({"where": pa.string(), "image": pa.binary()}, "where", "where"),
        ({"path": pa.dictionary(pa.int32(), pa.string()), "n": pa.int32()}, None, "path"),
        ({"jpg": pa.dictionary(pa.int32(), pa.binary()), "n": pa.int32()}, "jpg", "jpg"),
        ({"pages": pa.list_(pa.binary()), "jpg": pa.binary()}, None, "jpg"),
        ({"pages": pa.large_list(pa.binary()), "n": pa.list_(pa.int32())}, None, "pages"),
        ({"image.jpg": pa.binary(), "a": pa.binary()}, "image.jpg", "image.jpg"),
        ({"s": pa.struct({"n": pa.int32()})}, "s.n", "the column s.n of t is int32"),
        ({"s": pa.struct({"n": pa.int32()})}, "s.n.m", "t has no column s.n.m; it has s.n"),
        (
            {"s": pa.struct({"a": pa.struct({"bytes": pa.binary()}), "n": pa.int8()})},
            None,
            "--column names one of s.a, s.n",
        ),
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


@pytest.mark.parametrize("columns", [{"x": [b"1"]}, {"image": [1.5]}, {"image": [[b"1"]]}, None])
def test_a_table_that_was_replaced_before_it_is_read_is_an_error(
    tmp_path: Path, columns: dict[str, Any] | None
) -> None:
    path = table(tmp_path, "parquet", {"image": [b"1"]})
    source = TableSource(path, column=None, most_file_bytes=10)
    path.unlink() if columns is None else table(tmp_path, "parquet", columns)
    reason = "it was replaced by a table with other columns" if columns else "No such file or directory"
    assert list(source) == [Picture(str(path), error=f"the table cannot be read after row 0: {reason}")]


def test_a_dictionary_stands_for_its_values(tmp_path: Path) -> None:
    path = table(tmp_path, "parquet", {"path": pa.array(["x.png", "y.png", "x.png"]).dictionary_encode()})
    assert [row.path for row in TableSource(path, column=None, most_file_bytes=10)] == ["x.png", "y.png", "x.png"]


def test_a_path_that_is_not_utf8_is_an_error(tmp_path: Path) -> None:
    names = pa.array([b"\xff.png", b"a.png"]).view(pa.string())
    path = table(tmp_path, "parquet", {"path": names})
    first, second = TableSource(path, column=None, most_file_bytes=10)
    assert (first.error, second.path) == ("the path is not UTF-8", "a.png")
    images = pa.StructArray.from_arrays([pa.array([None, b"1"]), names], names=["bytes", "path"])
    path = table(tmp_path, "parquet", {"image": images.take(pa.array([0, 1, 0]))})
    first, second, _ = TableSource(path, column=None, most_file_bytes=10)
    assert (first.error, second.data) == ("the path is not UTF-8", b"1")


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
