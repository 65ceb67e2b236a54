"""`packlight embed --html`: one page of pictures, their patches, tokens and neighbours. A browser reads it in
`tests/browser/test_report.py`."""

import base64
import hashlib
import json
import os
import re
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from service.__main__ import main
from service.cli.report.page import bundled, page
from service.cli.report.thumbs import webp_thumb
from tests import pictures

SIZES = {"a.png": (60, 120), "b.png": (200, 40), "c.png": (64, 64), "below/d.png": (90, 90)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "below").mkdir(parents=True)
    for seed, (name, size) in enumerate(SIZES.items()):
        pictures.picture(*size, seed=seed).save(folder / name)
    return folder


class Parts(HTMLParser):
    """The scripts and styles of a page by their types, its policy, and every address that it names."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.inside: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.policy = ""
        self.addresses: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if found.get("http-equiv") == "Content-Security-Policy":
            self.policy = found["content"] or ""
        self.addresses += [found[name] or "" for name in ("src", "href") if name in found]
        if tag in ("script", "style"):
            self.inside.append((str(found.get("type", tag)), found))

    def handle_endtag(self, tag: str) -> None:
        if tag in ("script", "style"):
            self.inside.pop()

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.texts.setdefault(self.inside[-1][0], []).append(data)


def report_of(file: Path) -> dict[str, Any]:
    (data,) = Parts(file.read_text(encoding="utf-8")).texts["application/json"]
    report: dict[str, Any] = json.loads(data)
    return report


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    status = main(["embed", "--dtype", "float32", "--max-tokens", "64", *map(str, arguments)])
    out, err = capsys.readouterr()
    return status, out, err


def test_the_page_says_what_the_file_of_vectors_says(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    html, jsonl = tmp_path / "report.html", tmp_path / "vectors.jsonl"
    status, out, err = run(capsys, folder, "--html", html, "--out", jsonl)
    assert (status, out) == (0, "")
    assert f"{html}: 4 pictures, {html.stat().st_size / 1e6:.1f} MB\n" in err
    report, lines = report_of(html), [json.loads(line) for line in jsonl.read_text().splitlines()]
    assert [each["title"] for each in report["pictures"]] == [line["file"] for line in lines]
    assert [each["name"] for each in report["pictures"]] == ["a.png", "b.png", "below/d.png", "c.png"]
    for shown, line in zip(report["pictures"], lines, strict=True):
        for field in ("size", "resized", "grid", "tokens", "strategy"):
            assert shown[field] == line[field]
    assert report["count"]["tokens"] == sum(line["tokens"] for line in lines)
    vectors = np.array([line["embedding"] for line in lines])
    cosines = vectors @ vectors.T
    for row, shown in enumerate(report["pictures"]):
        order = [other for other in np.argsort(-cosines[row]).tolist() if other != row]
        assert [place for place, _ in shown["near"]] == order
        assert [cosine for _, cosine in shown["near"]] == pytest.approx(cosines[row][order], abs=1e-4)


def test_thumbnails_are_what_the_model_saw(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    html = tmp_path / "report.html"
    run(capsys, folder, "--html", html)
    for shown in report_of(html)["pictures"]:
        thumb = Image.open(BytesIO(base64.b64decode(shown["thumb"])))
        assert (thumb.height, thumb.width) == tuple(shown["resized"])
        original = Image.open(shown["title"]).resize(thumb.size, Image.Resampling.BILINEAR)
        difference = np.abs(np.asarray(thumb, float) - np.asarray(original, float)).mean()
        assert difference < 12


@pytest.mark.parametrize("size", [(4000, 3000), (16, 40_000), (1, 1)])
def test_a_thumbnail_is_small_however_the_picture_is_shaped(size: tuple[int, int]) -> None:
    thumb = Image.open(BytesIO(webp_thumb(Image.new("RGB", size))))
    assert thumb.format == "WEBP"
    assert 1 <= thumb.width * thumb.height <= 65_536


def test_what_padding_would_have_computed_is_counted_by_pack(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    html = tmp_path / "report.html"
    run(capsys, folder, "--html", html, "--strategy", "native")
    report = report_of(html)
    tokens = [shown["tokens"] for shown in report["pictures"]]
    assert len(set(tokens)) > 1
    count = report["count"]
    assert (count["images"], count["packs"], count["tokens"]) == (4, 1, sum(tokens))
    assert (count["longest_tokens"], count["cap_tokens"]) == (4 * max(tokens), 4 * 64)
    assert count["computed_tokens"] >= sum(tokens)


def test_names_are_text_whatever_they_hold(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, html = tmp_path / "photos", tmp_path / "report.html"
    folder.mkdir()
    not_utf8 = os.fsdecode(b"\xff.png")
    names = ["<!--<script>.png", "<b>&amp;$style${data}.png", "a\nb\u2028c.png", not_utf8]
    for name in names:
        pictures.picture().save(folder / name)
    # A folder name with a slash in it: the whole of `</script>` can stand in a path.
    (folder / "<").mkdir()
    pictures.picture().save(folder / "<" / "script><img src=x onerror=alert(1)>.png")
    assert run(capsys, folder, "--html", html)[0] == 0
    parts = Parts(html.read_text(encoding="utf-8"))
    assert len(parts.texts["application/json"]) == 1
    shown = {each["name"] for each in json.loads(parts.texts["application/json"][0])["pictures"]}
    assert shown == {
        "<!--<script>.png", "<b>&amp;$style${data}.png", r"a\nb\u2028c.png", r"\xff.png",
        "</script><img src=x onerror=alert(1)>.png",
    }  # fmt: skip
    assert "onerror" not in html.read_text(encoding="utf-8").replace(parts.texts["application/json"][0], "")


def test_files_that_failed_are_named_with_their_reasons(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    html = tmp_path / "report.html"
    (folder / "broken.png").write_text("no picture")
    (folder / "gone.png").symlink_to("nowhere")
    status, _, err = run(capsys, folder, tmp_path / "missing.jpg", "--html", html)
    assert status == 1
    assert "4 embedded" in err
    assert "3 failed" in err
    reasons = {each["name"]: each["reason"] for each in report_of(html)["failed"]}
    assert reasons[str(folder / "broken.png")].startswith("not an image")
    assert reasons[str(folder / "gone.png")] == "the link leads nowhere"
    assert reasons[str(tmp_path / "missing.jpg")] == "No such file or directory"


def test_a_page_of_failures_alone_is_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    html = tmp_path / "report.html"
    assert run(capsys, tmp_path / "missing.jpg", "--html", html)[0] == 1
    report = report_of(html)
    assert (report["pictures"], report["count"]["failed"]) == ([], 1)


def test_pictures_beyond_the_limit_are_counted_and_stay_neighbours(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.cli.report.contents.MOST_PICTURES", 2)
    html = tmp_path / "report.html"
    run(capsys, folder, "--html", html)
    report = report_of(html)
    assert [shown["name"] for shown in report["pictures"]] == ["a.png", "b.png"]
    assert (report["left_out"], report["count"]["images"]) == (2, 4)
    assert {place for place, _ in report["pictures"][0]["near"]} == {1, "below/d.png", "c.png"}


def test_with_neighbors_the_named_files_come_first_and_neighbors_are_of_the_folder(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    html, copy = tmp_path / "report.html", tmp_path / "copy.png"
    copy.write_bytes((folder / "c.png").read_bytes())
    status, out, _ = run(capsys, copy, "--neighbors", folder, "--top", 2, "--html", html)
    assert status == 0
    names = [shown["name"] for shown in report_of(html)["pictures"]]
    assert names == ["copy.png", "photos/a.png", "photos/b.png", "photos/below/d.png", "photos/c.png"]
    for shown in report_of(html)["pictures"]:
        assert len(shown["near"]) == 2
        assert 0 not in [place for place, _ in shown["near"]]
    assert [names[place] for place, _ in report_of(html)["pictures"][0]["near"]] == [
        f"photos/{Path(line.split()[1]).relative_to(folder)}" for line in out.splitlines()[1:]
    ]


def test_nothing_is_loaded_and_nothing_runs_that_is_not_in_the_page(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    html = tmp_path / "report.html"
    run(capsys, folder, "--html", html)
    parts = Parts(html.read_text(encoding="utf-8"))
    assert all(address.startswith(("data:", "#")) for address in parts.addresses)
    assert parts.policy.startswith("default-src 'none'; script-src 'sha256-")
    for text in (*parts.texts["script"], *parts.texts["module"], *parts.texts["style"]):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in parts.policy
    assert len(re.findall("sha256", parts.policy)) == 3
    assert "connect-src" not in parts.policy


def test_modules_of_the_servers_page_become_one_script() -> None:
    script = bundled("report.js")
    assert script.count('modules["grid.js"] =') == 1
    assert not re.search(r"^\s*(import|export)\b", script, re.MULTILINE)


@pytest.mark.parametrize("line", ["export default 3;", 'import * as all from "./grid.js";', "export { a, b };"])
def test_module_syntax_that_cannot_be_put_together_is_refused(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.cli.report.page._text", lambda name: f"const a = 1;\n{line}\n")
    with pytest.raises(ValueError, match=r"a\.js has '(import|export)' in a form"):
        bundled("a.js")


def test_the_page_of_any_text_ends_where_it_should() -> None:
    text = page({"name": "</script><!-- ]]> \u2028 $data"})
    (data,) = Parts(text).texts["application/json"]
    assert json.loads(data)["name"] == "</script><!-- ]]> \u2028 $data"


@pytest.mark.parametrize("name", ["report.txt", "nowhere/report.html", "folder.html"])
def test_a_page_that_cannot_be_written_is_refused_before_anything_runs(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(SystemExit) as exit:
        main(["embed", "a.png", "--html", str(tmp_path / name)])
    assert exit.value.code == 2
    assert "--html" in capsys.readouterr().err


def test_a_folder_without_pictures_says_what_it_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "page.pdf").touch()
    status, _, err = run(capsys, tmp_path)
    assert status == 2
    assert err == "packlight: there is no image file; not embedded: 1 .pdf (page.pdf)\n"
