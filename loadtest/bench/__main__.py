"""`python -m loadtest.bench NAME`: runs one benchmark and prints a line for each row, or a table; JSON too if asked to.

The exit status is 1 if a verdict is `failed` or `grows`."""

import argparse
import importlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Each is a module, and only the requested one is imported: `gpu` must run with few packages installed.
_WITH_OPTIONS = (
    "accelerator", "canary", "encoders", "event-loop", "fast-decode", "forward", "gpu", "job", "layers", "layouts",
    "overload", "peers", "preprocess", "priorities", "request-cost", "seen", "serve", "simulator", "soak", "start",
    "stats", "text", "tracing", "variants", "vectors",
)  # fmt: skip
# The benchmarks that lie in folders.
_FOLDERS = {
    "accelerator": ("accelerator", "priorities"),
    "clients": ("dialects",),
    "decoding": ("fast-decode",),
    "encoders": ("encoders",),
    "jobs": ("job",),
    "numbers": ("canary", "layers", "variants"),
    "peers": ("peers",),
    "prediction": ("simulator",),
    "servers": ("request-cost", "seen", "start", "stats", "tracing"),
    "soak": ("soak",),
}
_BENCHMARKS = sorted((*_WITH_OPTIONS, "cost", "dialects", "refusal", "scale"))

Row = dict[str, object]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m loadtest.bench", description=__doc__, allow_abbrev=False)
    names = parser.add_subparsers(dest="benchmark", required=True)
    for name in _BENCHMARKS:
        options = names.add_parser(name, allow_abbrev=False)
        options.add_argument("--json", type=Path, metavar="FILE", help="write the rows there too")
        options.add_argument("--table", action="store_true", help="print a table in Markdown")
        if name in sys.argv[1:2] and name in _WITH_OPTIONS:
            _module(name).add_options(options)
    given = parser.parse_args()
    measure = _module(given.benchmark).measure
    rows = measure(given) if given.benchmark in _WITH_OPTIONS else measure()
    sys.stdout.write(table(rows) if given.table else lines(rows))
    if given.json:
        given.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    return int(any(row.get("verdict") in ("grows", "failed") for row in rows))


def lines(rows: Sequence[Row]) -> str:
    """A line of names and values for each row."""
    return "".join("  ".join(f"{name}={value}" for name, value in row.items()) + "\n" for row in rows)


def table(rows: Sequence[Row]) -> str:
    """A Markdown table with a column for each name, in the order in which names come. What a row lacks stays empty."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [names, ["---"] * len(names), *([str(row.get(name, "")) for name in names] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)


def _module(benchmark: str) -> Any:
    folders = [folder for folder, names in _FOLDERS.items() if benchmark in names]
    return importlib.import_module(".".join(["loadtest.bench", *folders, benchmark.replace("-", "_")]))


if __name__ == "__main__":
    sys.exit(main())
