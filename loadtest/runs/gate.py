"""`--fail-if`: a metric and a bound, such as `p99>250ms`, `errors>1%` or `images/s<0.9x`. Pure.

A bound in `x` is on the ratio of B to A and needs a comparison. Any other is on the figure itself.
"""

import argparse
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from loadtest.runs.stats import Interval
from loadtest.runs.summary import Summary

# Figures by metric: milliseconds, rates a second, or a share.
METRICS: Mapping[str, Callable[[Summary], float]] = {
    "mean": lambda s: s.latency_ms.mean,
    "p50": lambda s: s.latency_ms.p50,
    "p90": lambda s: s.latency_ms.p90,
    "p95": lambda s: s.latency_ms.p95,
    "p99": lambda s: s.latency_ms.p99,
    "p99.9": lambda s: s.latency_ms.p999,
    "max": lambda s: s.latency_ms.max,
    "requests/s": lambda s: s.answered_rate,
    "images/s": lambda s: s.images_rate,
    "tokens/s": lambda s: float("nan") if s.tokens_rate is None else s.tokens_rate,
    "goodput": lambda s: s.goodput_rate,
    "errors": lambda s: (s.offered - s.answered) / s.offered if s.offered else float("nan"),
}
# The metrics that can be resampled, and therefore compared.
COMPARED = ("mean", "p50", "p90", "p95", "p99", "requests/s", "images/s", "tokens/s", "goodput")
_SCALES = {"": 1.0, "ms": 1.0, "s": 1000.0, "%": 0.01, "/s": 1.0, "x": 1.0}
_GATE = re.compile(r"\s*([\w./]+?)\s*([<>])\s*([0-9.]+)\s*(ms|s|%|/s|x|)\s*$")


@dataclass(frozen=True, slots=True)
class Gate:
    """One bound. `limit` is in the metric's unit, or a ratio if `relative`."""

    text: str
    metric: str
    above: bool
    limit: float
    relative: bool

    def met_by(self, value: float) -> bool:
        """Whether the figure is past the bound. A figure that could not be measured (NaN) counts as past it."""
        if value != value:
            return True
        return value > self.limit if self.above else value < self.limit

    def surely_met_by(self, interval: Interval) -> bool:
        """Whether the whole interval is past the bound."""
        return self.met_by(interval.low if self.above else interval.high)


def parse_gate(text: str) -> Gate:
    """Reads a gate of the command line. Raises `argparse.ArgumentTypeError`."""
    found = _GATE.match(text)
    if not found or found[1] not in METRICS:
        raise argparse.ArgumentTypeError(f"{text!r}: not METRIC>BOUND; metrics are {', '.join(METRICS)}")
    metric, sign, number, unit = found.groups()
    relative = unit == "x"
    if relative and metric not in COMPARED:
        raise argparse.ArgumentTypeError(f"{text!r}: {metric} has no ratio; these have one: {', '.join(COMPARED)}")
    try:
        limit = float(number) * _SCALES[unit]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {number} is not a number") from error
    return Gate(text.strip(), metric, sign == ">", limit, relative)
