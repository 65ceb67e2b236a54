"""The command: a model or a server to check, and the exit status."""

import argparse
import re

from service.cli.files import say
from service.settings.names import SettingsError, option
from service.settings.settings import Settings

EXIT_WRONG = 1

# A host and its port: no name of a model has a colon.
_ADDRESS = re.compile(r"[\w.-]+:\d+(/.*)?")
# What the pictures are computed with here, to compare a server's vectors with, is told by the server.
_OF_A_SERVER = ("model", "dtype", "default_max_tokens", "max_image_tokens", "max_batch_tokens")


def add_check_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "what", nargs="?", metavar="MODEL|URL",
        help="a model to load here, as --model takes it, or a server's URL; a key is the password of the URL, as in "
        "http://any:KEY@host:8000 (default: the model that is served by default)",
    )  # fmt: skip


def run_check(settings: Settings, options: argparse.Namespace) -> int:
    """0 if all is right, 1 if something is wrong. Raises `ModelError` and `SettingsError` for what cannot be asked."""
    what = options.what
    if what is not None and _ADDRESS.fullmatch(what):
        raise SettingsError(f"{what} is no model; for a server, put http:// in front")
    if what is not None and what.lower().startswith(("http://", "https://")):
        from service.cli.check.there import check_there

        if given := [option(name) for name in _OF_A_SERVER if getattr(options, name) is not None]:
            raise SettingsError(f"{given[0]} is for a model that is loaded here: the server says what it serves")
        report = check_there(what, settings)
    else:
        from service.cli.check.here import check_here

        if what is not None and options.model is not None:
            raise SettingsError(f"{what} and --model {options.model} both name the model: leave one of them out")
        report = check_here(settings if what is None else settings.model_copy(update={"model": what}))
    say(str(report))
    return EXIT_WRONG if report.failed else 0
