"""`python -m loadtest.bench NAME`: runs one benchmark, prints its table, and writes JSON where asked."""

import argparse
import json
import sys
from pathlib import Path

from loadtest.bench import event_loop, refusal

_BENCHMARKS = {"event-loop": event_loop.measure, "refusal": refusal.measure}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m loadtest.bench", description=__doc__)
    parser.add_argument("benchmark", choices=sorted(_BENCHMARKS))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there too")
    options = parser.parse_args()
    rows = _BENCHMARKS[options.benchmark]()
    for row in rows:
        sys.stdout.write("  ".join(f"{name}={value}" for name, value in row.items()) + "\n")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
