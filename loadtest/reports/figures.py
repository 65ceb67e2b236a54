"""Figures in words: the facts and table rows that both the terminal and the page show.

Every figure comes from the result.
"""

import math
from collections.abc import Mapping
from typing import Any

from loadtest.runs.compare import Comparison
from loadtest.runs.gate import METRICS
from loadtest.runs.run import RunResult
from loadtest.runs.stats import Quantiles
from loadtest.runs.summary import Summary
from loadtest.runs.sweep import SweepResult
from loadtest.words import counted

LATENCY_HEADS = ("ms", "mean", "p50", "p90", "p95", "p99", "p99.9", "max")
CLASS_HEADS = ("class", "offered", "answered", "images", "tokens/image", "p50", "p90", "p99", "max", "in SLO")
STAGE_HEADS = ("stage, ms", "mean", "p50", "p90", "p95", "p99", "p99.9", "max")
SWEEP_HEADS = ("rate", "answered/s", "images/s", "goodput/s", "p50 ms", "p99 ms", "errors", "verdict")
COMPARE_HEADS = ("figure", "A", "B", "B / A", "interval", "verdict")
LAYOUTS = {
    "packed": "packed, as it was",
    "pad_to_longest": "padded to the longest",
    "pad_to_cap": "padded to the cap",
}


def number(value: float | None, digits: int = 1) -> str:
    """A figure for people, with fewer decimals the larger it is; a dash if there is none."""
    if value is None or math.isnan(value):
        return "–"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.{0 if abs(value) >= 100 else digits}f}"


def share(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.1%}"


def heading(result: RunResult) -> str:
    timing = result.timing
    pace = f"{timing.rate:g}/s {timing.arrivals}" if timing.rate else f"{timing.concurrency} at a time"
    return f"{address(result)}, {pace}, {timing.duration_s:g} s"


def address(result: RunResult) -> str:
    """Which server, and what it was sent."""
    model = ", ".join(("", *model_facts(result.info).values()))
    return f"{result.url} ({result.form}{model}): mix {result.corpus.name}"


def model_facts(info: Mapping[str, Any]) -> dict[str, str]:
    """What `/info` says about the model, if anything."""
    model = info.get("model")
    found = model if isinstance(model, dict) else {"name": model}
    return {key: str(found[key]) for key in ("name", "device", "dtype") if isinstance(found.get(key), str)}


def rates(summary: Summary) -> dict[str, str]:
    """The figure of every rate, by name."""
    found = {
        "offered": f"{number(summary.offered_rate, 2)} requests/s ({summary.offered:,})",
        "sent": f"{number(summary.sent_rate, 2)} requests/s ({summary.late} late, {summary.unsent} never sent)",
        "answered": f"{number(summary.answered_rate, 2)} requests/s ({summary.answered:,})",
        "images": f"{number(summary.images_rate, 2)} images/s ({summary.images:,})",
        "tokens": "not reported"
        if summary.tokens is None
        else f"{number(summary.tokens_rate)} tokens/s ({summary.tokens:,})",
        "bytes": f"{summary.sent_bytes / 1e6:,.1f} MB sent, {summary.received_bytes / 1e6:,.1f} MB received",
    }
    if summary.slo_ms is not None:
        within = f"within {summary.slo_ms:g} ms ({share(summary.goodput_share)})"
        found["goodput"] = f"{number(summary.goodput_rate, 2)} requests/s {within}"
    return found


def million(images_rate: float) -> str:
    """How long a million images take at this rate; empty if nothing was answered."""
    return f"; a million in {number(1e6 / images_rate / 3600)} h" if images_rate > 0 else ""


def latency_rows(summary: Summary) -> list[tuple[str, ...]]:
    named = {"latency, from due": summary.latency_ms, "from sent": summary.service_ms}
    rows = [(name, *_quantiles(each)) for name, each in named.items()]
    return [*rows, ("left the sender after", *_quantiles(summary.send_delay_ms))]


def _quantiles(each: Quantiles) -> tuple[str, ...]:
    return tuple(number(value) for value in (each.mean, each.p50, each.p90, each.p95, each.p99, each.p999, each.max))


def class_rows(summary: Summary) -> list[tuple[str, ...]]:
    return [
        (
            each.name,
            str(each.offered),
            str(each.answered),
            str(each.images),
            number(each.tokens_per_image, 0),
            *(number(value) for value in (each.latency_ms.p50, each.latency_ms.p90)),
            *(number(value) for value in (each.latency_ms.p99, each.latency_ms.max)),
            share(each.goodput_share) if summary.slo_ms is not None else "–",
        )
        for each in summary.classes
    ]


def stage_rows(stages_ms: Mapping[str, Quantiles]) -> list[tuple[str, ...]]:
    return [(name, *_quantiles(each)) for name, each in stages_ms.items()]


def server_facts(result: RunResult) -> dict[str, str]:
    """What the server says about its packs, its padding and its times, by name."""
    server, facts = result.server, dict[str, str]()
    if server is None:
        return facts
    if server.pack_fill:
        facts["pack fill"] = f"{share(server.pack_fill.mean)} on average, of {counted(server.pack_fill.count, 'pack')}"
    if server.pack_images:
        facts["images a pack"] = f"{number(server.pack_images.mean)} on average"
    for name, waste in server.wastes.items():
        facts[f"waste ({LAYOUTS.get(name, name)})"] = share(waste)
    for name, tokens in sorted(server.avoided_tokens.items()):
        facts[f"padding avoided ({LAYOUTS.get(name, name)})"] = counted(tokens, "token")
    for stage in ("queue", "forward"):
        if seen := server.stages.get(stage):
            facts[f"{stage} time"] = (
                f"mean {number(seen.mean * 1e3)} ms, p50 about {number(seen.quantile(0.5) * 1e3)}, "
                f"p99 about {number(seen.quantile(0.99) * 1e3)}"
            )
    if (forward := server.stages.get("forward")) and server.embedded:
        facts["device time"] = (
            f"{number(1e3 * forward.total / server.embedded)} s for 1,000 images; "
            f"busy {share(forward.total / result.lasted_s)} of the run"
        )
    if server.rejected:
        facts["refused"] = ", ".join(f"{count:.0f} × {reason}" for reason, count in server.rejected.items())
    return facts


def sweep_rows(result: SweepResult) -> list[tuple[str, ...]]:
    """The steps ordered by rate, not as they were tried."""
    return [
        (
            f"{step.rate:.4g}",
            number(step.summary.answered_rate, 2),
            number(step.summary.images_rate, 2),
            number(step.summary.goodput_rate, 2),
            number(step.summary.latency_ms.p50),
            number(step.summary.latency_ms.p99),
            str(sum(step.summary.errors.values())),
            step.verdict.reason or "held",
        )
        for step in sorted(result.steps, key=lambda step: step.rate)
    ]


def knee_text(result: SweepResult) -> str:
    ended = f"The sweep ended: {result.ended}."
    at_knee = [step.summary for step in result.steps if step.rate == result.knee]
    if not at_knee or result.knee is None:
        return f"No rate held. {ended}"
    images_rate = at_knee[-1].images_rate
    there = f"{number(images_rate)} images/s{million(images_rate)}"
    return f"The knee is at {result.knee:.4g} requests/s: {there}. {ended}"


def compare_rows(result: Comparison) -> list[tuple[str, ...]]:
    return [
        (
            f"{name}, ms" if "/" not in name and name != "goodput" else name,
            *(number(METRICS[name](summary), 2) for summary in result.summaries),
            f"{interval.ratio:.3f}",
            f"{interval.low:.3f} … {interval.high:.3f}",
            _says(name, interval.low, interval.high),
        )
        for name, interval in result.ratios.items()
        if not math.isnan(interval.ratio)
    ]


def _says(name: str, low: float, high: float) -> str:
    if low <= 1 <= high or math.isnan(low):
        return "no difference shown"
    more = low > 1
    if "/" in name or name == "goodput":
        return "B does more" if more else "B does less"
    return "B is slower" if more else "B is faster"


def confidence_text(result: Comparison) -> str:
    return f"Intervals hold the ratio with {result.confidence:.0%} confidence."


def same_text(result: Comparison) -> str:
    if result.same_requests:
        return "Both were sent the same requests at the same times."
    return "THE REQUESTS WERE NOT THE SAME: the ratios compare two loads as much as two servers."
