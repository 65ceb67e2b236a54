"""The command line: `packlight serve`, `embed`, `search` and the others."""

import argparse
import io
import json
import logging
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version

from model.errors import ModelError
from service import logs
from service.cli.calibrate import add_calibrate_options, run_calibrate
from service.cli.classify import add_classify_options, run_classify
from service.cli.embed import add_embed_options, run_embed
from service.cli.plan import PLAN_SETTINGS, add_plan_options, run_plan
from service.cli.search import add_search_options, run_search
from service.cli.upgrade.command import add_upgrade_options, run_upgrade_check
from service.settings import Settings, SettingsError, add_options, load_settings

_MODEL_SETTINGS = (
    "model", "revision", "devices", "dtype", "attention", "layout", "feature_layer", "pooling", "anyres_tile",
    "anyres_pinpoints", "text_tower", "text_cleaning", "max_text_chars",
)  # fmt: skip
_EMBED_SETTINGS = (
    *_MODEL_SETTINGS, "default_max_tokens", "max_image_tokens", "max_batch_tokens", "max_decode_pixels",
    "decode_threads", "decode",
)  # fmt: skip

EXIT_CANNOT_START = 2
EXIT_INTERRUPTED = 130  # as shells show a process that SIGINT ended

# Runs a command and returns its exit status.
_Run = Callable[[Settings, argparse.Namespace], int]

_log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status: 0, 1 if a part failed, 2 if it cannot start, 130 after Ctrl-C."""
    for stream in (sys.stdout, sys.stderr):
        # No character that the terminal cannot show ends a run.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    options = _parser().parse_args(arguments)
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
        sys.stderr.write(f"packlight: {error}\n")
        return EXIT_CANNOT_START
    except KeyboardInterrupt:
        # Commands keep what is done by then.
        sys.stderr.write("packlight: interrupted\n")
        return EXIT_INTERRUPTED
    return exit_status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="packlight", description="Embeds images at any resolution without padding, and texts.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"packlight {version('packlight')}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: _Run, summary: str, description: str) -> argparse.ArgumentParser:
        # A prefix of an option is refused: `--max-batch-token` is a slip, and might become ambiguous later.
        made = commands.add_parser(name, help=summary, description=description, allow_abbrev=False)
        made.set_defaults(run=run)
        return made

    add_options(command("serve", _serve, "serve over HTTP", "Serves the model over HTTP."), Settings.model_fields)
    embed = command("embed", run_embed, "embed image files", "Embeds image files, packed together.")
    add_embed_options(embed)
    add_options(embed, _EMBED_SETTINGS)
    search = command("search", run_search, "find pictures by a text", "Finds the pictures of a folder by a text.")
    add_search_options(search)
    add_options(search, _EMBED_SETTINGS)
    classify = command("classify", run_classify, "label pictures", "Tells which labels fit image files, untrained.")
    add_classify_options(classify)
    add_options(classify, _EMBED_SETTINGS)
    calibrate = command(
        "calibrate", run_calibrate, "find an int8 scale", "Finds the scale of 8-bit embeddings on a folder of pictures."
    )
    add_calibrate_options(calibrate)
    add_options(calibrate, _EMBED_SETTINGS)
    plan = command("plan", run_plan, "plan a workload", "Plans a workload under a budget.")
    add_plan_options(plan)
    add_options(plan, PLAN_SETTINGS)
    upgrade = command(
        "upgrade-check", run_upgrade_check, "compare two servers",
        "Embeds the pictures of a folder on two servers, and says whether an index of the old one can be kept.",
    )  # fmt: skip
    add_upgrade_options(upgrade)
    add_options(command("info", _info, "describe the model", "Describes the model, as JSON."), _MODEL_SETTINGS)
    return parser


def _serve(settings: Settings, options: argparse.Namespace) -> int:
    # prometheus-client decides at import how values are kept: the parent of several processes must not import it.
    if settings.in_processes:
        from service.processes.supervisor import supervise

        return supervise(settings)
    from service.processes.server import serve

    return serve(settings)


def _info(settings: Settings, options: argparse.Namespace) -> int:
    from service.loading import load_runner

    _, facts = load_runner(settings)
    sys.stdout.write(json.dumps(facts.described(), indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
