"""The index of a folder: vectors follow the content of files, whatever their names are."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from numpy.typing import NDArray

from service.cli.folder_index import FolderIndex

MEANING = {"max_tokens": "64"}
FLOAT32, BFLOAT16, OTHER = "0123456789abcdef-float32", "0123456789abcdef-bfloat16", "fedcba9876543210-float32"


def opened(folder: Path, fingerprint: str = FLOAT32, **meaning: str) -> FolderIndex:
    old_forms = {"aaaaaaaaaaaaaaaa": FLOAT32, "bbbbbbbbbbbbbbbb": BFLOAT16}
    return FolderIndex(folder, MEANING | meaning, fingerprint=fingerprint, old_forms=old_forms)


def vector(value: float) -> NDArray[np.float32]:
    return np.full(4, value, np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "photos"
    (made / "below").mkdir(parents=True)
    for value, name in enumerate(("a.jpg", "b.jpg", "below/c.jpg")):
        (made / name).write_bytes(b"%d" % value)
    return made


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def filled(folder: Path, fingerprint: str = FLOAT32) -> FolderIndex:
    """An index in which each file's vector is the number that it holds."""
    index = opened(folder, fingerprint)
    for file in index.missing(files(folder)):
        index.add(file, vector(float(file.read_bytes())))
    index.save()
    return index


def shown(index: FolderIndex, folder: Path) -> dict[str, float]:
    found, vectors = index.vectors()
    return {str(file.relative_to(folder)): float(row[0]) for file, row in zip(found, vectors, strict=True)}


def test_a_folder_that_did_not_change_needs_nothing(folder: Path) -> None:
    filled(folder)
    index = opened(folder)
    assert index.missing(files(folder)) == []
    assert shown(index, folder) == {"a.jpg": 0, "b.jpg": 1, "below/c.jpg": 2}


def test_a_renamed_and_a_copied_file_keep_their_vectors(folder: Path) -> None:
    filled(folder)
    (folder / "a.jpg").rename(folder / "below/z.jpg")
    shutil.copy(folder / "b.jpg", folder / "copy.jpg")
    index = opened(folder)
    assert index.missing(files(folder)) == []
    assert shown(index, folder) == {"b.jpg": 1, "below/c.jpg": 2, "below/z.jpg": 0, "copy.jpg": 1}


def test_a_folder_that_was_moved_with_its_index_keeps_its_vectors(folder: Path) -> None:
    index = filled(folder)
    moved = folder.rename(folder.with_name("pictures"))
    index.path.rename(moved.with_name("pictures.packlight-index"))
    assert opened(moved).missing(files(moved)) == []


def test_a_file_that_changed_is_missing_even_if_its_size_did_not(folder: Path) -> None:
    filled(folder)
    (folder / "a.jpg").write_bytes(b"7")
    os.utime(folder / "a.jpg", ns=(1, 1))
    index = opened(folder)
    assert index.missing(files(folder)) == [folder / "a.jpg"]
    assert "a.jpg" not in shown(index, folder)


def test_equal_files_are_missing_once(folder: Path) -> None:
    (folder / "b.jpg").write_bytes(b"0")
    assert len(opened(folder).missing(files(folder))) == 2


def test_a_file_that_is_gone_leaves_the_index(folder: Path) -> None:
    filled(folder)
    (folder / "a.jpg").unlink()
    index = opened(folder)
    index.missing(files(folder))
    index.save()
    assert shown(opened(folder), folder) == {"b.jpg": 1, "below/c.jpg": 2}


def test_vectors_of_another_meaning_are_made_again(folder: Path) -> None:
    filled(folder)
    assert len(opened(folder, max_tokens="65").missing(files(folder))) == 3


def test_vectors_of_another_identity_are_made_again_and_named(folder: Path) -> None:
    filled(folder)
    index = opened(folder, OTHER)
    assert (index.others, index.dropped) == ([FLOAT32], True)
    assert len(index.missing(files(folder))) == 3


def test_vectors_of_another_dtype_are_kept_and_named_from_then_on(folder: Path) -> None:
    filled(folder, BFLOAT16)
    (folder / "d.jpg").write_bytes(b"3")
    index = filled(folder, FLOAT32)
    assert (index.others, index.dropped) == ([BFLOAT16], False)
    assert shown(index, folder) == {"a.jpg": 0, "b.jpg": 1, "below/c.jpg": 2, "d.jpg": 3}
    again = opened(folder, FLOAT32)
    assert again.others == [BFLOAT16]
    assert again.missing(files(folder)) == []


def test_an_index_of_an_earlier_version_is_known_by_the_old_form(folder: Path) -> None:
    filled(folder, "aaaaaaaaaaaaaaaa")
    assert opened(folder, FLOAT32).missing(files(folder)) == []
    assert opened(folder, FLOAT32).others == []
    assert opened(folder, BFLOAT16).others == [FLOAT32]


def test_an_index_of_an_earlier_version_kept_names_in_its_header(folder: Path) -> None:
    path = filled(folder).path
    with safetensors.safe_open(path, "numpy") as file:
        names = {name: file.get_tensor(name).tobytes().decode() for name in ("digests", "files")}
        old = safetensors.numpy.save({"embeddings": file.get_tensor("embeddings")}, file.metadata() | names)
    path.write_bytes(old)
    index = opened(folder)
    assert index.missing(files(folder)) == []
    assert shown(index, folder) == {"a.jpg": 0, "b.jpg": 1, "below/c.jpg": 2}


def test_the_header_of_an_index_does_not_grow_with_the_folder(folder: Path) -> None:
    """One of more than 100 MB, as that of half a million files, could be neither written nor read."""
    for value in range(40):
        (folder / f"{'long' * 50}{value}.jpg").write_bytes(b"%d" % value)
    assert int.from_bytes(filled(folder).path.read_bytes()[:8], "little") < 600
    assert opened(folder).missing(files(folder)) == []


@pytest.mark.parametrize("content", [b"", b"no index", b"\x10" + bytes(40)])
def test_a_file_that_is_no_index_is_replaced(folder: Path, content: bytes) -> None:
    index = filled(folder)
    index.path.write_bytes(content)
    assert len(opened(folder).missing(files(folder))) == 3
    filled(folder)
    assert opened(folder).missing(files(folder)) == []


def test_an_index_that_cannot_be_written_leaves_the_old_one_and_nothing_else(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = filled(folder)
    before = index.path.read_bytes()
    (folder / "a.jpg").unlink()
    index.missing(files(folder))

    def full(self: Path, data: bytes) -> int:
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="no space"):
        index.save()
    assert index.path.read_bytes() == before
    assert sorted(path.name for path in folder.parent.iterdir()) == ["photos", "photos.packlight-index"]


def test_a_file_that_cannot_be_read_is_missing(folder: Path) -> None:
    gone = folder / "gone.jpg"
    assert gone in opened(folder).missing([*files(folder), gone])


def test_a_name_that_is_not_unicode_is_kept(folder: Path) -> None:
    odd = Path(os.fsdecode(os.fsencode(folder) + b"/\xff.jpg"))
    odd.write_bytes(b"9")
    filled(folder)
    index = opened(folder)
    assert index.missing(files(folder)) == []
    assert odd in index.vectors()[0]


def test_a_file_that_changes_while_it_is_embedded_stays_missing(folder: Path) -> None:
    shutil.copy(folder / "b.jpg", folder / "copy.jpg")
    index = opened(folder)
    for file in index.missing(files(folder)):
        if file.name == "b.jpg":
            file.write_bytes(b"77")
        index.add(file, vector(float(file.read_bytes())))
    index.save()
    index = opened(folder)
    assert [file.name for file in index.missing(files(folder))] == ["b.jpg", "copy.jpg"]


def test_an_index_that_did_not_change_is_not_written_again(folder: Path) -> None:
    path = filled(folder).path
    before = path.stat().st_ino
    index = opened(folder)
    index.missing(files(folder))
    index.save()
    assert path.stat().st_ino == before
    (folder / "a.jpg").unlink()
    index.missing(files(folder))
    index.save()
    assert path.stat().st_ino != before
