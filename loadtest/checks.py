"""Refuses options that would have no effect beside the others."""

import argparse
from collections.abc import Sequence

from loadtest.errors import UsageError
from loadtest.options import parser
from loadtest.traffic.bodies import OPENAI_PARAMS, Form

# What only some forms of a request have a place for.
_FORMS_WITH: dict[str, tuple[Form, ...]] = {
    "field": ("multipart",),
    "model": ("openai",),
    "extra": ("multipart", "json", "openai"),
}
# What a comparison of two files reads.
_OF_FILES = ("command", "base", "other", "confidence", "seed", "json", "html", "quiet", "fail_if", "undecided")


def check_arrivals(args: argparse.Namespace) -> None:
    """Raises `UsageError` for a timetable of requests that have none."""
    # A sweep has rates of its own.
    if getattr(args, "concurrency", None) is not None:
        for name in ("arrivals", "burst", "ramp"):
            if getattr(args, name, None):
                raise UsageError(f"--{name} is for a --rate: with --concurrency an answer starts the next request")
    if args.burst is not None and args.arrivals != "burst":
        raise UsageError("--burst is the size of a burst: it needs --arrivals burst")


def check_forms(args: argparse.Namespace, forms: Sequence[Form]) -> None:
    """Raises `UsageError` for what requests have no place for. forms: of the server, or of both."""
    for name, having in _FORMS_WITH.items():
        for prefix, of in (("", forms), ("b_", forms[1:])):
            if getattr(args, prefix + name, None) and not {*having} & {*of}:
                option = f"--{prefix}{name}".replace("_", "-")
                raise UsageError(f"{option} is for --form {' or '.join(having)}, and this is {' and '.join({*of})}")
    if args.no_params and (args.param or args.bulk):
        raise UsageError("--no-params sends no parameters, so --param and --bulk would do nothing")
    names = [pair.partition("=")[0] for pair in args.param]
    if {*forms} == {"openai"} and (lost := [name for name in names if name not in OPENAI_PARAMS]):
        raise UsageError(f"--param {lost[0]}: --form openai has {', '.join(OPENAI_PARAMS)}; --extra adds other fields")


def check_files(args: argparse.Namespace) -> None:
    """Raises `UsageError` for what a comparison of files does not read: they hold what was measured."""
    usual = vars(parser().parse_args(["compare", args.base, args.other]))
    for name, value in vars(args).items():
        if name not in _OF_FILES and value != usual[name]:
            raise UsageError(f"--{name.replace('_', '-')} is for two servers: files hold what was measured")
