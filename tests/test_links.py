"""Links of the documents lead somewhere, in a checkout, on GitHub and on the site. Other hosts are not asked."""

import ast
import re
import subprocess
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from posixpath import normpath
from urllib.parse import unquote, urlsplit

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parent.parent
HOME = "README.md"


@cache
def files() -> frozenset[str]:
    """Of the checkout, without what git ignores: a link to that would lead somewhere on one machine alone."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return frozenset(name for name in listed.stdout.splitlines() if (ROOT / name).is_file())


PAGES = sorted(name for name in files() if name.endswith(".md"))


@dataclass(frozen=True)
class Page:
    links: tuple[str, ...]
    anchors: frozenset[str]


def slug(heading: str) -> str:
    """As GitHub makes one from the text of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def text_of(inline: Token) -> str:
    return "".join(child.content for child in inline.children or () if child.type in ("text", "code_inline"))


@cache
def page(name: str) -> Page:
    tokens = MarkdownIt("commonmark").enable("table").parse((ROOT / name).read_text(encoding="utf-8"))
    everything = [child for token in tokens for child in (token, *(token.children or ()))]
    html = "\n".join(token.content for token in everything if token.type in ("html_block", "html_inline"))
    links = [str(token.attrs[key]) for token in everything for key in ("href", "src") if key in token.attrs]
    links += re.findall(r'\b(?:href|src)="([^"]*)"', html)
    links += [entry.split()[0] for entries in re.findall(r'\bsrcset="([^"]*)"', html) for entry in entries.split(",")]
    anchors = set(re.findall(r'\b(?:id|name)="([^"]*)"', html))
    seen: Counter[str] = Counter()
    for opening, inline in zip(tokens, tokens[1:], strict=False):
        if opening.type == "heading_open":
            made = slug(text_of(inline))
            anchors.add(f"{made}-{seen[made]}" if seen[made] else made)
            seen[made] += 1
    return Page(tuple(links), frozenset(anchors))


def navigation() -> list[str]:
    """Pages of the site, without the home page. Read, not run: `docs/conf.py` imports what the tests do not install."""
    tree = ast.parse((ROOT / "docs/conf.py").read_text(encoding="utf-8"))
    (value,) = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "NAVIGATION"
    ]
    return [f"{name}.md" for names in ast.literal_eval(value).values() for name in names]


def fault(source: str, link: str) -> str | None:
    """What is wrong with a link of a page, if anything is."""
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return None
    if parts.path.startswith("/"):
        return "begins with a slash, which the site and GitHub read differently"
    target = normpath(PurePosixPath(source).parent / unquote(parts.path)) if parts.path else source
    if target not in files():
        return f"there is no file {target}"
    if parts.fragment and (not target.endswith(".md") or unquote(parts.fragment) not in page(target).anchors):
        return f"{target} has no heading #{parts.fragment}"
    on_the_site = {HOME, *navigation()}
    if source in on_the_site and target.endswith(".md") and target not in on_the_site:
        return f"{target} is not on the site: docs/conf.py"
    return None


@pytest.mark.parametrize("name", PAGES)
def test_every_link_leads_to_a_file_and_a_heading(name: str) -> None:
    faults = {link: found for link in page(name).links if (found := fault(name, link))}
    assert not faults


def test_every_page_has_one_place_in_the_navigation_of_the_site() -> None:
    listed = navigation()
    assert len(set(listed)) == len(listed)
    missing = {name for name in PAGES if name.startswith("docs/")} - set(listed)
    assert not missing, "a page needs its place in NAVIGATION of docs/conf.py"
    assert set(listed) <= set(PAGES)


@pytest.mark.parametrize(
    ("link", "found"),
    [
        ("nowhere.md", "no file docs/nowhere.md"),
        ("../tests", "no file tests"),
        ("../../outside.md", "no file ../outside.md"),
        ("images.md#nothing", "no heading #nothing"),
        ("#nothing", "no heading #nothing"),
        ("packing.svg#nothing", "no heading"),
        ("/README.md", "begins with a slash"),
    ],
)
def test_a_broken_link_is_found(link: str, found: str) -> None:
    assert found in str(fault("docs/requests.md", link))


def test_a_heading_has_the_anchor_that_github_gives_it() -> None:
    assert slug("Bodies of POST /embed") == "bodies-of-post-embed"
    assert slug("What one can't see: 16-bit, über_all") == "what-one-cant-see-16-bit-über_all"
