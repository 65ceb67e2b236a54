"""The page of `packlight embed --html`, opened from the disk."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import expect

from service.__main__ import main
from tests import pictures
from tests.browser.conftest import Open
from tests.browser.test_looks import ROOT, WIDTHS, grave_faults
from tests.browser.visit import Visit

SIZES = {"a wide one.png": (200, 640), "b <i>&amp;.png": (480, 160), "c.png": (40, 40), "d.png": (333, 400)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for seed, (name, (height, width)) in enumerate(SIZES.items()):
        pictures.picture(height, width, seed=seed).save(folder / name)
    (folder / "broken.png").write_text("no picture")
    return folder


@pytest.fixture(scope="module", params=["native", "anyres"])
def written(request: pytest.FixtureRequest, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page and, beside it, the lines of the vectors."""
    file = tmp_path_factory.mktemp("report") / "report.html"
    options = ["--strategy", request.param, "--max-tokens", "1024", "--dtype", "float32", "--devices", "cpu"]
    assert main(["embed", str(folder), "--html", str(file), "--out", f"{file.with_suffix('.jsonl')}", *options]) == 1
    return file


def lines_of(written: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in written.with_suffix(".jsonl").read_text().splitlines()]


def card(opened: Visit, place: int) -> Any:
    return opened.page.locator(f"#picture-{place}")


def test_the_page_shows_what_the_vectors_came_from_and_asks_for_nothing(visit: Open, written: Path) -> None:
    opened = visit(written.as_uri())
    expect(opened.page.locator(".card")).to_have_count(len(SIZES))
    lines = lines_of(written)
    vectors = np.array([line["embedding"] for line in lines])
    for place, line in enumerate(lines):
        shown = card(opened, place)
        expect(shown.locator(".name")).to_have_text(Path(line["file"]).name)
        (rows, columns), (height, width), (tall, wide) = line["grid"], line["size"], line["resized"]
        patches = f"{len(line['segments'])} × {rows} × {columns}" if "segments" in line else f"{rows} × {columns}"
        text = f"{patches} = {line['tokens']:,} tokens\n{width} × {height} → {wide} × {tall}"
        expect(shown.locator(".grid")).to_have_text(text, use_inner_text=True)
        cosines = vectors @ vectors[place]
        order = [other for other in np.argsort(-cosines).tolist() if other != place]
        expect(shown.locator(".near a")).to_have_text([f"{cosines[other]:.3f}" for other in order])
        links = shown.locator(".near a").evaluate_all("links => links.map((link) => link.getAttribute('href'))")
        assert links == [f"#picture-{other}" for other in order]
    expect(opened.page.locator("#failed")).to_contain_text("broken.png: not an image")
    expect(opened.page.locator("#lead")).to_contain_text(f"{sum(line['tokens'] for line in lines):,} tokens in ")
    assert [url for url in opened.asked if not url.startswith("data:")] == [opened.address]


@pytest.mark.parametrize("printed", [False, True])
def test_every_picture_is_drawn_under_its_grid(visit: Open, written: Path, printed: bool) -> None:
    opened = visit(written.as_uri(), viewport={"width": 1440, "height": 100})
    if printed:
        opened.page.pdf()
    for place, line in enumerate(lines_of(written)):
        shown = card(opened, place)
        if not printed:
            shown.scroll_into_view_if_needed()
        canvas = shown.locator("canvas")
        expect(canvas).not_to_have_js_property("width", 300)  # that of a canvas on which nothing was drawn
        ratio = canvas.evaluate("canvas => canvas.width / canvas.height")
        rows, columns = line["grid"]
        if "segments" not in line:
            assert ratio == pytest.approx(columns / rows)
        colours = canvas.evaluate(
            """canvas => new Set(
              canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.filter((_, at) => at % 4 < 3)
            ).size"""
        )
        assert colours > 20


def test_a_neighbor_is_gone_to_and_pictures_are_put_in_order(visit: Open, written: Path) -> None:
    page = visit(written.as_uri()).page
    link = page.locator("#picture-0 .near a").first
    target = link.get_attribute("href") or ""
    link.press("Enter")
    expect(page.locator(".card:target")).to_have_id(target[1:])
    tokens = [line["tokens"] for line in lines_of(written)]
    page.get_by_role("radio", name="Tokens").check(force=True)
    by_tokens = sorted(range(len(tokens)), key=lambda place: -tokens[place])
    ids = "cards => cards.map((card) => card.id)"
    assert page.locator(".card").evaluate_all(ids) == [f"picture-{place}" for place in by_tokens]
    page.get_by_role("radio", name="As given").check(force=True)
    assert page.locator(".card").evaluate_all(ids) == [f"picture-{place}" for place in range(len(tokens))]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_the_report_can_be_read_by_all_and_fits_its_width(visit: Open, written: Path, width: int, scheme: str) -> None:
    opened = visit(written.as_uri(), viewport={"width": width, "height": WIDTHS[width]}, color_scheme=scheme)
    for shown in opened.page.locator(".card").all():
        shown.scroll_into_view_if_needed()
    opened.page.screenshot(path=ROOT / f"build/browser/report-{width}-{scheme}.png", full_page=True)
    assert opened.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert not grave_faults(opened)
