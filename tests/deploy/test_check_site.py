from pathlib import Path

import pytest

from deploy.check_site import faults, main


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/b.html").write_text('<h1 id="top">B</h1><a href="../index.html#here">home</a>')
    (tmp_path / "p.png").touch()
    (tmp_path / "index.html").write_text(
        '<h1 id="here">Home</h1><link rel="next" href="https://example.com/x"><a href="https://example.com">far</a>'
        '<a href="a/b.html#top">B</a><a href="#here">here</a><img src="p.png" srcset="p.png 1x, p.png 2x">'
    )
    return tmp_path


def test_a_site_without_fault_has_none(site: Path) -> None:
    assert faults(site) == []
    assert main(str(site)) == 0


@pytest.mark.parametrize(
    ("html", "fault"),
    [
        ('<a href="gone.html">', "gone.html leads to no file"),
        ('<a href="index.html#gone">', "index.html#gone leads to no anchor"),
        ('<a href="#gone">', "#gone leads to no anchor"),
        ('<img src="gone.png">', "gone.png leads to no file"),
        ('<source srcset="p.png, gone.webp 2x">', "gone.webp leads to no file"),
        ('<script src="https://example.com/a.js"></script>', "https://example.com/a.js is of another host"),
        ('<link rel="stylesheet" href="//example.com/a.css">', "//example.com/a.css is of another host"),
    ],
)
def test_a_fault_is_named_with_its_page(site: Path, html: str, fault: str) -> None:
    (site / "page.html").write_text(html)
    assert faults(site) == [f"page.html: {fault}"]
    assert main(str(site)) == 1


def test_a_font_of_another_host_is_a_fault(site: Path) -> None:
    (site / "a.css").write_text("@font-face { src: url('https://example.com/f.woff2') }")
    assert faults(site) == ["a.css: https://example.com/f.woff2 is of another host"]


def test_a_site_without_pages_is_no_site(tmp_path: Path) -> None:
    assert main(str(tmp_path)) == 1
