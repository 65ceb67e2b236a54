"""How much of what a server computed was padding, as its own counters say."""

import re
from pathlib import Path
from typing import NamedTuple
from urllib.request import urlopen

_TOKENS = re.compile(r'^packlight_tokens_total\{kind="(\w+)"\} (\S+)$', re.MULTILINE)


class Counts(NamedTuple):
    """Since the server's start. tokens: of images and texts. rows: those and padding."""

    tokens: int
    rows: int


def of_metrics(url: str) -> Counts:
    """Packlight's, from `/metrics`."""
    with urlopen(f"{url}/metrics", timeout=60) as answer:
        return read_metrics(answer.read().decode())


def read_metrics(text: str) -> Counts:
    rows = {kind: round(float(count)) for kind, count in _TOKENS.findall(text)}
    return Counts(sum(rows.values()) - rows.get("padding", 0), sum(rows.values()))


def noted(file: Path) -> Counts:
    """Those of a server that writes a line for each batch: tokens, rows."""
    lines = [line.split() for line in file.read_text(encoding="ascii").splitlines()] if file.exists() else []
    return Counts(sum(int(tokens) for tokens, _ in lines), sum(int(rows) for _, rows in lines))


def padding(before: Counts | None, after: Counts | None) -> str | None:
    """The share of the rows computed in between that held no token; None if the server does not say."""
    if before is None or after is None or after.rows == before.rows:
        return None
    return f"{1 - (after.tokens - before.tokens) / (after.rows - before.rows):.1%}"
