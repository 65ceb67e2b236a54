"""What users name: files, folders, patterns, braces, shards, tables and lists."""

import os
from pathlib import Path
from typing import Any

import lance
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from model.images.image_files import folder_files
from service.jobs.sources.named import NamedSources, expanded
from service.settings.names import SettingsError
from tests.service.jobs.sources.test_tars import shard


def sources(*names: object, lists: tuple[str, ...] = ()) -> NamedSources:
    return NamedSources([str(name) for name in names], lists, most_file_bytes=10**6)


def paths(*names: object, lists: tuple[str, ...] = ()) -> list[str]:
    return [picture.path for picture in sources(*names, lists=lists).source]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("b.jpg", "a/z.PNG", "a/y/x.webp", "a.jpg", "a/notes.txt", "a-b/c.gif", "empty/.keep"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path


def test_braces_count_and_list(tree: Path) -> None:
    assert expanded("x-{08..11}.tar") == ["x-08.tar", "x-09.tar", "x-10.tar", "x-11.tar"]
    assert expanded("{2..0}") == ["2", "1", "0"]
    assert expanded("{a,b}/{0..1}.tar") == ["a/0.tar", "a/1.tar", "b/0.tar", "b/1.tar"]
    assert expanded("{x}.jpg") == ["{x}.jpg"]
    (tree / "{0..9}.jpg").write_bytes(b"")
    assert expanded(str(tree / "{0..9}.jpg")) == [str(tree / "{0..9}.jpg")]
    with pytest.raises(SettingsError, match="more than 1,000,000 names"):
        expanded("{0..9999999}")
    with pytest.raises(SettingsError, match="more than 1,000,000 names"):
        expanded("{0..99999}{0..99999}")


def test_a_folder_gives_its_images_in_the_order_of_folder_files(tree: Path) -> None:
    os.symlink(tree / "a", tree / "0-link.jpg")
    os.symlink(tree / "nowhere", tree / "c.jpg")
    found = sources(tree)
    assert found.source.total == 6
    images = folder_files(tree).images
    assert [picture.path for picture in found.source] == [*map(str, images), str(tree / "c.jpg")]
    assert images == sorted(images)
    assert str(found.others) == "1 without a suffix (.keep), 1 .txt (notes.txt)"


def test_a_folder_is_listed_without_asking_for_each_file(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a network file system each question is a round trip."""
    asked: list[str] = []
    stat = os.stat

    def counted(path: Any, **options: Any) -> os.stat_result:
        asked.append(os.fspath(path))
        return stat(path, **options)

    monkeypatch.setattr(os, "stat", counted)
    assert len(paths(tree)) == 5
    assert set(map(Path, asked)) == {tree, *(tree / name for name in ("a", "a/y", "a-b", "empty"))}


def test_a_pattern_gives_the_files_that_it_matches_sorted(tree: Path) -> None:
    assert paths(tree / "*.jpg") == [str(tree / "a.jpg"), str(tree / "b.jpg")]
    assert paths(tree / "**/*.[Pgw]*") == [str(tree / name) for name in ("a/y/x.webp", "a/z.PNG", "a-b/c.gif")]
    everything = sources(tree / "**")
    assert [picture.path for picture in everything.source] == [str(path) for path in folder_files(tree).images]
    assert "notes.txt" in str(everything.others)
    with pytest.raises(SettingsError, match="no file matches"):
        sources(tree / "*.bmp")


def test_sources_of_all_kinds_come_one_after_another(tree: Path) -> None:
    for name in ("s-0.tar", "s-1.tar"):
        shard(tree / name, {"m.png": b"m"})
    (tree / "list").write_text("q.jpg\nr.jpg\n")
    found = paths(tree / "s-{0..1}.tar", tree / "b.jpg", tree / "a-b", "named.dat", lists=(str(tree / "list"),))
    inside = [str(tree / name) for name in ("s-0.tar/m.png", "s-1.tar/m.png", "b.jpg", "a-b/c.gif")]
    assert found == [*inside, "named.dat", "q.jpg", "r.jpg"]
    assert sources(tree / "s-0.tar", tree / "b.jpg").source.total is None
    assert sources(tree / "b.jpg", tree / "a-b").source.total == 2


def test_any_folders_of_a_pattern_follow_no_links(tree: Path) -> None:
    os.symlink(tree, tree / "a/up")
    os.symlink("..", tree / "a/y/up")
    assert paths(tree / "**/a/**/*.webp") == [str(tree / "a/y/x.webp")]
    assert paths(tree / "a/up/**/x.*") == [str(tree / "a/up/a/y/x.webp")]


def test_a_pattern_leaves_pipes_out(tree: Path) -> None:
    os.mkfifo(tree / "pipe")
    assert paths(tree / "[bp]*") == [str(tree / "b.jpg")]


def test_what_a_system_takes_for_no_name_is_a_picture_that_cannot_be_read(tree: Path) -> None:
    assert paths("x" * 300, f"{'y' * 300}{{a,b}}") == ["x" * 300, "y" * 300 + "a", "y" * 300 + "b"]
    with pytest.raises(SettingsError, match="is empty"):
        sources("")


def test_what_is_written_is_no_source(tree: Path) -> None:
    out = tree / "b.jpg"
    os.link(out, tree / "also.jpg")
    for names, lists in (([str(tree / "also.jpg")], []), ([], [str(out)])):
        with pytest.raises(SettingsError, match="--out would replace it"):
            NamedSources(names, lists, most_file_bytes=9, out=out)
    matched = NamedSources([str(tree / "*.jpg")], most_file_bytes=9, out=out).source
    assert [picture.path for picture in matched] == [str(tree / "a.jpg")]


def test_a_folder_may_be_called_as_a_shard(tree: Path) -> None:
    (tree / "a-b").rename(tree / "d.tar")
    assert paths(tree / "d.tar") == [str(tree / "d.tar/c.gif")]


@pytest.mark.parametrize("name", ["https://example.com/cat.jpg", "s3://bucket/{0..9}.tar", "hf://datasets/x/*.parquet"])
def test_a_url_is_no_source(name: str) -> None:
    with pytest.raises(SettingsError, match="is a URL, and files are read here"):
        sources(name)


def test_any_folders_of_a_pattern_are_not_those_of_a_dataset(tree: Path) -> None:
    lance.write_dataset(pa.table({"image": [b"1"]}), str(tree / "a/x.lance"))
    assert paths(tree / "a/**/*.lance") == [f"{tree}/a/x.lance#0"]
    assert paths(tree / "a/**") == [str(tree / name) for name in ("a/x.lance#0", "a/y/x.webp", "a/z.PNG")]


def test_a_table_may_be_empty_and_a_folder_may_not(tree: Path) -> None:
    pq.write_table(pa.table({"image": pa.array([], pa.binary())}), tree / "x.PARQUET")
    assert not sources(tree / "x.PARQUET").is_empty
    assert sources(tree / "empty").is_empty


def test_standard_input_is_one_list() -> None:
    with pytest.raises(SettingsError, match="named twice"):
        sources("-", lists=("-",))
