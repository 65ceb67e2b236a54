"""What is recorded is read as it was written, or not at all."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from service.canary.files import Recording, Subject, canary_folder, read_recording, write_recording

SUBJECT = Subject("4ba8656fa140374a-bfloat16", "62f0b14b0c21b7ad-bfloat16", "0123456789abcdef")
RECORDING = Recording(
    {"icon": np.arange(8, dtype=np.float32)[None], "text 1": np.ones((1, 8), np.float32)},
    0.003,
    {"text 1": np.array([5, 6, 7], np.int32)},
)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    write_recording(tmp_path, SUBJECT, RECORDING, made_by="tests")
    return tmp_path


def file_of(folder: Path) -> Path:
    (file,) = folder.iterdir()
    return file


def test_what_was_written_is_read(written: Path) -> None:
    read = read_recording(written, SUBJECT)
    assert read is not None
    assert read.measured == 0.003
    assert all(np.array_equal(read.vectors[name], each) for name, each in RECORDING.vectors.items())
    assert np.array_equal(read.ids["text 1"], [5, 6, 7])


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data[:-1],
        lambda data: b"",
        lambda data: data[:100] + bytes([data[100] ^ 1]) + data[101:],
        lambda data: bytes(32) + data[32:],
    ],
)
def test_a_broken_file_counts_as_none_and_is_written_again(written: Path, spoil: Callable[[bytes], bytes]) -> None:
    file = file_of(written)
    file.write_bytes(spoil(file.read_bytes()))
    assert read_recording(written, SUBJECT) is None
    write_recording(written, SUBJECT, RECORDING, made_by="tests")
    assert read_recording(written, SUBJECT) is not None


@pytest.mark.parametrize(
    "other",
    [
        replace(SUBJECT, fingerprint="0000000000000000-bfloat16"),
        replace(SUBJECT, fingerprint="4ba8656fa140374a-float32"),
        replace(SUBJECT, text_fingerprint=""),
        replace(SUBJECT, drawn="another"),
    ],
)
def test_a_file_of_something_else_counts_as_none_under_any_name(written: Path, other: Subject) -> None:
    assert read_recording(written, other) is None
    file_of(written).rename(written / other.file_name)
    assert read_recording(written, other) is None


def test_numbers_that_are_not_finite_are_not_read(tmp_path: Path) -> None:
    spoiled = replace(RECORDING, vectors={"icon": np.full((1, 8), np.nan, np.float32)})
    write_recording(tmp_path, SUBJECT, replace(spoiled, ids={}), made_by="tests")
    assert read_recording(tmp_path, SUBJECT) is None


def test_the_folder_is_beside_checkpoints_or_in_the_users_cache(tmp_path: Path) -> None:
    hub, users = tmp_path / "hub", tmp_path / "users"
    assert canary_folder({"HF_HOME": str(hub), "XDG_CACHE_HOME": str(users)}) == hub / "packlight-canary"
    assert canary_folder({"XDG_CACHE_HOME": str(users)}) == users / "packlight-canary"
    assert canary_folder({"HOME": str(tmp_path)}) == tmp_path / ".cache/packlight-canary"


def test_where_nothing_can_be_written_a_temporary_folder_of_the_user_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    found = canary_folder({"HF_HOME": str(tmp_path / "file"), "HOME": str(tmp_path / "file")})
    assert found == tmp_path / f"packlight-canary-{os.getuid()}"
    assert found.stat().st_mode & 0o077 == 0
