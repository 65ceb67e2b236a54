"""Checks the built site of the documents: python deploy/check_site.py build/site

Every link within it leads to a file and to an anchor there, HTML inside of Markdown included, which Sphinx does not
look into. No page loads anything from another host. Other hosts are not asked.
"""

import re
import sys
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# What a browser fetches to show a page, where a plain link is fetched only if somebody follows it.
_LOADING = ("img", "script", "link", "source", "iframe", "video", "audio", "object")


class _Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: set[str] = set()
        self.links: set[str] = set()
        self.anchors: set[str] = {""}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value for name, value in attrs if value}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        targets = [given[name] for name in ("href", "src", "data") if name in given]
        targets += [entry.split()[0] for entry in given.get("srcset", "").split(",") if entry.strip()]
        # `rel="next"` and the like load nothing.
        loads = tag in _LOADING and (tag != "link" or re.search("stylesheet|icon|preload", given.get("rel", "")))
        (self.loaded if loads else self.links).update(targets)


@cache
def _page(path: Path) -> _Page:
    return _Page(path.read_text(encoding="utf-8"))


def _fault(page: Path, target: str, *, loaded: bool) -> str | None:
    parts = urlsplit(target)
    if parts.scheme == "data":
        return None
    if parts.scheme or parts.netloc:
        return "is of another host" if loaded else None
    file = page.parent / unquote(parts.path) if parts.path else page
    if not file.is_file():
        return "leads to no file"
    if file.suffix == ".html" and unquote(parts.fragment) not in _page(file).anchors:
        return "leads to no anchor"
    return None


def faults(site: Path) -> list[str]:
    """One line for each link that is broken or loads from another host."""
    found = []
    for path in sorted(site.rglob("*.html")):
        for targets, loaded in ((_page(path).loaded, True), (_page(path).links, False)):
            for target in sorted(targets):
                if fault := _fault(path, target, loaded=loaded):
                    found.append(f"{path.relative_to(site)}: {target} {fault}")
    for path in sorted(site.rglob("*.css")):
        loads = re.findall(r"url\(\s*[\"']?((?:https?:)?//[^)\"']+)", path.read_text(encoding="utf-8"))
        found += [f"{path.relative_to(site)}: {target} is of another host" for target in loads]
    return found


def main(folder: str) -> int:
    site = Path(folder)
    found = faults(site)
    for line in found:
        sys.stdout.write(line + "\n")
    pages = len(list(site.rglob("*.html")))
    sys.stdout.write(f"{pages} pages, {len(found)} faults\n")
    return int(bool(found) or not pages)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
