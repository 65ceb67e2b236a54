"""Results in a terminal: lines of text. Computes no figure of its own."""

import textwrap
from collections.abc import Sequence

from loadtest.reports import figures
from loadtest.runs.compare import Comparison, Judged
from loadtest.runs.run import RunResult, notes
from loadtest.runs.sweep import SweepResult


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns lined up: the first to the left, the others to the right. The first row is the head."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  " + "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows]


def run_text(result: RunResult) -> str:
    summary = result.summary
    lines = ["", figures.heading(result), ""]
    lines += [f"  {name:9} {fact}" for name, fact in figures.rates(summary).items()]
    lines += ["", *table([figures.LATENCY_HEADS, *figures.latency_rows(summary)])]
    lines += ["", *table([figures.CLASS_HEADS, *figures.class_rows(summary)])]
    if summary.errors:
        lines += ["", *table([("errors", "requests"), *((name, str(n)) for name, n in summary.errors.items())])]
    if summary.stages_ms:
        lines += ["", *table([figures.STAGE_HEADS, *figures.stage_rows(summary.stages_ms)])]
    lines += ["", *_server_lines(result), "", *_notes(notes(result))]
    return "\n".join(lines).rstrip() + "\n"


def _server_lines(result: RunResult) -> list[str]:
    lines = [f"  {name}: {fact}" for name, fact in figures.server_facts(result).items()]
    lines += [
        f"  {'✓' if check.agrees else '✗'} {check.name}: client {check.client:,.0f}, server {check.server:,.0f}"
        for check in result.checks
    ]
    return ["The server's side:", *lines] if lines else []


def _notes(said: Sequence[str]) -> list[str]:
    return [line for note in said for line in textwrap.wrap(note, 110, initial_indent="! ", subsequent_indent="  ")]


def sweep_text(result: SweepResult) -> str:
    lines = ["", *table([figures.SWEEP_HEADS, *figures.sweep_rows(result)]), "", figures.knee_text(result)]
    return "\n".join(lines) + "\n"


def compare_text(result: Comparison, judged: Sequence[Judged]) -> str:
    lines = ["", f"A  {result.base.label}", f"B  {result.other.label}", ""]
    lines += table([figures.COMPARE_HEADS, *figures.compare_rows(result)])
    lines += ["", f"{figures.confidence_text(result)} {figures.same_text(result)}"]
    for label, summary in zip("AB", result.summaries, strict=True):
        if summary.errors or not summary.held:
            wrong = ", ".join(f"{count} × {name}" for name, count in summary.errors.items())
            lines.append(f"! {label}: {wrong or 'no errors'}; {summary.late} sent late, {summary.unsent} never sent.")
    lines += [f"--fail-if '{each.gate.text}': {each.outcome} ({each.said})" for each in judged]
    return "\n".join(lines) + "\n"
