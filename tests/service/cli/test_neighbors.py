"""`packlight embed --neighbors`, run as a user does."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from service.__main__ import main
from service.cli.neighbors import nearest
from tests import pictures


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three pictures, one of them in a subfolder, and a file that is not a picture."""
    folder = tmp_path / "pictures"
    (folder / "below").mkdir(parents=True)
    for seed, name in enumerate(("a.png", "b.JPG", "below/c.webp")):
        pictures.picture(60, 80, seed=seed).save(folder / name)
    (folder / "notes.txt").write_text("not a picture")
    return folder


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    status = main(["embed", "--max-tokens", "16", *map(str, arguments)])
    out, err = capsys.readouterr()
    return status, out, err


def test_a_copy_under_another_name_comes_first_with_similarity_1(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy.png"
    shutil.copy(folder / "a.png", copy)
    status, out, err = run(capsys, "--neighbors", folder, copy)
    assert status == 0
    image, *neighbors = out.splitlines()
    assert image == str(copy)
    assert neighbors[0].split() == ["1.000", str(folder / "a.png")]
    assert {line.split()[1] for line in neighbors[1:]} == {str(folder / "b.JPG"), str(folder / "below" / "c.webp")}
    similarities = [float(line.split()[0]) for line in neighbors]
    assert similarities == sorted(similarities, reverse=True)
    assert "4 embedded" in err


def test_an_image_of_the_folder_is_embedded_once_and_is_not_its_own_neighbor(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder / "below")
    status, out, err = run(capsys, "--neighbors", folder, "../a.png", "--top", 9)
    assert status == 0
    image, *neighbors = out.splitlines()
    assert image == "../a.png"
    assert {line.split()[1] for line in neighbors} == {str(folder / "b.JPG"), str(folder / "below" / "c.webp")}
    assert "3 embedded" in err


def test_top_is_how_many_are_printed_for_each_image(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "--neighbors", folder, folder / "a.png", folder / "b.JPG", "--top", 1)
    assert status == 0
    assert [line.startswith("  ") for line in out.splitlines()] == [False, True, False, True]


def test_five_are_printed_unless_asked(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in range(10, 14):
        pictures.picture(30, 30, seed=seed).save(folder / f"{seed}.png")
    assert len(run(capsys, "--neighbors", folder, folder / "a.png")[1].splitlines()) == 1 + 5


def test_a_bad_file_is_named_the_others_are_done_and_the_status_says_so(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "broken.png").write_text("not a picture")
    missing = tmp_path / "missing.jpg"
    status, out, err = run(capsys, "--neighbors", folder, missing, folder / "a.png")
    assert status == 1
    assert f"{folder / 'broken.png'}: not an image" in err
    assert f"{missing}: No such file" in err
    assert "2 failed" in err
    assert len(out.splitlines()) == 1 + 2


def test_links_to_folders_are_followed_once_and_loops_end(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    pictures.picture(60, 80, seed=9).save(outside / "d.png")
    (folder / "linked").symlink_to(outside)
    (folder / "again").symlink_to(folder / "below")
    (outside / "up").symlink_to(folder)
    link = tmp_path / "link"
    link.symlink_to(folder)
    status, out, err = run(capsys, "--neighbors", link, link / "a.png", "--top", 9)
    assert status == 0
    names = {Path(line.split()[1]).relative_to(link).as_posix() for line in out.splitlines()[1:]}
    assert names == {"b.JPG", "below/c.webp", "linked/d.png"}


def test_a_link_that_leads_nowhere_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for link, target in (("gone.png", "nowhere.png"), ("itself", "itself")):
        (folder / link).symlink_to(target)
    status, _, err = run(capsys, "--neighbors", folder, folder / "a.png")
    assert status == 1
    assert f"{folder / 'gone.png'}: the link leads nowhere\n" in err
    assert f"{folder / 'itself'}: the link leads nowhere\n" in err
    assert "3 embedded" in err
    assert "2 failed" in err


def test_files_that_are_not_searched_are_counted_by_suffix_pictures_first(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("b.txt", "c.txt", "logo.SVG", "phone.jxl", "README", *(f"x.{n}" for n in range(9))):
        (folder / name).touch()
    status, _, err = run(capsys, "--neighbors", folder, folder / "a.png")
    assert status == 0
    counts = "1 .jxl (phone.jxl), 1 .svg (logo.SVG), 3 .txt (b.txt), 1 without a suffix (README), 1 .0 (x.0)"
    (line,) = [line for line in err.splitlines() if line.startswith("not searched: ")]
    assert line.startswith(f"not searched: {counts}, ")
    assert line.endswith(" and 5 of other kinds")


def test_a_folder_without_pictures_says_what_it_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "page.pdf").touch()
    status, _, err = run(capsys, "--neighbors", tmp_path, "a.png")
    assert status == 2
    assert err == f"packlight: {tmp_path} holds no image file; not searched: 1 .pdf (page.pdf)\n"


def test_an_image_alone_in_its_folder_has_no_neighbors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pictures.picture().save(tmp_path / "a.png")
    status, out, _ = run(capsys, "--neighbors", tmp_path, tmp_path / "a.png")
    assert (status, out) == (0, f"{tmp_path / 'a.png'}\n  {tmp_path} holds no other image\n")


def test_a_folder_without_readable_pictures_is_one_line_and_status_2(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert run(capsys, "--neighbors", empty, folder / "a.png") == (2, "", f"packlight: {empty} holds no image file\n")
    (empty / "x.png").write_text("not a picture")
    status, out, err = run(capsys, "--neighbors", empty, folder / "a.png")
    assert (status, out, err.splitlines()[-1]) == (
        2, "", f"packlight: {empty} holds no image that can be embedded",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--neighbors", ".", "--out", "x.npy"], "--out writes vectors"),
        (["--neighbors", ".", "--no-normalize"], "does not go with --no-normalize"),
        (["--top", "3"], "needs --neighbors"),
    ],
)
def test_options_that_exclude_each_other_are_one_line_and_status_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = run(capsys, "x.png", *arguments)
    assert (status, out) == (2, "")
    (line,) = err.splitlines()
    assert message in line


@pytest.mark.parametrize("arguments", [["--neighbors", "./nowhere"], ["--neighbors", ".", "--top", "0"]])
def test_a_missing_folder_and_a_wrong_count_are_refused(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run(capsys, "x.png", *arguments)
    assert arguments[-1] in capsys.readouterr().err


def test_equally_near_rows_keep_their_order() -> None:
    gallery = np.array([[0, 1], [1, 0], [0.6, 0.8], [1, 0]], np.float32)
    found = nearest(np.array([1, 0], np.float32), gallery, 3)
    assert found == [(1, 1.0), (3, 1.0), (2, pytest.approx(0.6))]
