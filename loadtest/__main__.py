"""`python -m loadtest run | sweep | compare`: from the command line to an exit status."""

import sys
from collections.abc import Sequence

_NOTHING_MEASURED, _INTERRUPTED = 2, 130

try:
    from loadtest.commands import Console, compare_command, run_command, sweep_command
    from loadtest.errors import LoadtestError
    from loadtest.options import parser
except ModuleNotFoundError as missing:
    # Serving needs no aiohttp, so neither `make serve` nor a plain `pip install packlight` installs it.
    sys.stderr.write(
        f"loadtest: {missing.name} is not installed; `make setup` or `pip install 'packlight[loadtest]'` installs it\n"
    )
    sys.exit(_NOTHING_MEASURED)

_COMMANDS = {"run": run_command, "sweep": sweep_command, "compare": compare_command}


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status: 0, 1 if a gate was met, 2 if nothing could be measured, 130 after Ctrl-C."""
    args = parser().parse_args(argv)
    try:
        return _COMMANDS[args.command](args, Console(sys.stdout, sys.stderr, quiet=args.quiet))
    except LoadtestError as error:
        sys.stderr.write(f"loadtest: {error}\n")
        return _NOTHING_MEASURED
    except KeyboardInterrupt:
        sys.stderr.write("loadtest: interrupted before anything was measured\n")
        return _INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
