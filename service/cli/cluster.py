"""`packlight embed --ray`: the job on a cluster."""

import argparse
import re
from pathlib import Path

from service.cli.neighbors import count
from service.cli.streaming import stream
from service.jobs.packages import needed
from service.jobs.sources.named import NamedSources
from service.settings.names import SettingsError
from service.settings.settings import Settings

_ADDRESS = re.compile(r"auto|local|\S+:\d+")


def add_ray_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--ray", nargs="?", const="", type=_address, metavar="ADDRESS",
        help="run on a cluster of Ray at HOST:PORT, or on a new one (local); without ADDRESS on that of RAY_ADDRESS or "
        "of this machine, otherwise on a new one",
    )  # fmt: skip
    parser.add_argument(
        "--ray-runners", type=count, metavar="N",
        help="models that embed at once (default: one a GPU, without GPUs half of the processors)",
    )  # fmt: skip
    parser.add_argument(
        "--ray-cpus", type=count, metavar="N",
        help="processors and threads of a runner, where there is no GPU (default: 1)",
    )  # fmt: skip


def _address(value: str) -> str:
    # A source behind a bare `--ray` would be taken for an address.
    if value and (Path(value).exists() or not _ADDRESS.fullmatch(value)):
        raise argparse.ArgumentTypeError(f"{value} is no HOST:PORT; name sources before --ray")
    return value


def run_on_ray(settings: Settings, options: argparse.Namespace, named: NamedSources) -> int:
    """The exit status, as that of `packlight embed`. Raises `SettingsError`, and what loading a model raises."""
    if not options.out or options.html or options.neighbors or options.texts:
        raise SettingsError("--ray needs --out, and does not take --html, --neighbors or --text")
    with needed("ray", "--ray"):
        from service.jobs.ray.cluster import Shares, connect, resources
        from service.jobs.ray.job import RayJob, model_facts
    from service.jobs.decoding import Recipe
    from service.limits import Limits

    connect(options.ray)
    found = resources()
    shares = Shares.of(
        gpus=int(found.get("GPU", 0)), cpus=int(found.get("CPU", 0)), runners=options.ray_runners,
        runner_cpus=options.ray_cpus,
    )  # fmt: skip
    model = model_facts(settings, shares)
    limits = Limits.of(settings, model)
    bounds = {name: getattr(options, name) for name in ("strategy", "max_tokens", "max_pixels", "min_pixels")}
    recipe = Recipe.of(model, limits, decode=settings.decode, normalize=not options.no_normalize, **bounds)
    job = RayJob(settings, limits, recipe, shares, options.ahead_bytes)
    return stream(
        lambda ledger: job.rows(named.source.sources, ledger), job.count, recipe,
        out=options.out, total=named.source.total, model=model,
    )  # fmt: skip
