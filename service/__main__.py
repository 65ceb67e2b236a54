"""The command line: `packlight serve`, `embed`, `search` and the others."""

import argparse
import io
import json
import logging
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, NamedTuple

from service.cli.slips import BEGIN, command_slip, word_slip
from service.watching.exits import EXIT_CANNOT_START, EXIT_INTERRUPTED

if TYPE_CHECKING:
    from service.settings.settings import Settings

_MODEL_SETTINGS = (
    "model", "revision", "devices", "dtype", "attention", "layout", "feature_layer", "pooling", "anyres_tile",
    "anyres_pinpoints", "text_tower", "text_cleaning", "max_text_chars",
)  # fmt: skip
_EMBED_SETTINGS = (
    *_MODEL_SETTINGS, "default_max_tokens", "max_image_tokens", "max_batch_tokens", "max_decode_pixels",
    "decode_threads", "decode",
)  # fmt: skip

# Runs a command and returns its exit status.
_Run = Callable[["Settings", argparse.Namespace], int]

_log = logging.getLogger(__name__)


class _Command(NamedTuple):
    """add: adds its options to a parser, and returns what runs it. It imports what the command needs: no other command
    waits for that, and `packlight --help` waits for nothing."""

    summary: str
    description: str
    add: Callable[[argparse.ArgumentParser], _Run]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status: 0, 1 if a part failed, 2 if it cannot start, 130 after Ctrl-C."""
    for stream in (sys.stdout, sys.stderr):
        # No character that the terminal cannot show ends a run.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    given = sys.argv[1:] if arguments is None else arguments
    parser, command = _parser(given)
    if slip := command_slip(given, _COMMANDS):
        sys.stderr.write(f"packlight: {slip}\n\n{BEGIN}")
        return EXIT_CANNOT_START
    options, unknown = parser.parse_known_args(given)
    if unknown and command:
        options_there_are = re.findall(r"--[a-z0-9-]+", command.format_usage())
        sys.stderr.write(f"packlight: {word_slip(given[0], unknown, options_there_are)}\n")
        return EXIT_CANNOT_START
    from model.errors import ModelError
    from service import logs
    from service.settings.loading import load_settings
    from service.settings.names import SettingsError
    from service.settings.settings import Settings

    settings_given = {name: value for name, value in vars(options).items() if name in Settings.model_fields}
    try:
        settings = load_settings(settings_given)
        if options.run is _serve:
            logs.configure(settings.log_format, settings.log_level)
        else:
            logging.basicConfig(level=settings.log_level.upper(), format="%(levelname)s %(message)s")
        if settings.layout:
            _log.warning("layout=packed has no effect, and the next release will refuse it: remove the setting")
        exit_status: int = options.run(settings, options)
    except (SettingsError, ModelError) as error:
        logs.flush()
        sys.stderr.write(f"packlight: {error}\n")
        return EXIT_CANNOT_START
    except KeyboardInterrupt:
        # Commands keep what is done by then.
        logs.flush()
        sys.stderr.write("packlight: interrupted\n")
        return EXIT_INTERRUPTED
    return exit_status


def _parser(arguments: Sequence[str]) -> tuple[argparse.ArgumentParser, argparse.ArgumentParser | None]:
    """With the options of the command that the arguments name, and of no other; and the parser of that command."""
    parser = argparse.ArgumentParser(
        prog="packlight",
        description="Embeds images at any resolution without padding, and texts.",
        epilog=BEGIN,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    chosen = None
    parser.add_argument("--version", action="version", version=f"packlight {version('packlight')}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    named = arguments[0] if arguments else None
    for name, command in _COMMANDS.items():
        # A prefix of an option is refused: `--max-batch-token` is a slip, and might become ambiguous later.
        made = commands.add_parser(name, help=command.summary, description=command.description, allow_abbrev=False)
        if name == named:
            made.set_defaults(run=command.add(made))
            chosen = made
    return parser, chosen


def _add_serve(parser: argparse.ArgumentParser) -> _Run:
    from service.settings.loading import add_options
    from service.settings.settings import Settings

    add_options(parser, Settings.model_fields)
    return _serve


def _add_embed(parser: argparse.ArgumentParser) -> _Run:
    from service.cli.embed import add_embed_options, run_embed
    from service.settings.loading import add_options

    add_embed_options(parser)
    add_options(parser, _EMBED_SETTINGS)
    return run_embed


def _add_search(parser: argparse.ArgumentParser) -> _Run:
    from service.cli.search import add_search_options, run_search
    from service.settings.loading import add_options

    add_search_options(parser)
    add_options(parser, _EMBED_SETTINGS)
    return run_search


def _add_classify(parser: argparse.ArgumentParser) -> _Run:
    from service.cli.classify import add_classify_options, run_classify
    from service.settings.loading import add_options

    add_classify_options(parser)
    add_options(parser, _EMBED_SETTINGS)
    return run_classify


def _add_calibrate(parser: argparse.ArgumentParser) -> _Run:
    from service.cli.calibrate import add_calibrate_options, run_calibrate
    from service.settings.loading import add_options

    add_calibrate_options(parser)
    add_options(parser, _EMBED_SETTINGS)
    return run_calibrate


def _add_plan(parser: argparse.ArgumentParser) -> _Run:
    from service.cli.plan import PLAN_SETTINGS, add_plan_options, run_plan
    from service.settings.loading import add_options

    add_plan_options(parser)
    add_options(parser, PLAN_SETTINGS)
    return run_plan


def _add_upgrade_check(parser: argparse.ArgumentParser) -> _Run:
    from service.cli.upgrade.command import add_upgrade_options, run_upgrade_check

    add_upgrade_options(parser)
    return run_upgrade_check


def _add_check(parser: argparse.ArgumentParser) -> _Run:
    from service.cli.check.command import add_check_options, run_check
    from service.settings.loading import add_options

    add_check_options(parser)
    add_options(parser, (*_MODEL_SETTINGS, "default_max_tokens", "max_image_tokens", "max_batch_tokens"))
    return run_check


def _add_info(parser: argparse.ArgumentParser) -> _Run:
    from service.settings.loading import add_options

    add_options(parser, _MODEL_SETTINGS)
    return _info


def _serve(settings: "Settings", options: argparse.Namespace) -> int:
    # prometheus-client decides at import how values are kept: the parent of several processes must not import it.
    if settings.in_processes:
        from service.processes.supervisor import supervise

        return supervise(settings)
    from service.processes.server import serve

    return serve(settings)


def _info(settings: "Settings", options: argparse.Namespace) -> int:
    from service.loading import load_runner

    _, facts = load_runner(settings)
    sys.stdout.write(json.dumps(facts.described(), indent=2) + "\n")
    return 0


_COMMANDS: Mapping[str, _Command] = {
    "serve": _Command("serve over HTTP", "Serves the model over HTTP.", _add_serve),
    "embed": _Command("embed image files", "Embeds image files, packed together.", _add_embed),
    "search": _Command("find pictures by a text", "Finds the pictures of a folder by a text.", _add_search),
    "classify": _Command("label pictures", "Tells which labels fit image files, untrained.", _add_classify),
    "calibrate": _Command(
        "find an int8 scale", "Finds the scale of 8-bit embeddings on a folder of pictures.", _add_calibrate
    ),
    "plan": _Command("plan a workload", "Plans a workload under a budget.", _add_plan),
    "upgrade-check": _Command(
        "compare two servers",
        "Embeds the pictures of a folder on two servers, and says whether an index of the old one can be kept.",
        _add_upgrade_check,
    ),
    "check": _Command(
        "check a model or a server",
        "Compares the vectors of drawn pictures with what a CPU computes in float32 and with Transformers, and tells "
        "throughput and memory: of a model that is loaded here, or of a server.",
        _add_check,
    ),
    "info": _Command("describe the model", "Describes the model, as JSON.", _add_info),
}


if __name__ == "__main__":
    sys.exit(main())
