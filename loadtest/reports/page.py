"""One self-contained page from parts: no script, no font, nothing from another host. Plots are inline SVG.

A plot has its figures in a table beneath it, for those who cannot see it and those who want to copy them. This module
knows nothing of load tests.
"""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

Rows = Sequence[Sequence[str]]
_STYLE = Path(__file__).with_name("report.css")


def page(title: str, lede: str, parts: Sequence[str]) -> str:
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<link rel="icon" href="data:,">\n'
        f"<title>{escape(title)}</title>\n<style>\n{stylesheet()}</style>\n</head>\n<body>\n<main>\n"
        f"<header><h1>{escape(title)}</h1><p>{escape(lede)}</p></header>\n" + "\n".join(filter(None, parts)) + "\n"
        "</main>\n</body>\n</html>\n"
    )


def tiles(facts: Mapping[str, str]) -> str:
    tiles = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(fact)}</dd></div>" for name, fact in facts.items())
    return f'<dl class="tiles">{tiles}</dl>'


def notes(said: Sequence[str]) -> str:
    items = "".join(
        f'<li class="{"loud" if note.split(":")[0].isupper() else ""}">{escape(note)}</li>' for note in said
    )
    return f'<ul class="notes">{items}</ul>' if items else ""


def section(title: str, plot: str, table: str, *, open_: bool = False) -> str:
    figure = f'<figure tabindex="0">{plot}</figure>' if plot else ""
    state = " open" if open_ else ""
    details = f"<details{state}><summary>The figures</summary>{table}</details>" if table and plot else table
    return f"<section><h2>{escape(title)}</h2>{figure}{details}</section>"


def table(heads: Sequence[str], rows: Rows) -> str:
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in heads)
    body = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>' + "".join(f"<td>{escape(text)}</td>" for text in row[1:]) + "</tr>"
        for row in rows
    )
    return f'<div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def pairs(facts: Mapping[str, str]) -> str:
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(fact)}</td></tr>' for name, fact in facts.items()
    )
    return f'<div class="scroll" tabindex="0"><table class="pairs"><tbody>{body}</tbody></table></div>'


def stylesheet() -> str:
    """The colours of all marks."""
    return _STYLE.read_text(encoding="utf-8")
