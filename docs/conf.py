"""The site of the documents, by `make docs`.

Pages are the Markdown files where they lie, so a link works on the site as it does in a checkout. A page of docs/ that
`NAVIGATION` leaves out fails the build, and so does a link or an anchor to nothing.
"""

import shutil
import tomllib
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

ROOT = Path(__file__).parents[1]
HOME = "README"
# Headings of the navigation, and their pages in the order in which one reads them.
NAVIGATION = {
    "Use it": [
        "docs/page",
        "docs/requests",
        "docs/dialects",
        "docs/images",
        "docs/text",
        "docs/urls",
        "docs/encoders",
        "docs/vectors",
        "docs/dtypes",
        "model/checkpoint/tiny/MODEL_CARD",
    ],
    "Clients": [
        "docs/clients/index",
        "docs/clients/curl",
        "docs/clients/go",
        "docs/clients/javascript",
        "docs/clients/numpy",
        "docs/clients/openai",
        "docs/clients/cohere",
        "docs/clients/voyage",
        "docs/clients/weaviate",
        "docs/clients/immich",
        "docs/clients/langchain",
        "docs/clients/llamaindex",
        "docs/clients/haystack",
        "docs/clients/qdrant",
        "docs/clients/lancedb",
        "docs/clients/pgvector",
        "docs/clients/faiss",
    ],
    "Run it": [
        "docs/operating",
        "docs/hosts",
        "docs/canary",
        "docs/tracing",
        "docs/rolling",
        "docs/cache",
        "docs/priorities",
        "docs/jobs",
        "docs/kubernetes",
        "docs/ray",
        "docs/settings",
        "docs/planner",
        "docs/scale",
        "deploy/RUNBOOK",
    ],
    "Measure it": ["docs/speed", "loadtest/README", "loadtest/RESULTS", "loadtest/HISTORY"],
    "Work on it": ["CONTRIBUTING", "CHANGELOG"],
}

project = "Packlight"
author = copyright = "The Packlight maintainers"
release = str(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"])
extensions = ["myst_parser"]
root_doc = HOME
include_patterns = [
    f"{HOME}.md", "docs/**.md", *(f"{page}.md" for pages in NAVIGATION.values() for page in pages),
]  # fmt: skip
exclude_patterns = [".*", "build", "tests"]
# Anchors are those of GitHub.
myst_heading_anchors = 4
highlight_language = "none"
# What is written is shown: no dash for two hyphens.
smartquotes = False
html_theme = "furo"
html_title = f"Packlight {release}"
html_use_index = False
html_copy_source = False
html_show_sourcelink = False


def add_navigation(app: Sphinx, page: str, source: list[str]) -> None:
    """Adds it to the home page, whose file shows it nowhere else."""
    if page == HOME:
        for heading, pages in NAVIGATION.items():
            source[0] += "\n".join(["\n```{toctree}", ":hidden:", f":caption: {heading}", "", *pages, "```\n"])


def finish(app: Sphinx, failure: Exception | None) -> None:
    """Gives the home page the name that servers look for, and HTML inside of Markdown the pictures that it names."""
    if failure is None:
        shutil.copy(app.outdir / f"{HOME}.html", app.outdir / "index.html")
        for picture in (path for kind in ("png", "svg", "webp") for path in (ROOT / "docs").rglob(f"*.{kind}")):
            target = app.outdir / picture.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(picture, target)


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("source-read", add_navigation)
    app.connect("build-finished", finish)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
