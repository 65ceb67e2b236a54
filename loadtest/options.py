"""The options of the command line, and the objects they become. Sends and measures nothing."""

import argparse
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from loadtest.errors import UsageError
from loadtest.runs.gate import parse_gate
from loadtest.runs.run import Timing
from loadtest.traffic import corpus, mix
from loadtest.traffic.arrivals import PATTERNS
from loadtest.traffic.bodies import ANSWERS, FORMS, Adapter
from loadtest.traffic.corpus import Corpus, Progress
from loadtest.traffic.mix import Param

_EPILOG = """exit status: 0 measured, and no --fail-if was met; 1 a --fail-if was met; 2 nothing could be measured;
130 ended by Ctrl-C (the report is still written). Mixes and a worked example: loadtest/README.md."""


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="loadtest", description="Image traffic for an embedding server.", epilog=_EPILOG, allow_abbrev=False
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="run | sweep | compare")
    for name, summary, add_options in (
        ("run", "send one load and report on it", _run),
        ("sweep", "raise the rate until the server falls behind", _sweep),
        ("compare", "compare two servers or two result files", _compare),
    ):
        add_options(commands.add_parser(name, help=summary, epilog=_EPILOG, allow_abbrev=False))
    return top


def _run(command: argparse.ArgumentParser) -> None:
    command.add_argument("--url", required=True, help="such as http://127.0.0.1:8000")
    _timing(command)
    _traffic(command)
    _adapter(command)
    _output(command)
    _gates(command, "--fail-if 'p99>250ms' --fail-if 'errors>1%%'")


def _sweep(command: argparse.ArgumentParser) -> None:
    command.add_argument("--url", required=True, help="such as http://127.0.0.1:8000")
    group = command.add_argument_group("rates")
    group.add_argument("--from", dest="start", type=_positive, default=1.0, metavar="RATE", help="first rate (1)")
    group.add_argument("--to", dest="stop", type=_positive, metavar="RATE", help="never above this rate")
    group.add_argument("--factor", type=_positive, default=1.6, help="raises the rate while it holds (1.6)")
    group.add_argument("--tolerance", type=_positive, default=0.05, help="how closely to find the knee (0.05)")
    group.add_argument("--step", type=_positive, default=10.0, metavar="S", help="seconds at each rate (10)")
    group.add_argument("--arrivals", choices=PATTERNS, help="how requests come (poisson)")
    group.add_argument("--burst", type=_count, help=argparse.SUPPRESS)
    _sending(group)
    _traffic(command)
    _adapter(command)
    _output(command)


def _compare(command: argparse.ArgumentParser) -> None:
    command.add_argument("base", metavar="A", help="the baseline: a URL, or a result file of run --json")
    command.add_argument("other", metavar="B", help="what is judged: a URL, or a result file")
    command.add_argument("--rounds", type=_rounds, default=20, help="rounds, in which each server has one turn (20)")
    command.add_argument("--confidence", type=_share, default=0.95, help="confidence of the intervals (0.95)")
    _timing(command, required=False)
    _traffic(command)
    _adapter(command)
    _adapter(command, "b-", "how to speak to B, if it differs")
    _output(command)
    _gates(command, "--fail-if 'p99>1.1x' (B over A)")
    command.add_argument(
        "--undecided",
        choices=("pass", "fail"),
        default="pass",
        help="the outcome if the ratio is past a --fail-if but its interval is not (pass)",
    )


def _timing(command: argparse.ArgumentParser, *, required: bool = True) -> None:
    group = command.add_argument_group("when")
    loop = group.add_mutually_exclusive_group(required=required)
    loop.add_argument("--rate", type=_positive, help="requests a second, whatever the server does (open loop)")
    loop.add_argument("--concurrency", type=_count, help="requests in flight; an answer starts the next (closed loop)")
    group.add_argument("--arrivals", choices=PATTERNS, help="how they come at a --rate (poisson)")
    group.add_argument("--burst", type=_count, help="requests a burst, of --arrivals burst (8)")
    seconds = 30.0 if required else 60.0
    each = "" if required else " to each server"
    text = f"seconds of sending{each} ({seconds:g})"
    group.add_argument("--duration", type=_positive, default=seconds, metavar="S", help=text)
    if required:
        group.add_argument("--ramp", type=_not_negative, default=0.0, metavar="S", help="seconds to reach the rate (0)")
        group.add_argument("--warmup", type=_not_negative, default=0.0, metavar="S", help="seconds not measured (0)")
    _sending(group)


def _sending(group: "argparse._ArgumentGroup") -> None:
    group.add_argument("--slo-ms", type=_positive, help="slower answers do not count as goodput")
    group.add_argument("--timeout", type=_positive, default=30.0, metavar="S", help="seconds for one answer (30)")
    group.add_argument("--senders", type=_count, help="processes that send (depends on the rate)")
    group.add_argument("--max-in-flight", type=_count, default=2048, help="requests beyond it are not sent (2048)")


def _traffic(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("what")
    what = group.add_mutually_exclusive_group()
    what.add_argument("--mix", default="mixed", help=f"{', '.join(mix.built_in())}, or a .json file (mixed)")
    what.add_argument("--images", type=Path, metavar="FOLDER", help="your own pictures instead")
    group.add_argument("--distinct", type=_count, default=100, help="different requests in the mix (100)")
    group.add_argument("--seed", type=int, default=1, help="seed of pictures, order and arrival times (1)")
    group.add_argument(
        "--bulk", type=_portion, default=0.0, metavar="SHARE", help="share of the requests that say priority=bulk (0)"
    )
    group.add_argument("--param", action="append", default=[], metavar="NAME=VALUE", help="parameter of every request")


def _adapter(command: argparse.ArgumentParser, prefix: str = "", title: str = "how") -> None:
    group = command.add_argument_group(title)
    first = not prefix
    group.add_argument(f"--{prefix}form", choices=FORMS, default="multipart" if first else None)
    group.add_argument(f"--{prefix}answer", choices=ANSWERS, default="json" if first else None)
    group.add_argument(f"--{prefix}path", help="the route, if it is not Packlight's")
    group.add_argument(f"--{prefix}field", help="name of a multipart form's file parts (image)")
    group.add_argument(f"--{prefix}model", help="`model` of an OpenAI request")
    group.add_argument(f"--{prefix}extra", help="JSON object of more fields to send")
    group.add_argument(f"--{prefix}no-params", action="store_true", help="do not send the mix's parameters")
    group.add_argument(f"--{prefix}api-key", help="sent as a bearer token (or $LOADTEST_API_KEY)")
    group.add_argument(f"--{prefix}header", action="append", default=[], metavar="NAME: VALUE")


def _output(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("report")
    group.add_argument(
        "--json", type=Path, metavar="FILE", help="all figures and requests, for compare and other tools"
    )
    group.add_argument("--html", type=Path, metavar="FILE", help="one self-contained page with plots")
    group.add_argument("--quiet", action="store_true", help="no live display")


def _gates(command: argparse.ArgumentParser, example: str) -> None:
    command.add_argument("--fail-if", type=parse_gate, action="append", default=[], metavar="GATE", help=example)


def _number(check: Callable[[float], bool], what: str) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not check(value):
            raise argparse.ArgumentTypeError(f"{text!r} is not {what}")
        return value

    return parse


_positive = _number(lambda value: 0 < value < float("inf"), "a number above 0")
_not_negative = _number(lambda value: 0 <= value < float("inf"), "a number of at least 0")
_portion = _number(lambda value: 0 <= value <= 1, "a share between 0 and 1")
_share = _number(lambda value: 0.5 <= value < 1, "a share between 0.5 and 1")


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _rounds(text: str) -> int:
    if not text.isdigit() or int(text) < 4:
        raise argparse.ArgumentTypeError(f"{text!r}: at least 4 rounds are needed to measure the noise between them")
    return int(text)


def timing_of(args: argparse.Namespace, *, ramp_s: float = 0.0, warmup_s: float = 0.0) -> Timing:
    """When to send requests, from the options of a run or a comparison."""
    if args.rate is None and args.concurrency is None:
        raise UsageError("give --rate or --concurrency")
    if ramp_s + warmup_s >= args.duration:
        raise UsageError(f"--ramp and --warmup leave nothing of the {args.duration:g} s to measure")
    return Timing(
        rate=args.rate,
        concurrency=args.concurrency,
        duration_s=args.duration,
        **arrivals_of(args),
        ramp_s=ramp_s,
        warmup_s=warmup_s,
        timeout_s=args.timeout,
        max_in_flight=args.max_in_flight,
        seed=args.seed,
    )


def arrivals_of(args: argparse.Namespace) -> dict[str, Any]:
    """The pattern of a `Timing` and the size of its bursts, where they are given."""
    given = {"arrivals": args.arrivals, "burst": args.burst}
    return {name: value for name, value in given.items() if value is not None}


def corpus_of(args: argparse.Namespace, progress: Progress) -> Corpus:
    extra = _params(args.param)
    if args.images is not None:
        made = corpus.from_folder(args.images, count=args.distinct, seed=args.seed, extra=extra)
    else:
        found = mix.load(args.mix)
        made = corpus.from_mix(found, count=args.distinct, seed=args.seed, extra=extra, progress=progress)
    return corpus.with_bulk(made, args.bulk, args.seed) if args.bulk else made


def adapter_of(args: argparse.Namespace, prefix: str = "") -> Adapter:
    """How to speak to the server. With a `prefix`: to the second, which inherits the options that it is not given.

    It does not inherit the path if the forms differ.
    """

    def given(name: str) -> Any:
        own = getattr(args, prefix + name)
        return own if own not in (None, False, []) or not prefix else getattr(args, name)

    other_form = bool(prefix) and getattr(args, prefix + "form") not in (None, args.form)
    path = getattr(args, prefix + "path") if other_form else given("path")
    return Adapter(
        form=given("form"),
        path=path and "/" + path.lstrip("/"),
        file_field=given("field") or "image",
        model=given("model"),
        extra=_extra(given("extra")),
        params=not given("no_params"),
        answer=given("answer"),
        headers=_headers(given("header"), given("api_key") or os.environ.get("LOADTEST_API_KEY")),
    )


def _params(pairs: Sequence[str]) -> dict[str, Param]:
    params: dict[str, Param] = {}
    for pair in pairs:
        name, mark, value = pair.partition("=")
        if not mark or not name:
            raise UsageError(f"--param {pair}: not NAME=VALUE")
        params[name] = int(value) if value.isdigit() else value
    return params


def _extra(text: str | None) -> Mapping[str, Any]:
    try:
        extra = json.loads(text or "{}")
    except ValueError:
        extra = None
    if not isinstance(extra, dict):
        raise UsageError(f"--extra {text}: not a JSON object")
    return extra


def _headers(lines: Sequence[str], api_key: str | None) -> dict[str, str]:
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    for line in lines:
        name, mark, value = line.partition(":")
        if not mark or not name.strip():
            raise UsageError(f"--header {line}: not NAME: VALUE")
        headers[name.strip()] = value.strip()
    return headers
