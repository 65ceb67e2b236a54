"""The command `packlight embed`: its options, and what it prints and writes."""

import argparse
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from model.sizing.geometry import STRATEGIES
from service.cli.names import one_line
from service.cli.neighbors import NeighborSearch, add_neighbor_options
from service.settings import Settings

if TYPE_CHECKING:
    from model.images.reader import ImageReader
    from model.sizing.plan import ImagePlan
    from service.cli.offline import Embedded, FileEmbedder

EXIT_SOME_FAILED = 1
EXIT_CANNOT_WRITE = 2


def add_embed_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--max-tokens", type=int, metavar="N", help="most tokens an image may use")
    parser.add_argument("--max-pixels", type=int, metavar="N", help="most pixels an image may have after resizing")
    parser.add_argument("--min-pixels", type=int, metavar="N", help="least pixels, with --strategy native")
    parser.add_argument("--strategy", choices=STRATEGIES, help="how the size is chosen (default: the model's own)")
    parser.add_argument("--no-normalize", action="store_true", help="leave vectors at the length the model gives them")
    parser.add_argument("--out", type=_out_path, metavar="FILE", help="write vectors to a .npy, .safetensors or .jsonl")
    add_neighbor_options(parser)


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


def run_embed(settings: Settings, options: argparse.Namespace) -> int:
    """The exit status: 0, 1 if a file failed, 2 if the vectors could not be written."""
    from model.images.reader import ImageReader
    from service.cli import outfile

    search = NeighborSearch.asked(options)
    with closing(
        ImageReader(processes=settings.decode_threads, max_decode_pixels=settings.max_decode_pixels)
    ) as images:
        embedder = _file_embedder(settings, options, images)
        done, failed = _embed_files(embedder, search.files if search else options.files)
    for path, reason in search.found.unreadable if search else ():
        sys.stderr.write(f"{one_line(path)}: {reason}\n")
        failed += 1
    if search:
        sys.stdout.write(search.text(done))
    elif options.out:
        try:
            outfile.write(options.out, done)
        except OSError as error:
            sys.stderr.write(f"packlight: {one_line(options.out)} cannot be written: {error.strerror or error}\n")
            return EXIT_CANNOT_WRITE
    else:
        sys.stdout.write(_rows(done))
    sys.stderr.write(_summary(embedder, len(done), failed))
    sys.stderr.writelines(f"{line}\n" for line in (search.not_read if search else ()))
    return EXIT_SOME_FAILED if failed else 0


def _file_embedder(settings: Settings, options: argparse.Namespace, images: "ImageReader") -> "FileEmbedder":
    from service.cli.offline import FileEmbedder, FileReader
    from service.limits import Limits
    from service.loading import load_runner

    runner, facts = load_runner(settings)
    limits = Limits.of(settings, facts)
    strategy = options.strategy or facts.geometry.default_strategy
    bounds = {name: getattr(options, name) for name in ("max_tokens", "max_pixels", "min_pixels")}
    budget = limits.budget(facts.geometry, strategy, **bounds)
    return FileEmbedder(
        runner,
        FileReader(facts.geometry, budget, strategy, images, settings.decode),
        limits,
        decode_threads=settings.decode_threads,
        normalize=not options.no_normalize,
    )


def _embed_files(embedder: "FileEmbedder", files: Sequence[Path]) -> tuple[list["Embedded"], int]:
    """The vectors of the files that have one, and how many have none. Each failure is printed as it is met."""
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
                progress.write(f"{one_line(result.path)}: {result.reason}", file=sys.stderr)
            else:
                done.append(result)
    return done, failed


def _rows(results: Sequence["Embedded"]) -> str:
    """A line a file, in columns."""
    grids = [_grid(result.plan) for result in results]
    grid_width = max(map(len, grids), default=0)
    lines = []
    for result, grid in zip(results, grids, strict=True):
        height, width = result.plan.size
        size, tokens = f"{height}×{width}", result.plan.tokens
        head = ", ".join(f"{value:+.4f}" for value in result.embedding[:4])
        lines.append(
            f"{size:>11} px  {grid:>{max(7, grid_width)}} = {tokens:>4} tokens  [{head}, …]  {one_line(result.path)}\n"
        )
    return "".join(lines)


def _grid(plan: "ImagePlan") -> str:
    """The grid in patches; for several segments, which are alike, their number and the grid of one."""
    grid = "×".join(map(str, plan.segments[0].grid))
    return grid if len(plan.segments) == 1 else f"{len(plan.segments)}×({grid})"


def _summary(embedder: "FileEmbedder", done: int, failed: int) -> str:
    count = embedder.count
    packs = "1 pack" if count.packs == 1 else f"{count.packs} packs"
    parts = [f"{done} embedded", f"{count.image_tokens} tokens in {packs}"]
    parts.append(f"padding waste {count.padding_waste:.1%}")
    if failed:
        parts.append(f"{failed} failed")
    return ", ".join(parts) + "\n"
