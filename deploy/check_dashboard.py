"""Asks a live Prometheus every expression of the dashboard and requires an answer to each.

    python deploy/check_dashboard.py --prometheus http://127.0.0.1:9090 --wait 60

Meant for a Prometheus that scrapes a server under load: an idle one has no rates to show. Exit status 1 names what
answered nothing. Expressions of GPUs are asked only where the server has any.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import urlopen

DASHBOARD = Path(__file__).parent / "grafana" / "dashboards" / "packlight.json"
# What Grafana would put there.
VARIABLES = {"$__rate_interval": "1m", "$__interval": "15s", "$instance": ".*"}
# Metrics that a server without an NVIDIA GPU does not have, and one of them that it has with one.
_OF_GPUS, _ANY_GPU = "packlight_gpu_", "packlight_gpu_memory_bytes"
_TIMEOUT_S = 10
_RETRY_S = 3


@dataclass(frozen=True, slots=True)
class Question:
    """An expression of a panel, with its variables filled in."""

    panel: str
    expr: str


def questions(dashboard: dict[str, Any]) -> Iterator[Question]:
    """Every expression of every panel, those in collapsed rows too."""
    for panel in dashboard["panels"]:
        yield from questions({"panels": panel.get("panels", [])})
        for target in panel.get("targets", []):
            expr = target["expr"]
            for name, value in VARIABLES.items():
                expr = expr.replace(name, value)
            yield Question(panel["title"], expr)


def askable(prometheus: str, asked: Iterable[Question]) -> list[Question]:
    """Without those of GPUs if no server has told of one."""
    asked = list(asked)
    if any(_OF_GPUS in question.expr for question in asked) and not ask(prometheus, _ANY_GPU):
        return [question for question in asked if _OF_GPUS not in question.expr]
    return asked


def ask(prometheus: str, expr: str, *, at_s: float | None = None) -> list[tuple[dict[str, str], float]]:
    """Labels and value of each sample. Raises `HTTPError` if the expression is none.

    at_s: the time, since 1970 (now)."""
    query = {"query": expr} | ({} if at_s is None else {"time": f"{at_s:.3f}"})
    with urlopen(f"{prometheus}/api/v1/query?{urlencode(query)}", timeout=_TIMEOUT_S) as answer:
        samples = json.load(answer)["data"]["result"]
    return [(sample.get("metric", {}), float(sample["value"][1])) for sample in samples]


def fault(prometheus: str, question: Question) -> str | None:
    """Why `question` has no answer, or None where it has one: at least one sample that is a number."""
    try:
        samples = ask(prometheus, question.expr)
    except HTTPError as error:
        return str(json.load(error).get("error", error))
    if not samples:
        return "no samples"
    return None if any(math.isfinite(value) for _, value in samples) else "only NaN or Inf"


def main() -> int:
    """0 where every expression was answered within the time given."""
    parser = argparse.ArgumentParser(
        description="Asks a live Prometheus every expression of the dashboard.", allow_abbrev=False
    )
    parser.add_argument("--prometheus", default="http://127.0.0.1:9090", metavar="URL")
    parser.add_argument("--dashboard", type=Path, default=DASHBOARD, metavar="FILE")
    parser.add_argument("--wait", type=float, default=0.0, metavar="S", help="how long to ask again (0)")
    args = parser.parse_args()
    board = list(questions(json.loads(args.dashboard.read_text(encoding="utf-8"))))
    give_up_s = time.monotonic() + args.wait
    while True:
        asked = askable(args.prometheus, board)
        faults = [(question, why) for question in asked if (why := fault(args.prometheus, question))]
        if not faults or time.monotonic() >= give_up_s:
            break
        time.sleep(_RETRY_S)
    for question, why in faults:
        sys.stderr.write(f"{question.panel}: {why}\n    {question.expr}\n")
    sys.stdout.write(f"{len(asked) - len(faults)} of {len(asked)} dashboard expressions answered\n")
    return 1 if faults or not asked else 0


if __name__ == "__main__":
    sys.exit(main())
