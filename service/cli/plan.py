"""The command `packlight plan`: plans the workload in a file, as a table, as JSON or as a picture. Needs no torch.

Plans for a named geometry, or for the model of a server (`--url`), which knows milliseconds as well.
"""

import argparse
import http.client
import json
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from model.errors import BudgetError
from model.sizing.geometry import STRATEGIES
from service.cli.files import say
from service.errors import Invalid
from service.limits import Limits, largest_image_tokens
from service.planning.answer import WorkloadPlan, read_plan, write_plan
from service.planning.choice import ServedModel
from service.planning.geometries import GEOMETRIES
from service.planning.planner import Planner
from service.planning.text import plan_text
from service.planning.workload import PlanRequest, read_plan_request
from service.settings.names import option
from service.settings.settings import Settings

PLAN_SETTINGS = ["max_image_tokens", "max_batch_tokens", "max_decode_pixels"]

_DEFAULT_GEOMETRY = "naflex16"
# How long a server may take for a plan. It makes one at a time.
_TIMEOUT_S = 60.0


class CannotPlan(Exception):
    """The message says why in one line."""


def add_plan_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--workload", required=True, metavar="FILE",
        help='JSON, `-` for standard input: [{"height": 1080, "width": 1920, "count": 100, "task": "photo"}, …]',
    )  # fmt: skip
    parser.add_argument("--budget-tokens", type=int, metavar="N", help="most tokens of the whole workload")
    parser.add_argument("--budget-ms", type=float, metavar="N", help="most milliseconds of one device, with --url")
    parser.add_argument("--strategy", choices=STRATEGIES, help="take this one (default: the best for each group)")
    parser.add_argument("--geometry", choices=list(GEOMETRIES), help=f"what to plan for (default: {_DEFAULT_GEOMETRY})")
    parser.add_argument("--url", help="plan for the model of this server, by its limits and its speed")
    parser.add_argument("--api-key", metavar="KEY", help="one of that server's keys")
    parser.add_argument("--json", action="store_true", help="print JSON, as POST /plan answers it")
    parser.add_argument("--png", type=Path, metavar="FILE", help="draw some of its images: packed, padded, square")


def run_plan(settings: Settings, options: argparse.Namespace) -> int:
    """The exit status: 0, 1 if the budget is too small, 2 if nothing could be planned."""
    try:
        _check(options)
        content = _content(options)
        plan = _ask_server(options, content) if options.url else _plan(settings, options, read_plan_request(content))
        if options.png:
            _draw(plan, options.png)
    except (CannotPlan, Invalid, BudgetError) as error:
        sys.stderr.write(f"packlight: {error}\n")
        return 2
    say(write_plan(plan).decode() + "\n" if options.json else plan_text(plan))
    return 0 if plan.budget.fits else 1


def _check(options: argparse.Namespace) -> None:
    """Raises `CannotPlan` for an option that would have no effect beside the others."""
    if not options.url:
        if options.api_key is not None:
            raise CannotPlan("--api-key is for a server: name it with --url")
        return
    if options.geometry:
        raise CannotPlan("--geometry and --url exclude each other: a server plans for the model that it serves")
    if limits := [option(name) for name in PLAN_SETTINGS if getattr(options, name) is not None]:
        raise CannotPlan(f"{limits[0]} and --url exclude each other: a server plans by its own limits")


def _content(options: argparse.Namespace) -> dict[str, Any]:
    """The content of a `POST /plan`, from the file and the options. The file holds all of it, or the workload alone."""
    try:
        text = sys.stdin.read() if options.workload == "-" else Path(options.workload).read_text(encoding="utf-8")
        content = json.loads(text)
    except OSError as error:
        raise CannotPlan(f"{options.workload} cannot be read: {error.strerror or error}") from None
    except ValueError:
        raise CannotPlan(f"{options.workload} is not JSON") from None
    if not isinstance(content, dict):
        content = {"workload": content}
    given = {name: getattr(options, name) for name in ("budget_tokens", "budget_ms", "strategy")}
    return content | {name: value for name, value in given.items() if value is not None}


def _plan(settings: Settings, options: argparse.Namespace, asked: PlanRequest) -> WorkloadPlan:
    if asked.budget_ms is not None:
        raise CannotPlan("budget_ms: only a server that has run packs knows milliseconds; name it with --url")
    name = options.geometry or _DEFAULT_GEOMETRY
    named = GEOMETRIES[name]
    largest_tokens = settings.max_image_tokens or largest_image_tokens(named.geometry)
    max_batch_tokens = settings.max_batch_tokens or max(4_096, largest_tokens)
    max_image_tokens = min(largest_tokens, max_batch_tokens)
    limits = Limits(
        default_max_tokens=min(named.default_max_tokens, max_image_tokens),
        max_image_tokens=max_image_tokens,
        max_batch_tokens=max_batch_tokens,
        max_queue_tokens=8 * max_batch_tokens,
    )
    model = ServedModel(name, named.geometry, limits, settings.max_decode_pixels)
    return Planner(model, asked).plan()


def _ask_server(options: argparse.Namespace, content: dict[str, Any]) -> WorkloadPlan:
    if not options.url.startswith(("http://", "https://")):
        raise CannotPlan(f"--url is {options.url!r}; it looks like http://127.0.0.1:8000")
    if not (options.api_key or "").isascii():
        raise CannotPlan("--api-key: keys are ASCII")
    headers = {"Content-Type": "application/json"} | ({"X-API-Key": options.api_key} if options.api_key else {})
    try:
        request = urllib.request.Request(f"{options.url.rstrip('/')}/plan", json.dumps(content).encode(), headers)
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:
            return read_plan(response.read())
    except urllib.error.HTTPError as error:
        with error:
            raise CannotPlan(_reason(error)) from None
    except http.client.InvalidURL as error:
        raise CannotPlan(f"--url is {options.url!r}: {error}") from None
    except (OSError, ValidationError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or "it does not answer as a Packlight server does"
        raise CannotPlan(f"{options.url}: {reason}") from None
    except ValueError as error:
        # A host in brackets that never close, or of letters that no name has.
        raise CannotPlan(f"--url is {options.url!r}: {error}") from None


def _reason(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.loads(error.read())["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"{error.url} answered with status {error.code}"


def _draw(plan: WorkloadPlan, path: Path) -> None:
    from service.planning.picture import draw_plan

    try:
        draw_plan(plan).save(path, format="PNG")
    except OSError as error:
        raise CannotPlan(f"{path} cannot be written: {error.strerror or error}") from None
