"""Takes the pictures of README and docs from the page itself: `python -m tests.browser.pictures docs/pictures`.

A server of the bundled model runs in this process, and chromium is driven as in the tests: a complaint of the page ends
the command. Figures of time differ from run to run: take the pictures on a machine that has nothing else to do. All the
rest is the same on one machine. To add a picture, add a line to `PICTURES`.
"""

import argparse
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image
from playwright.sync_api import Browser, FloatRect, expect

from service.__main__ import main as packlight
from service.loading import load_runner
from service.settings.settings import Settings
from tests import pictures
from tests.browser.conftest import address_of, launched
from tests.browser.test_packs import one_pack
from tests.browser.visit import File, Visit
from tests.service.running import Running, serving

MOST_BYTES = 250_000
# Tried one after the other, until a picture is no larger.
_QUALITIES = (90, 80, 70, 60)
# Above and below what is shown, in CSS pixels: less than between two rows of cards.
_MARGIN = 14
_SAMPLES = 4
_BUDGET = 576
# One at which the receipt can be cut into tiles as well.
_TILED_BUDGET = 1024


@dataclass(frozen=True)
class Studio:
    """Where pictures are taken. folder: for files that a picture needs."""

    browser: Browser
    server: Running
    folder: Path

    def open(self, address: str, *, width: int, height: int, scheme: str) -> Visit:
        return Visit.of(
            self.browser, address, viewport={"width": width, "height": height}, color_scheme=scheme,
            reduced_motion="reduce",
        )  # fmt: skip


@dataclass(frozen=True)
class Picture:
    """open: gives the address to open. arrange: does what a user does before the picture is taken.

    top, bottom: selectors of what the picture begins and ends with; the page's margins are cut off. height: of the
    window, in CSS pixels, and of the picture at most.
    """

    open: Callable[[Studio], str]
    arrange: Callable[[Studio, Visit], None] = lambda studio, visit: None
    top: str = "body"
    bottom: str = "body"
    scheme: str = "light"
    width: int = 1440
    height: int = 1400

    def taken(self, studio: Studio) -> Image.Image:
        visit = studio.open(self.open(studio), width=self.width, height=self.height, scheme=self.scheme)
        self.arrange(studio, visit)
        visit.page.evaluate("scrollTo(0, 0)")
        # What was just shown is drawn in the next frame.
        visit.page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        content = visit.page.screenshot(full_page=True, clip=self._clip(visit))
        visit.close()
        return Image.open(BytesIO(content)).convert("RGB")

    def _clip(self, visit: Visit) -> FloatRect:
        body, top, bottom = (self._box(visit, selector) for selector in ("body", self.top, self.bottom))
        start = max(0, top["y"] - _MARGIN)
        height = min(self.height, bottom["y"] + bottom["height"] + _MARGIN - start)
        return {"x": body["x"], "y": start, "width": body["width"], "height": height}

    @staticmethod
    def _box(visit: Visit, selector: str) -> FloatRect:
        box = visit.page.locator(selector).first.bounding_box()
        assert box, f"{selector} is not on the page"
        return box


def served(studio: Studio) -> str:
    return address_of(studio.server)


def folder_report(studio: Studio) -> str:
    """The page of a folder, by `packlight embed --html`."""
    photos, file = studio.folder / "photos", studio.folder / "folder.html"
    photos.mkdir()
    for name in pictures.PHOTOGRAPHS:
        (photos / name).write_bytes(pictures.photograph_file(name))
    options = ["--strategy", "native", "--max-tokens", "1024", "--dtype", "float32", "--devices", "cpu"]
    vectors = str(studio.folder / "folder.npy")
    assert packlight(["embed", str(photos), "--html", str(file), "--out", vectors, *options]) == 0
    return file.as_uri()


def load_report(studio: Studio) -> str:
    """The page of a load test, by `python -m loadtest run --html`."""
    file = studio.folder / "load.html"
    options = ["--rate", "10", "--duration", "30", "--mix", "mixed", "--slo-ms", "500", "--seed", "1"]
    command = [sys.executable, "-m", "loadtest", "run", "--url", address_of(studio.server).rstrip("/")]
    subprocess.run([*command, "--html", file, *options], check=True, stdout=subprocess.DEVNULL)
    return file.as_uri()


def embedded(studio: Studio, visit: Visit) -> None:
    """The samples are there, and each has its vector. All ran in one pack."""
    grids = visit.page.locator(".card .grid").filter(has_text="tokens")
    expect(grids).to_have_count(_SAMPLES)
    visit.set_budget(_BUDGET)
    expect(visit.page.locator("#totals")).to_contain_text("tokens")
    with one_pack(studio.server, images=_SAMPLES):
        visit.page.locator("#embed").click()
    visit.wait_until_embedded()
    expect(visit.page.locator(".vector").filter(has_text="as planned")).to_have_count(_SAMPLES)


def compared(studio: Studio, visit: Visit) -> None:
    """A picture of no square's shape, under every strategy."""
    embedded(studio, visit)
    visit.card("receipt.webp").locator(".show").click()
    visit.set_budget(_TILED_BUDGET)
    expect(visit.page.locator("#compare-hint")).to_contain_text(f"at a budget of {_TILED_BUDGET:,} tokens")


def panel(name: str) -> Callable[[Studio, Visit], None]:
    """The samples are embedded, in sizes of their own, and then a panel is opened."""

    def arrange(studio: Studio, visit: Visit) -> None:
        visit.page.get_by_role("radio", name="native").check(force=True)
        embedded(studio, visit)
        visit.page.get_by_role("tab", name=name).click()

    return arrange


def near(studio: Studio, visit: Visit) -> None:
    """Photographs and crops of them are embedded, and their likeness is shown."""
    visit.drop(_photographs_and_crops())
    visit.embed()
    visit.page.get_by_role("tab", name="Near").click()
    expect(visit.page.locator(".near-point")).to_have_count(2 * len(pictures.PHOTOGRAPHS))


def drifted(studio: Studio, visit: Visit) -> None:
    """How the vectors change with the budget."""
    near(studio, visit)
    visit.page.locator("#near-drift-run").click()
    expect(visit.page.locator("#near-drift-sentence")).not_to_be_empty()
    expect(visit.page.locator("#near-drift-stop")).to_be_hidden()


def _photographs_and_crops() -> list[File]:
    files: list[File] = []
    for name in pictures.PHOTOGRAPHS:
        whole = Image.open(BytesIO(pictures.photograph_file(name))).convert("RGB")
        width, height = whole.size
        crop = whole.crop((width // 8, height // 8, width - width // 6, height - height // 6))
        files += [
            (name, "image/png", pictures.save(whole, "PNG")),
            (f"crop of {name}", "image/png", pictures.save(crop, "PNG")),
        ]
    return files


PICTURES = {
    "try": Picture(served, embedded, bottom="#gallery"),
    "try-dark": Picture(served, embedded, bottom="#gallery", scheme="dark"),
    "try-phone": Picture(served, embedded, width=390, height=1200),
    "compare": Picture(served, compared, top="#compare", bottom="#compare"),
    "packs": Picture(served, panel("Packs"), top=".tabs", bottom="#packs-mine"),
    "near": Picture(served, near, top=".tabs", bottom="#near-map"),
    "drift": Picture(served, drifted, top="#near-drift-title", bottom="#near-drift-result"),
    "folder": Picture(folder_report, bottom="#picture-3"),
    "load-test": Picture(load_report, bottom="section:nth-of-type(3)", width=1024, height=1800),
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="tests.browser.pictures", description=__doc__)
    parser.add_argument("folder", type=Path, help="where the pictures go")
    parser.add_argument("names", nargs="*", choices=[*PICTURES, []], help="those to take (default: all)")
    options = parser.parse_args(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    runner, facts = load_runner(Settings(devices="cpu", dtype="float32"))
    with launched() as browser, serving((runner, facts)) as server:
        for name in options.names or PICTURES:
            with TemporaryDirectory() as folder:
                picture = PICTURES[name].taken(Studio(browser, server, Path(folder)))
            content = small(picture)
            (options.folder / f"{name}.webp").write_bytes(content)
            sys.stdout.write(f"{name}.webp: {picture.width}×{picture.height}, {len(content) / 1000:.0f} kB\n")


def small(picture: Image.Image) -> bytes:
    """The picture as a WebP of at most `MOST_BYTES`, as good as it can be."""
    for quality in _QUALITIES:
        buffer = BytesIO()
        picture.save(buffer, "WEBP", quality=quality, method=6)
        if buffer.tell() <= MOST_BYTES:
            return buffer.getvalue()
    raise SystemExit(f"a picture of {picture.width}×{picture.height} is over {MOST_BYTES:,} bytes: crop it")


if __name__ == "__main__":
    main()
