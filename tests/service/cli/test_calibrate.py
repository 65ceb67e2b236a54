"""`packlight calibrate`, and a server that takes its file."""

import json
from pathlib import Path
from typing import Any

import pytest

from service.__main__ import main
from service.calibration import Calibration, read_calibration, write_calibration
from service.int8_scale import FIXED_CLIP
from service.loading import load_runner
from service.settings.names import SettingsError
from service.settings.settings import Settings
from tests import pictures
from tests.service.running import serving

FLOAT32 = ("--devices", "cpu", "--dtype", "float32")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("photos")
    for name in ("rocket.jpg", "page.png", "text.png"):
        (made / name).write_bytes(pictures.photograph_file(name))
    return made


@pytest.fixture(scope="module")
def calibration(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "int8.json"
    assert main(["calibrate", str(folder), "--out", str(out), "--max-tokens", "64", *FLOAT32]) == 0
    return out


def test_a_link_that_leads_nowhere_is_named(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = tmp_path / "photos"
    made.mkdir()
    (made / "page.png").symlink_to(folder / "page.png")
    (made / "gone.png").symlink_to("nowhere.png")
    assert main(["calibrate", str(made), "--out", str(tmp_path / "x.json"), "--max-tokens", "16", *FLOAT32]) == 1
    assert f"{made / 'gone.png'}: the link leads nowhere\n" in capsys.readouterr().err


def load(**settings: Any) -> Any:
    return load_runner(Settings(devices="cpu", **({"dtype": "float32"} | settings)))


def test_the_file_names_the_vectors_that_it_is_for(calibration: Path, bundled: Any) -> None:
    read = read_calibration(calibration)
    assert (read.model, read.fingerprint) == ("packlight-tiny", bundled[1].fingerprint)
    assert (read.dimensions, read.pictures) == (256, 3)
    assert 2 < read.clip < FIXED_CLIP


def test_a_server_uses_it_and_says_so(calibration: Path, png: bytes) -> None:
    clip = read_calibration(calibration).clip
    with serving(load(int8_calibration=calibration)) as server:
        about = server.http.get("/info").json()["vectors"]["int8"]
        assert (about["clip"], about["calibrated"]) == (clip, True)
        assert about["factor"] == pytest.approx(127 * 16 / clip)
        (whole,) = server.embed(png).json()["data"]
        (scaled,) = server.embed(png, embedding_type="int8").json()["data"]
        factor = about["factor"]
        for number, value in zip(whole["embedding"], scaled["embedding"], strict=True):
            assert value == max(-127, min(127, round(number * factor)))


def test_it_serves_every_dtype_and_files_of_earlier_versions(calibration: Path, tmp_path: Path, bundled: Any) -> None:
    read = read_calibration(calibration)
    old = tmp_path / "old.json"
    old_form = next(old for old, new in bundled[1].old_fingerprints.items() if new == read.fingerprint)
    write_calibration(old, read.model_copy(update={"fingerprint": old_form}))
    for path in (calibration, old):
        assert load(int8_calibration=path, dtype="bfloat16")[1].int8.clip == read.clip


def test_vectors_of_another_identity_refuse_to_start(calibration: Path) -> None:
    with pytest.raises(SettingsError) as refused:
        load(int8_calibration=calibration, anyres_tile=128)
    message = str(refused.value)
    assert (
        "int8_calibration (PACKLIGHT_INT8_CALIBRATION, --int8-calibration) is for vectors of packlight-tiny" in message
    )
    assert "packlight calibrate" in message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"clip": 0}, "clip: input should be greater than 0"),
        ({"clip": "4"}, "clip: input should be a valid number"),
        ({"clip": float("inf")}, "clip"),
        ({"clip": None}, "clip"),
        ({"scale": 1}, "scale: extra inputs are not permitted"),
        ({"packlight": "index"}, "packlight: input should be 'int8 calibration'"),
        ({"pictures": 0}, "pictures"),
    ],
)
def test_a_file_with_a_wrong_value_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = tmp_path / "file.json"
    content = Calibration(model="m", fingerprint="f", dimensions=4, pictures=9, clip=4.0).model_dump() | change
    path.write_text(json.dumps(content))
    with pytest.raises(SettingsError, match="no file of `packlight calibrate`") as refused:
        read_calibration(path)
    assert message in str(refused.value)
    assert str(path) in str(refused.value)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff", b"4", b"{" * 100_000])
def test_a_file_of_anything_else_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file.json"
    path.write_bytes(content)
    with pytest.raises(SettingsError, match=f"'{path}', which is no file of"):
        read_calibration(path)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.json"):
        with pytest.raises(SettingsError, match=f"int8_calibration .* is '{path}': "):
            read_calibration(path)


def test_what_cannot_be_calibrated_says_why(tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    out = tmp_path / "out.json"
    assert main(["calibrate", str(empty), "--out", str(out)]) == 2
    assert "holds no image file" in capsys.readouterr().err
    (empty / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    assert main(["calibrate", str(empty), "--out", str(out), *FLOAT32]) == 2
    assert "holds no image that can be embedded" in capsys.readouterr().err
    assert not out.exists()
    with pytest.raises(SystemExit):
        main(["calibrate", str(folder), "--out", str(tmp_path / "no" / "folder.json")])


def test_a_stale_calibration_does_not_stand_in_the_way_of_the_next(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    old = tmp_path / "old.json"
    old.write_text("stale")
    monkeypatch.setenv("PACKLIGHT_INT8_CALIBRATION", str(old))
    (folder / "notes.png").write_text("no picture")
    out = tmp_path / "new.json"
    assert main(["calibrate", str(folder), "--out", str(out), "--max-tokens", "16", *FLOAT32]) == 1
    (folder / "notes.png").unlink()
    assert read_calibration(out).pictures == 3
    printed = capsys.readouterr()
    assert "from 3 pictures; more than 100 would be better" in printed.out
    assert f"--int8-calibration {out}" in printed.out
    assert "notes.png" in printed.err
