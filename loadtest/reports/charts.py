"""The charts of a run, a sweep and a comparison, each an SVG made from the result."""

import math
from collections.abc import Sequence

import numpy as np

from loadtest.reports.bars import Part, Spread, bars, spreads
from loadtest.reports.figures import LAYOUTS
from loadtest.reports.plots import Axis, Chart, linear, logarithmic, tick_text
from loadtest.runs.compare import Comparison
from loadtest.runs.stats import Buckets, Floats
from loadtest.runs.summary import Summary, Tick
from loadtest.runs.sweep import SweepResult

_BINS = 48


def latency_over_time(summary: Summary) -> str:
    ticks = summary.timeline
    every = [value for tick in ticks for value in (tick.p50_ms, tick.max_ms)]
    seconds = _seconds(summary)
    slo = [summary.slo_ms] if summary.slo_ms is not None else []
    chart = Chart(
        "Latency over time",
        f"Lines of p50, p99 and maximum by the time requests were due; p99 overall {summary.latency_ms.p99:.0f} ms.",
        linear("due, seconds from the start", seconds, low=None),
        logarithmic("ms", [*every, *slo]),
    )
    if summary.slo_ms is not None:
        chart.rule(y=summary.slo_ms, text=f"SLO {summary.slo_ms:g} ms")
    chart.line([(_middle(tick), tick.max_ms) for tick in ticks], "s3", "maximum")
    chart.line([(_middle(tick), tick.p99_ms) for tick in ticks], "s2", "p99")
    chart.line([(_middle(tick), tick.p50_ms) for tick in ticks], "s1", "p50")
    return chart.svg()


def _seconds(summary: Summary) -> list[float]:
    return [edge for tick in summary.timeline for edge in (tick.at_s, tick.at_s + tick.length_s)]


def _middle(tick: Tick) -> float:
    return tick.at_s + tick.length_s / 2


def latency_distribution(latency_ms: Floats, summary: Summary) -> str:
    known = latency_ms[latency_ms > 0]
    x = logarithmic("latency from the time it was due, ms", _ends(known, summary.slo_ms))
    edges = np.geomspace(x.low, x.high, _BINS + 1)
    shares = 100 * np.histogram(known, edges)[0] / max(len(known), 1)
    quantiles = summary.latency_ms
    chart = Chart(
        "Latency as a distribution",
        f"Histogram, logarithmic; p50 {quantiles.p50:.0f}, p99 {quantiles.p99:.0f}, maximum {quantiles.max:.0f} ms.",
        x,
        linear("% of answers", [float(share) for share in shares], air=1.4),
    )
    for left, right, share in zip(edges, edges[1:], shares, strict=False):
        if share:
            chart.bar(float(left), float(right), float(share), "s1", f"{left:.3g} to {right:.3g} ms: {share:.1f} %")
    for row, (name, value) in enumerate((("p50", quantiles.p50), ("p95", quantiles.p95), ("p99", quantiles.p99))):
        if math.isfinite(value):
            chart.rule(x=value, text=f"{name} {tick_text(value)}", row=row)
    if summary.slo_ms is not None:
        chart.rule(x=summary.slo_ms, text=f"SLO {summary.slo_ms:g}", css="rule slo", row=3)
    return chart.svg()


def _ends(values: Floats, slo_ms: float | None) -> list[float]:
    ends = [float(values.min()), float(values.max())] if len(values) else [1.0, 10.0]
    return ends if slo_ms is None else [*ends, slo_ms]


def throughput(summary: Summary) -> str:
    ticks = summary.timeline
    rates = [rate for tick in ticks for rate in (tick.offered_rate, tick.answered_rate, tick.error_rate)]
    chart = Chart(
        "Throughput",
        f"Requests a second: {summary.offered_rate:.1f} offered and {summary.answered_rate:.1f} answered, on average.",
        linear("seconds from the start", _seconds(summary), low=None),
        linear("requests a second", rates),
    )
    chart.area([(_middle(tick), tick.offered_rate) for tick in ticks], "s4", "offered")
    chart.line([(_middle(tick), tick.answered_rate) for tick in ticks], "s1", "answered")
    if summary.errors:
        chart.line([(_middle(tick), tick.error_rate) for tick in ticks], "bad", "failed")
    return chart.svg()


def pack_fill(fill: Buckets) -> str:
    shares = [100 * count / fill.count for count in fill.counts]
    chart = Chart(
        "Pack fill",
        f"Packs by how full they were, as a share of the most tokens allowed; on average {fill.mean:.0%}.",
        Axis("fill of a pack, % of max_batch_tokens", 0, 100),
        linear("% of packs", shares, air=1.25),
        height=230,
    )
    left = 0.0
    for bound, share in zip(fill.bounds, shares, strict=True):
        right = min(bound, 1.0)
        if share and right > left:
            chart.bar(left * 100, right * 100, share, "s1", f"{left:.0%} to {right:.0%} full: {share:.1f} % of packs")
        left = right
    chart.rule(x=fill.mean * 100, text=f"mean {fill.mean:.0%}")
    return chart.svg()


def waste(wastes: dict[str, float]) -> str:
    rows = [
        (LAYOUTS.get(name, name), [Part("padding", 100 * value, "s1" if name == "packed" else "s2")])
        for name, value in wastes.items()
    ]
    said = ", ".join(f"{LAYOUTS.get(name, name)} {value:.1%}" for name, value in wastes.items())
    return bars("Padding, share of what is computed", f"Packed against padded: {said}.", rows, unit=" %")


def stages(summary: Summary) -> str:
    parts = [Part(name, each.mean, f"s{1 + place % 6}") for place, (name, each) in enumerate(summary.stages_ms.items())]
    said = ", ".join(f"{part.label} {part.value:.1f} ms" for part in parts)
    return bars(
        "Where the time goes", f"Mean time of an answer by stage: {said}.", [("mean answer", parts)], unit=" ms"
    )


def sweep_latency(result: SweepResult) -> str:
    steps = sorted(result.steps, key=lambda step: step.rate)
    values = [v for step in steps for v in (step.summary.latency_ms.p50, step.summary.latency_ms.p99)]
    chart = Chart(
        "Latency by rate",
        f"p50 and p99 at each offered rate. {_knee(result)}",
        linear("offered, requests a second", [step.rate for step in steps]),
        logarithmic("ms", values),
    )
    chart.line([(step.rate, step.summary.latency_ms.p99) for step in steps], "s2", "p99", dots=True)
    chart.line([(step.rate, step.summary.latency_ms.p50) for step in steps], "s1", "p50", dots=True)
    slo_ms = steps[0].summary.slo_ms if steps else None
    if slo_ms is not None:
        chart.rule(y=slo_ms, text=f"SLO {slo_ms:g} ms")
    return _with_knee(chart, result)


def sweep_goodput(result: SweepResult) -> str:
    steps = sorted(result.steps, key=lambda step: step.rate)
    chart = Chart(
        "Goodput by rate",
        f"Answers and goodput at each offered rate. {_knee(result)}",
        linear("offered, requests a second", [step.rate for step in steps]),
        linear("requests a second", [step.rate for step in steps]),
    )
    chart.line([(0, 0), *((step.rate, step.rate) for step in steps[-1:])], "rule", "offered")
    chart.line([(step.rate, step.summary.answered_rate) for step in steps], "s1", "answered", dots=True)
    chart.line([(step.rate, step.summary.goodput_rate) for step in steps], "s3", "goodput", dots=True)
    return _with_knee(chart, result)


def _knee(result: SweepResult) -> str:
    return "No rate held." if result.knee is None else f"The knee is at {result.knee:.3g} requests a second."


def _with_knee(chart: Chart, result: SweepResult) -> str:
    if result.knee is not None:
        chart.rule(x=result.knee, text=f"knee {result.knee:.3g}/s")
    return chart.svg()


def compared_ratios(result: Comparison) -> str:
    rows = [
        Spread(name, each.low, each.ratio, each.high)
        for name, each in result.ratios.items()
        if math.isfinite(each.low + each.ratio + each.high)
    ]
    said = ", ".join(f"{row.label} {row.value:.2f}" for row in rows)
    return spreads("B over A", f"The ratio of each figure with its interval: {said}.", rows)


def compared_latencies(result: Comparison) -> str:
    """The share of answers that had come by each latency."""
    both = [_sorted_latency(side.records.where(side.records.ok).latency_ms) for side in (result.base, result.other)]
    chart = Chart(
        "Latency of both",
        "The share of answers that had come by each latency, for A and for B.",
        logarithmic("latency from the time it was due, ms", [v for values in both for v in _ends(values, None)]),
        Axis("% answered by then", 0, 100),
    )
    for values, css, label in zip(both, ("s1", "s2"), ("A", "B"), strict=True):
        chart.line(_cumulative(values), css, label)
    return chart.svg()


def _sorted_latency(latency_ms: Floats) -> Floats:
    return np.sort(latency_ms[latency_ms > 0])


def _cumulative(values: Floats) -> Sequence[tuple[float, float]]:
    if not len(values):
        return []
    levels = np.linspace(0, 100, 201)
    return [(float(at), float(level)) for at, level in zip(np.percentile(values, levels), levels, strict=True)]
