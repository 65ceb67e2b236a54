"""The pages of a run, a sweep and a comparison. Every plot has its figures in a table beneath it."""

from collections.abc import Sequence

from loadtest.reports import charts, figures
from loadtest.reports.figures import number, share
from loadtest.reports.page import notes, page, pairs, section, table, tiles
from loadtest.runs import run
from loadtest.runs.compare import Comparison, Judged
from loadtest.runs.run import RunResult
from loadtest.runs.summary import Summary
from loadtest.runs.sweep import SweepResult
from loadtest.words import counted


def run_page(result: RunResult) -> str:
    """The page of a run: first its headline, notes and padding, then latency, throughput and the settings."""
    parts = [
        tiles(_headline(result)),
        notes(run.notes(result)),
        *_packing(result),
        *_client_side(result),
        section("How it was measured", "", pairs(_settings(result))),
    ]
    return page(f"Load test of {result.url}", _lede(result), parts)


def _packing(result: RunResult) -> list[str]:
    server, facts = result.server, figures.server_facts(result)
    padding = {name: fact for name, fact in facts.items() if "waste" in name or "padding" in name}
    others = {name: fact for name, fact in facts.items() if name not in padding}
    parts = []
    if server and server.wastes:
        parts.append(section("Padding that was not paid", charts.waste(server.wastes), pairs(padding)))
    if server and server.pack_fill:
        parts.append(section("Pack fill", charts.pack_fill(server.pack_fill), pairs(others), open_=True))
    return parts


def _client_side(result: RunResult) -> list[str]:
    summary = result.summary
    latency_ms = result.records.where(result.records.ok).latency_ms
    quantiles = table(figures.LATENCY_HEADS, figures.latency_rows(summary))
    classes = table(figures.CLASS_HEADS, figures.class_rows(summary))
    parts = [
        section("Latency over time", charts.latency_over_time(summary), _timeline_table(summary)),
        section("Latency as a distribution", charts.latency_distribution(latency_ms, summary), quantiles, open_=True),
        section("Throughput", charts.throughput(summary), pairs(figures.rates(summary)), open_=True),
        section("By class of the mix", "", classes),
    ]
    if summary.stages_ms:
        stages = table(figures.STAGE_HEADS, figures.stage_rows(summary.stages_ms))
        parts.append(section("Where the time goes", charts.stages(summary), stages, open_=True))
    if summary.errors:
        rows = [(name, str(count)) for name, count in summary.errors.items()]
        parts.append(section("Errors", "", table(("how it ended", "requests"), rows)))
    if result.checks:
        parts.append(section("Do both ends agree?", "", _checks(result)))
    return parts


def sweep_page(result: SweepResult) -> str:
    steps = table(figures.SWEEP_HEADS, figures.sweep_rows(result))
    parts = [
        notes([figures.knee_text(result)]),
        section("Latency by rate", charts.sweep_latency(result), steps, open_=True),
        section("Goodput by rate", charts.sweep_goodput(result), "", open_=True),
        section("How it was measured", "", pairs(_settings(result.last))),
    ]
    return page(f"Sweep of {result.url}", f"{figures.address(result.last)}.", parts)


def compare_page(result: Comparison, judged: Sequence[Judged]) -> str:
    gates = [(each.gate.text, each.outcome, each.said) for each in judged]
    parts = [
        notes([figures.same_text(result), figures.confidence_text(result)]),
        section(
            "B over A",
            charts.compared_ratios(result),
            table(figures.COMPARE_HEADS, figures.compare_rows(result)),
            open_=True,
        ),
        section("Latency of both", charts.compared_latencies(result), ""),
    ]
    if gates:
        parts.append(section("Gates", "", table(("--fail-if", "outcome", "because"), gates), open_=True))
    return page("Comparison", f"A: {result.base.label}. B: {result.other.label}.", parts)


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
    return table(heads, rows)


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
    return table(("count", "client", "server", "verdict"), rows)
