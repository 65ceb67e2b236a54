"""The command `packlight embed`: its options, and what it prints and writes."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from service.cli.files import (
    EXIT_CANNOT_WRITE,
    EXIT_SOME_FAILED,
    FileRun,
    add_budget_options,
    given_files,
    not_read,
    opened_embedder,
)
from service.cli.names import one_line
from service.cli.neighbors import DEFAULT_TOP, NeighborSearch, add_neighbor_options
from service.settings import Settings, SettingsError

if TYPE_CHECKING:
    from model.running.runner import Runner
    from model.sizing.plan import ImagePlan
    from service.cli.offline import Embedded, PackCount
    from service.cli.texts import TextVector
    from service.limits import ModelFacts


def add_embed_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE")
    parser.add_argument(
        "--text", action="append", default=[], dest="texts", metavar="TEXT",
        help="embed a text as well, if the model takes texts; may be given several times",
    )  # fmt: skip
    add_budget_options(parser)
    parser.add_argument("--no-normalize", action="store_true", help="leave vectors at the length the model gives them")
    parser.add_argument("--out", type=_out_path, metavar="FILE", help="write vectors to a .npy, .safetensors or .jsonl")
    parser.add_argument(
        "--html", type=_html_path, metavar="FILE",
        help="write a page that shows the pictures with their patches, tokens and nearest others",
    )  # fmt: skip
    add_neighbor_options(parser)


def _out_path(value: str) -> Path:
    from service.cli.outfile import SUFFIXES

    return _writable_path(value, SUFFIXES)


def _html_path(value: str) -> Path:
    return _writable_path(value, (".html", ".htm"))


def _writable_path(value: str, suffixes: Sequence[str]) -> Path:
    path = Path(value)
    if path.suffix not in suffixes:
        raise argparse.ArgumentTypeError(f"{value}: the name ends in one of {', '.join(suffixes)}")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"{path.parent} is not a folder")
    if path.exists() and not path.is_file():
        raise argparse.ArgumentTypeError(f"{path} is not a file")
    return path


def run_embed(settings: Settings, options: argparse.Namespace) -> int:
    """The exit status: 0, 1 if a file failed, 2 if the vectors or the page could not be written."""
    from service.cli import outfile
    from service.cli.report.contents import Report
    from service.cli.report.page import write_page
    from service.loading import load_runner

    given = given_files(options.files)
    if not given.images and not options.texts:
        missing = "there is no image file" if options.files else "name an image file or a folder, or give a --text"
        raise SettingsError("; ".join([missing, *not_read(given)]))
    search = NeighborSearch.asked(options, given.images)
    files = search.files if search else given.images
    runner, model = load_runner(settings)
    texts = _text_vectors(settings, options, runner, model)
    shown = _shown(files, given.images) if options.html else frozenset()
    normalize = not options.no_normalize
    with opened_embedder(settings, options, runner, model, normalize=normalize, shown=shown) as embedder:
        run = FileRun(embedder)
        done = list(run.results(files))
    run.add_failures([*given.unreadable, *(search.found.unreadable if search else ())])
    if search:
        sys.stdout.write(search.text(done))
    elif not options.out and not options.html:
        sys.stdout.write(_rows(done) + _text_rows(texts))
    if options.out and not _written(options.out, lambda: outfile.write(options.out, done, texts)):
        return EXIT_CANNOT_WRITE
    if options.html:
        report = Report(
            model, model.fingerprint_of(settings.decode), embedder.count, done, texts, run.failures,
            top=options.top or DEFAULT_TOP, named=frozenset(given.images),
            gallery=search.found.images if search else None,
        )  # fmt: skip
        if not _written(options.html, lambda: write_page(options.html, report)):
            return EXIT_CANNOT_WRITE
    sys.stderr.write(_summary(embedder.count, len(done), texts, run.failed))
    sys.stderr.writelines(f"{line}\n" for line in (*not_read(given), *(search.not_read if search else ())))
    return EXIT_SOME_FAILED if run.failed else 0


def _shown(files: Sequence[Path], first: Sequence[Path]) -> frozenset[Path]:
    """The files that the page shows: as many as it can, those that the command line names before others."""
    from service.cli.report.contents import MOST_PICTURES

    named = frozenset(first)
    return frozenset(sorted(files, key=lambda path: path not in named)[:MOST_PICTURES])


def _written(path: Path, write: Callable[[], None]) -> bool:
    """Whether `write` could write the file. It says why it could not."""
    try:
        write()
    except OSError as error:
        sys.stderr.write(f"packlight: {one_line(path)} cannot be written: {error.strerror or error}\n")
        return False
    return True


def _text_vectors(
    settings: Settings, options: argparse.Namespace, runner: "Runner", model: "ModelFacts"
) -> list["TextVector"]:
    """Raises `SettingsError` for a model without text, and `TextError`."""
    if not options.texts:
        return []
    from service.cli.texts import TextEmbedder

    return TextEmbedder.of(settings, runner, model).embed(options.texts, normalize=not options.no_normalize)


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


def _text_rows(texts: Sequence["TextVector"]) -> str:
    """A line a text, in the columns of files."""
    lines = []
    for text in texts:
        head = ", ".join(f"{value:+.4f}" for value in text.embedding[:4])
        cut = " (cut)" if text.truncated else ""
        lines.append(f"{'text':>14}  {cut:>7} = {text.tokens:>4} tokens  [{head}, …]  {one_line(text.text)}\n")
    return "".join(lines)


def _grid(plan: "ImagePlan") -> str:
    """The grid in patches; for several segments, which are alike, their number and the grid of one."""
    grid = "×".join(map(str, plan.segments[0].grid))
    return grid if len(plan.segments) == 1 else f"{len(plan.segments)}×({grid})"


def _summary(count: "PackCount", images: int, texts: Sequence["TextVector"], failed: int) -> str:
    packs = "1 pack" if count.packs == 1 else f"{count.packs} packs"
    parts = [f"{images + len(texts)} embedded"]
    if images or failed or not texts:
        parts += [f"{count.image_tokens} tokens in {packs}", f"padding waste {count.padding_waste:.1%}"]
    if texts:
        parts.append(f"{sum(text.tokens for text in texts)} tokens of text")
    if failed:
        parts.append(f"{failed} failed")
    return ", ".join(parts) + "\n"
