"""One visit of the page: the page itself, all that its browser asked for or complained of, and what a user does."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Browser, Locator, Page, expect

from tests.service.running import PATIENCE_S

# (name, type, bytes)
File = tuple[str, str, bytes]

_WATCH = """
window.watched = { violations: [], longTasksMs: [] };
addEventListener("securitypolicyviolation", (event) =>
  watched.violations.push(`${event.violatedDirective}: ${event.blockedURI}`));
new PerformanceObserver((list) => list.getEntries().forEach((entry) => watched.longTasksMs.push(entry.duration)))
  .observe({ type: "longtask", buffered: true });
"""
_TRANSFER = """(files) => {
  const transfer = new DataTransfer();
  for (const [name, type, content] of files) {
    const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
    transfer.items.add(new File([bytes], name, { type }));
  }
  return transfer;
}"""

expect.set_options(timeout=PATIENCE_S * 1000)


@dataclass
class Visit:
    """A page that was opened.

    asked: the addresses of all requests. complaints: what the console and the page's scripts said was wrong. expected:
    the words of complaints that a test provokes.
    """

    page: Page
    address: str
    asked: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, browser: Browser, address: str, *, init: str = "", **context: Any) -> "Visit":
        """Opens `address`. init: a script that runs before those of the page."""
        made = browser.new_context(**({"viewport": {"width": 1440, "height": 1000}} | context))
        made.set_default_timeout(PATIENCE_S * 1000)
        made.add_init_script(_WATCH + init)
        visit = cls(made.new_page(), address)
        made.on("request", lambda request: visit.asked.append(request.url))
        visit.page.on("pageerror", lambda error: visit.complaints.append(str(error)))
        visit.page.on("console", visit._hear)
        visit.page.goto(address)
        return visit

    def _hear(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def close(self) -> None:
        """Fails for a request to any other server, for what the policy forbade, and for any complaint."""
        violations = self.page.evaluate("watched.violations")
        self.page.context.close()
        assert not violations, violations
        origin = urlsplit(self.address)[:2]
        others = [url for url in self.asked if urlsplit(url)[:2] != origin and not url.startswith(("blob:", "data:"))]
        assert self.asked
        assert not others, others
        unexpected = [text for text in self.complaints if not any(words in text for words in self.expected)]
        assert not unexpected, unexpected

    def drop(self, files: Sequence[File]) -> None:
        """Drops files, as a hand with a mouse does."""
        coded = [[name, kind, base64.b64encode(content).decode()] for name, kind, content in files]
        transfer = self.page.evaluate_handle(_TRANSFER, coded)
        for event in ("dragenter", "dragover", "drop"):
            self.page.dispatch_event("#drop", event, {"dataTransfer": transfer})

    def drop_paths(self, paths: Sequence[Path]) -> None:
        """Drops files and folders of this machine. The browser is asked to, as no script of a page can."""
        session = self.page.context.new_cdp_session(self.page)
        box = self.page.locator("#drop").bounding_box()
        assert box
        data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            where = {"type": kind, "x": box["x"] + 9, "y": box["y"] + 9, "data": data}
            session.send("Input.dispatchDragEvent", where)
        session.detach()

    def card(self, name: str) -> Locator:
        return self.page.locator(".card").filter(has=self.page.locator(".name", has_text=name))

    def set_budget(self, tokens: int) -> None:
        self.page.locator("#budget").fill(str(tokens))

    def embed(self) -> None:
        """Presses the button and waits until every picture has its vector or its failure."""
        self.page.locator("#embed").click()
        self.wait_until_embedded()

    def wait_until_embedded(self) -> None:
        expect(self.page.locator("#stop")).to_be_hidden()
        expect(self.page.locator(".card:not([data-work=''])")).to_have_count(0)
