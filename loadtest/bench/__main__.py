"""`python -m loadtest.bench NAME`: runs one benchmark, prints its table, and writes JSON where asked.

The exit status is 1 where a verdict is not what it should be."""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

from loadtest.bench import (
    cost,
    event_loop,
    fast_decode,
    forward,
    jpegs,
    overload,
    preprocess,
    refusal,
    scale,
    serve,
    soak,
)

_BENCHMARKS: dict[str, Callable[[argparse.Namespace], list[dict[str, object]]]] = {
    "cost": lambda options: cost.measure(),
    "event-loop": lambda options: event_loop.measure(),
    "fast-decode": fast_decode.measure,
    "forward": forward.measure,
    "overload": overload.measure,
    "preprocess": preprocess.measure,
    "refusal": lambda options: refusal.measure(),
    "scale": lambda options: scale.measure(),
    "serve": serve.measure,
    "soak": soak.measure,
}
_OPTIONS = {
    "fast-decode": jpegs.add_options,
    "forward": forward.add_options,
    "overload": overload.add_options,
    "preprocess": preprocess.add_options,
    "serve": serve.add_options,
    "soak": soak.add_options,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m loadtest.bench", description=__doc__)
    names = parser.add_subparsers(dest="benchmark", required=True)
    for name in _BENCHMARKS:
        options = names.add_parser(name)
        options.add_argument("--json", type=Path, metavar="FILE", help="write the rows there too")
        if name in _OPTIONS:
            _OPTIONS[name](options)
    given = parser.parse_args()
    rows = _BENCHMARKS[given.benchmark](given)
    for row in rows:
        sys.stdout.write("  ".join(f"{name}={value}" for name, value in row.items()) + "\n")
    if given.json:
        given.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    return int(any(row.get("verdict") == "grows" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
