"""Results as one self-contained page: no script, no font, nothing from another host. Plots are inline SVG.

Every plot has its figures in a table beneath it, for those who cannot see it and those who want to copy them.
"""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from loadtest.reports import charts, figures
from loadtest.reports.figures import number, share
from loadtest.runs.compare import Comparison, Judged
from loadtest.runs.run import RunResult, notes
from loadtest.runs.summary import Summary
from loadtest.runs.sweep import SweepResult
from loadtest.words import counted

Rows = Sequence[Sequence[str]]
_STYLE = Path(__file__).with_name("report.css")


def run_page(result: RunResult) -> str:
    """The page of a run: first its headline, notes and padding, then latency, throughput and the settings."""
    parts = [
        _tiles(_headline(result)),
        _notes(notes(result)),
        *_packing(result),
        *_client_side(result),
        _section("How it was measured", "", _pairs(_settings(result))),
    ]
    return _page(f"Load test of {result.url}", _lede(result), parts)


def _packing(result: RunResult) -> list[str]:
    server, facts = result.server, figures.server_facts(result)
    padding = {name: fact for name, fact in facts.items() if "waste" in name or "padding" in name}
    others = {name: fact for name, fact in facts.items() if name not in padding}
    parts = []
    if server and server.wastes:
        parts.append(_section("Padding that was not paid", charts.waste(server.wastes), _pairs(padding)))
    if server and server.pack_fill:
        parts.append(_section("Pack fill", charts.pack_fill(server.pack_fill), _pairs(others), open_=True))
    return parts


def _client_side(result: RunResult) -> list[str]:
    summary = result.summary
    latency_ms = result.records.where(result.records.ok).latency_ms
    quantiles = _table(figures.LATENCY_HEADS, figures.latency_rows(summary))
    classes = _table(figures.CLASS_HEADS, figures.class_rows(summary))
    parts = [
        _section("Latency over time", charts.latency_over_time(summary), _timeline_table(summary)),
        _section("Latency as a distribution", charts.latency_distribution(latency_ms, summary), quantiles, open_=True),
        _section("Throughput", charts.throughput(summary), _pairs(figures.rates(summary)), open_=True),
        _section("By class of the mix", "", classes),
    ]
    if summary.stages_ms:
        stages = _table(figures.STAGE_HEADS, figures.stage_rows(summary.stages_ms))
        parts.append(_section("Where the time goes", charts.stages(summary), stages, open_=True))
    if summary.errors:
        rows = [(name, str(count)) for name, count in summary.errors.items()]
        parts.append(_section("Errors", "", _table(("how it ended", "requests"), rows)))
    if result.checks:
        parts.append(_section("Do both ends agree?", "", _checks(result)))
    return parts


def sweep_page(result: SweepResult) -> str:
    table = _table(figures.SWEEP_HEADS, figures.sweep_rows(result))
    parts = [
        _notes([figures.knee_text(result)]),
        _section("Latency by rate", charts.sweep_latency(result), table, open_=True),
        _section("Goodput by rate", charts.sweep_goodput(result), "", open_=True),
        _section("How it was measured", "", _pairs(_settings(result.last))),
    ]
    return _page(f"Sweep of {result.url}", f"{figures.address(result.last)}.", parts)


def compare_page(result: Comparison, judged: Sequence[Judged]) -> str:
    gates = [(each.gate.text, each.outcome, each.said) for each in judged]
    parts = [
        _notes([figures.same_text(result), figures.confidence_text(result)]),
        _section(
            "B over A",
            charts.compared_ratios(result),
            _table(figures.COMPARE_HEADS, figures.compare_rows(result)),
            open_=True,
        ),
        _section("Latency of both", charts.compared_latencies(result), ""),
    ]
    if gates:
        parts.append(_section("Gates", "", _table(("--fail-if", "outcome", "because"), gates), open_=True))
    return _page("Comparison", f"A: {result.base.label}. B: {result.other.label}.", parts)


def _headline(result: RunResult) -> dict[str, str]:
    summary, server = result.summary, result.server
    tiles = {
        "images a second": number(summary.images_rate),
        "p50": f"{number(summary.latency_ms.p50)} ms",
        "p99": f"{number(summary.latency_ms.p99)} ms",
    }
    if summary.tokens is not None and summary.images:
        tiles["tokens an image"] = number(summary.tokens / summary.images, 0)
    if summary.slo_ms is not None:
        tiles[f"within {summary.slo_ms:g} ms"] = share(summary.goodput_share)
    failed = summary.offered - summary.answered
    tiles["not answered"] = f"{failed:,} of {summary.offered:,}"
    if server and server.wastes:
        tiles["padding, packed"] = share(server.padding_waste)
        padded = {name: value for name, value in server.wastes.items() if name != "packed"}
        tiles |= {f"if {figures.LAYOUTS.get(name, name)}": share(value) for name, value in padded.items()}
    return tiles


def _lede(result: RunResult) -> str:
    return f"{figures.heading(result)}. Started {result.started_at}."


def _settings(result: RunResult) -> dict[str, str]:
    corpus, timing = result.corpus, result.timing
    return {
        "mix": f"{corpus.name}: {', '.join(corpus.classes)}",
        "corpus": f"{counted(len(corpus.requests), 'request')} with {counted(corpus.images, 'image')}, "
        f"{corpus.megapixels:.1f} megapixels, {corpus.picture_bytes / 1e6:.1f} MB; fingerprint {corpus.fingerprint()}",
        "arrivals": f"{timing.arrivals}, seed {timing.seed}" if timing.rate else f"closed loop of {timing.concurrency}",
        "not measured": f"ramp {timing.ramp_s:g} s, warm-up {timing.warmup_s:g} s",
        "request form": result.form,
        "latency": "from the time a request was due to the last byte of its answer; percentiles of successful answers",
    }


def _timeline_table(summary: Summary) -> str:
    heads = ("from, s", "offered/s", "answered/s", "failed/s", "p50 ms", "p99 ms", "max ms")
    rows = [
        (
            f"{tick.at_s:g}",
            *(number(rate) for rate in (tick.offered_rate, tick.answered_rate, tick.error_rate)),
            *(number(value) for value in (tick.p50_ms, tick.p99_ms, tick.max_ms)),
        )
        for tick in summary.timeline
    ]
    return _table(heads, rows)


def _checks(result: RunResult) -> str:
    rows = [
        (
            check.name,
            f"{check.client:,.0f}",
            f"{check.server:,.0f}",
            "agree" if check.agrees else f"DISAGREE: {check.remark}",
        )
        for check in result.checks
    ]
    return _table(("count", "client", "server", "verdict"), rows)


def _page(title: str, lede: str, parts: Sequence[str]) -> str:
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<link rel="icon" href="data:,">\n'
        f"<title>{escape(title)}</title>\n<style>\n{_STYLE.read_text()}</style>\n</head>\n<body>\n<main>\n"
        f"<header><h1>{escape(title)}</h1><p>{escape(lede)}</p></header>\n" + "\n".join(filter(None, parts)) + "\n"
        "</main>\n</body>\n</html>\n"
    )


def _tiles(facts: Mapping[str, str]) -> str:
    tiles = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(fact)}</dd></div>" for name, fact in facts.items())
    return f'<dl class="tiles">{tiles}</dl>'


def _notes(said: Sequence[str]) -> str:
    items = "".join(
        f'<li class="{"loud" if note.split(":")[0].isupper() else ""}">{escape(note)}</li>' for note in said
    )
    return f'<ul class="notes">{items}</ul>' if items else ""


def _section(title: str, plot: str, table: str, *, open_: bool = False) -> str:
    figure = f'<figure tabindex="0">{plot}</figure>' if plot else ""
    state = " open" if open_ else ""
    details = f"<details{state}><summary>The figures</summary>{table}</details>" if table and plot else table
    return f"<section><h2>{escape(title)}</h2>{figure}{details}</section>"


def _table(heads: Sequence[str], rows: Rows) -> str:
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in heads)
    body = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>' + "".join(f"<td>{escape(text)}</td>" for text in row[1:]) + "</tr>"
        for row in rows
    )
    return f'<div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _pairs(facts: Mapping[str, str]) -> str:
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(fact)}</td></tr>' for name, fact in facts.items()
    )
    return f'<div class="scroll" tabindex="0"><table class="pairs"><tbody>{body}</tbody></table></div>'
