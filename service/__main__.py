"""The command line: `packlight serve`, `packlight embed`, `packlight plan` and `packlight info`."""

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.errors import ModelError
from model.sizing.geometry import STRATEGIES
from service.cli.neighbors import NeighborSearch, add_neighbor_options
from service.cli.plan import PLAN_SETTINGS, add_plan_options, run_plan
from service.settings import Settings, SettingsError, add_options, load_settings

if TYPE_CHECKING:
    from model.sizing.plan import ImagePlan
    from service.cli.offline import Embedded, FileEmbedder

_MODEL_SETTINGS = [
    "model",
    "revision",
    "devices",
    "dtype",
    "attention",
    "layout",
    "feature_layer",
    "anyres_tile",
    "anyres_pinpoints",
]
_EMBED_SETTINGS = [
    *_MODEL_SETTINGS,
    "default_max_tokens",
    "max_image_tokens",
    "max_batch_tokens",
    "max_decode_pixels",
    "decode_threads",
    "decode",
]

EXIT_SOME_FAILED = 1
EXIT_CANNOT_START = 2

_log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; the exit status is 0, 1 where some file failed, 2 where nothing could be started."""
    options = _parser().parse_args(arguments)
    settings_given = {name: value for name, value in vars(options).items() if name in Settings.model_fields}
    try:
        settings = load_settings(settings_given)
        logging.basicConfig(level=settings.log_level.upper(), format="%(levelname)s %(message)s")
        if settings.layout:
            _log.warning("layout=packed has no effect, and the next release will refuse it: remove the setting")
        command: int = options.command(settings, options)
    except (SettingsError, ModelError) as error:
        sys.stderr.write(f"packlight: {error}\n")
        return EXIT_CANNOT_START
    return command


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="packlight", description="Image embeddings at any resolution, no padding.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    serve = commands.add_parser("serve", help="serve over HTTP", description="Serves the model over HTTP.")
    add_options(serve, list(Settings.model_fields))
    serve.set_defaults(command=_serve)

    embed = commands.add_parser("embed", help="embed image files", description="Embeds image files, packed together.")
    embed.add_argument("files", nargs="+", type=Path, metavar="FILE")
    embed.add_argument("--max-tokens", type=int, metavar="N", help="most tokens an image may use")
    embed.add_argument("--max-pixels", type=int, metavar="N", help="most pixels an image may have after resizing")
    embed.add_argument("--min-pixels", type=int, metavar="N", help="least pixels, with --strategy native")
    embed.add_argument("--strategy", choices=STRATEGIES, help="how the size is chosen (default: the model's own)")
    embed.add_argument("--no-normalize", action="store_true", help="leave vectors at the length the model gives them")
    embed.add_argument("--out", type=_out_path, metavar="FILE", help="write vectors to a .npy, .safetensors or .jsonl")
    add_neighbor_options(embed)
    add_options(embed, _EMBED_SETTINGS)
    embed.set_defaults(command=_embed)

    plan = commands.add_parser("plan", help="plan a workload", description="Plans a workload under a budget.")
    add_plan_options(plan)
    add_options(plan, PLAN_SETTINGS)
    plan.set_defaults(command=run_plan)

    info = commands.add_parser("info", help="describe the model", description="Describes the model, as JSON.")
    add_options(info, _MODEL_SETTINGS)
    info.set_defaults(command=_info)
    return parser


def _out_path(value: str) -> Path:
    from service.cli.outfile import SUFFIXES

    path = Path(value)
    if path.suffix not in SUFFIXES:
        raise argparse.ArgumentTypeError(f"{value}: the name ends in one of {', '.join(SUFFIXES)}")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"{path.parent} is not a folder")
    if path.exists() and not path.is_file():
        raise argparse.ArgumentTypeError(f"{path} is not a file")
    return path


def _serve(settings: Settings, options: argparse.Namespace) -> int:
    # One or the other: the parent of several must not import what decides at import how metrics are kept.
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


def _embed(settings: Settings, options: argparse.Namespace) -> int:
    from service.cli import outfile

    search = NeighborSearch.asked(options)
    embedder = _file_embedder(settings, options)
    done, failed = _embed_files(embedder, search.files if search else options.files)
    if search:
        sys.stdout.write(search.text(done))
    elif options.out:
        try:
            outfile.write(options.out, done)
        except OSError as error:
            sys.stderr.write(f"packlight: {options.out} cannot be written: {error.strerror or error}\n")
            return EXIT_CANNOT_START
    else:
        sys.stdout.write(_rows(done))
    sys.stderr.write(_summary(embedder, done, failed))
    return EXIT_SOME_FAILED if failed else 0


def _file_embedder(settings: Settings, options: argparse.Namespace) -> "FileEmbedder":
    from service.cli.offline import FileEmbedder
    from service.limits import Limits
    from service.loading import load_runner

    runner, facts = load_runner(settings)
    limits = Limits.of(settings, facts)
    geometry = facts.geometry
    strategy = options.strategy or geometry.default_strategy
    asked = {name: getattr(options, name) for name in ("max_tokens", "max_pixels", "min_pixels")}
    return FileEmbedder(
        runner,
        geometry=geometry,
        budget=limits.budget(geometry, strategy, **asked),
        strategy=strategy,
        max_batch_tokens=limits.max_batch_tokens,
        max_decode_pixels=settings.max_decode_pixels,
        decode_threads=settings.decode_threads,
        decode=settings.decode,
        normalize=not options.no_normalize,
    )


def _embed_files(embedder: "FileEmbedder", files: Sequence[Path]) -> tuple[list["Embedded"], int]:
    """The vectors of the files that have one, and how many do not, each of which is named as it is met."""
    from tqdm import tqdm

    from service.cli.offline import Failed

    done: list[Embedded] = []
    failed = 0
    # `disable=None`: a progress bar on a terminal, nothing in a pipe or a log.
    with tqdm(total=len(files), unit="image", disable=None) as progress:
        for result in embedder.embed(files):
            progress.update()
            if isinstance(result, Failed):
                failed += 1
                progress.write(f"{result.path}: {result.reason}", file=sys.stderr)
            else:
                done.append(result)
    return done, failed


def _rows(results: Sequence["Embedded"]) -> str:
    grids = [_grid(result.plan) for result in results]
    grid_width = max(map(len, grids), default=0)
    lines = []
    for result, grid in zip(results, grids, strict=True):
        height, width = result.plan.size
        size, tokens = f"{height}×{width}", result.plan.tokens
        head = ", ".join(f"{value:+.4f}" for value in result.embedding[:4])
        lines.append(f"{size:>11} px  {grid:>{max(7, grid_width)}} = {tokens:>4} tokens  [{head}, …]  {result.path}\n")
    return "".join(lines)


def _grid(plan: "ImagePlan") -> str:
    """Patches of an image, or of each of its segments, which are alike."""
    grid = "×".join(map(str, plan.segments[0].grid))
    return grid if len(plan.segments) == 1 else f"{len(plan.segments)}×({grid})"


def _summary(embedder: "FileEmbedder", done: Sequence[Any], failed: int) -> str:
    count = embedder.count
    parts = [f"{len(done)} embedded", f"{count.image_tokens} tokens in {count.packs} packs"]
    parts.append(f"padding waste {count.padding_waste:.1%}")
    if failed:
        parts.append(f"{failed} failed")
    return ", ".join(parts) + "\n"


if __name__ == "__main__":
    sys.exit(main())
