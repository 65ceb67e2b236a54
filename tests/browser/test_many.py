"""Fifty pictures of 12 megapixels dropped at once: the page stays responsive, and the server answers others.

What counts is the processor time of each task of the page's main thread, from chromium's own trace. Other programs on
the machine lengthen a task as a watch sees it, and do not change what it computes.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from tests import pictures
from tests.browser.conftest import Open, address_of
from tests.service.running import Running

MANY = 50
LONGEST_TASK_MS = 200.0
CATEGORIES = ["toplevel", "devtools.timeline", "disabled-by-default-devtools.timeline"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """JPEGs as a phone takes them: 4,000 × 3,000 pixels, some megabytes each, turned by EXIF."""
    folder = tmp_path_factory.mktemp("many")
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (300, 400, 3), dtype=np.uint8)).resize((4000, 3000))
    grain = rng.normal(0, 6, (3000, 4000, 1))
    image = Image.fromarray((np.asarray(small) + grain).clip(0, 255).astype(np.uint8))
    content = pictures.save(image, "JPEG", exif=pictures.exif(6), quality=85)
    for number in range(MANY):
        # Bytes after the picture's end make each file another.
        (folder / f"{number}.jpg").write_bytes(content + number.to_bytes(2, "big"))
    return folder


@contextmanager
def traced(page: Page, file: Path) -> Iterator[list[float]]:
    """The processor time in ms of every task of the main threads of pages, once the block is over."""
    found_ms: list[float] = []
    browser = page.context.browser
    assert browser
    browser.start_tracing(page=page, path=file, categories=CATEGORIES)
    yield found_ms
    browser.stop_tracing()
    found_ms += [task.get("tdur", 0) / 1000 for task in _main_thread_tasks(json.loads(file.read_text()))]


def _main_thread_tasks(trace: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Workers have threads of their own."""
    events = trace["traceEvents"]
    mains = {
        (event["pid"], event["tid"])
        for event in events
        if event["name"] == "thread_name" and event["args"]["name"] == "CrRendererMain"
    }
    for event in events:
        if event["ph"] == "X" and "RunTask" in event["name"] and (event["pid"], event["tid"]) in mains:
            yield event


def test_a_task_that_is_too_long_is_seen(visit: Open, server: Running, tmp_path: Path) -> None:
    opened = visit(address_of(server))
    with traced(opened.page, tmp_path / "trace.json") as tasks_ms:
        # A third of a second of a fast processor, however long the machine takes to give it.
        opened.page.evaluate("() => { let n = 1; for (let i = 0; i < 3e8; i++) n = (n * 5 + i) | 0; return n; }")
    assert max(tasks_ms) > LONGEST_TASK_MS


def test_fifty_large_pictures_leave_the_page_responsive_and_the_server_to_others(
    visit: Open, server: Running, folder: Path, tmp_path: Path
) -> None:
    opened = visit(address_of(server))
    page = opened.page
    small = pictures.save(pictures.picture(48, 64), "PNG")
    expect(page.locator(".card .grid").filter(has_text="tokens")).to_have_count(4)
    answered = 0
    with traced(page, tmp_path / "trace.json") as tasks_ms:
        page.locator("#files").set_input_files(sorted(folder.iterdir()))
        expect(page.locator(".card")).to_have_count(MANY)
        expect(page.locator(".card .grid").filter(has_text="3,000 × 4,000 →")).to_have_count(MANY)
        page.locator("#embed").click()
        while page.locator("#stop").is_visible():
            answer = server.embed(small)
            assert answer.status_code == 200, answer.text
            answered += 1
            # The user goes on moving the slider.
            opened.set_budget(300 + 10 * (answered % 7))
        opened.wait_until_embedded()
    expect(page.locator(".vector").filter(has_text="Embedded")).to_have_count(MANY)
    assert answered > 1
    assert len(tasks_ms) > 100
    assert max(tasks_ms) < LONGEST_TASK_MS
