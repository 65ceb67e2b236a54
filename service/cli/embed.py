"""The command `packlight embed`: its options, and what it prints and writes."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from service.cli.cluster import add_ray_options, run_on_ray
from service.cli.files import (
    EXIT_CANNOT_WRITE,
    EXIT_SOME_FAILED,
    add_budget_options,
    add_task_option,
    not_read,
    opened_pipeline,
    say,
)
from service.cli.neighbors import DEFAULT_TOP, NeighborSearch, add_neighbor_options, count
from service.cli.streaming import cannot_write, stream, summary
from service.jobs.sinks.kinds import SUFFIXES, TABLES, open_sink
from service.jobs.sources.named import NamedSources
from service.names import one_line
from service.settings.names import SettingsError
from service.settings.settings import Settings

if TYPE_CHECKING:
    from model.running.runner import Runner
    from model.sizing.plan import ImagePlan
    from service.jobs.pipeline import Pipeline
    from service.jobs.rows import Embedded, Picture, Row, TextVector
    from service.limits import ModelFacts

_AHEAD_BYTES = 256 * 1024**2


def add_embed_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "sources", nargs="*", metavar="SOURCE",
        help="image files, folders, quoted patterns ('photos/**/*.jpg'), tar shards ('shards/{000..012}.tar'), "
        ".parquet and .lance tables; - for a list on standard input",
    )  # fmt: skip
    parser.add_argument(
        "--list", action="append", default=[], dest="lists", metavar="FILE",
        help="a file with a path a line, or with a NUL after each; - for standard input",
    )  # fmt: skip
    parser.add_argument(
        "--column",
        metavar="NAME",
        help="the column of a table that holds bytes or paths of images, or sample.image in a struct",
    )
    parser.add_argument(
        "--text", action="append", default=[], dest="texts", metavar="TEXT",
        help="embed a text as well, if the model takes texts; may be given several times",
    )  # fmt: skip
    add_task_option(parser)
    add_budget_options(parser)
    parser.add_argument("--no-normalize", action="store_true", help="leave vectors at the length the model gives them")
    parser.add_argument(
        "--out", type=_out_path, metavar="DEST", help=f"write the vectors to this file: {', '.join(SUFFIXES)}",
    )  # fmt: skip
    parser.add_argument(
        "--ahead-bytes", type=count, default=_AHEAD_BYTES, metavar="N",
        help="most bytes of files and decoded images that are held at once (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--html", type=_html_path, metavar="FILE",
        help="write a page that shows the pictures with their patches, tokens and nearest others",
    )  # fmt: skip
    add_neighbor_options(parser)
    add_ray_options(parser)


def _out_path(value: str) -> Path:
    if value.endswith(".lance") and Path(value).is_dir():
        if not (Path(value) / "_versions").is_dir():
            raise argparse.ArgumentTypeError(f"{value} is a folder and no Lance dataset")
        return _linked(value)
    _writable_path(value, SUFFIXES)
    # A link may lead to a larger disk: the file is written there, and must not take the place of the link.
    return _writable_path(str(_linked(value)), SUFFIXES)


def _linked(value: str) -> Path:
    return Path(os.path.realpath(value) if os.path.islink(value) else value)


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
    """The exit status: 0, 1 if a picture failed, 2 if the vectors or the page could not be written."""
    from service.loading import load_runner

    _check(options)
    named = NamedSources(
        options.sources, options.lists, column=options.column, most_file_bytes=options.ahead_bytes, out=options.out
    )
    if named.is_empty and not options.texts:
        named_some = options.sources or options.lists
        missing = "there is no image file" if named_some else "name an image file or a folder, or give a --text"
        raise SettingsError("; ".join([missing, *not_read(named.others)]))
    if options.ray is not None:
        status = run_on_ray(settings, options, named)
        sys.stderr.writelines(f"{line}\n" for line in not_read(named.others))
        return status
    # What prints, compares or draws pictures needs all of them at once; a file takes them as they come.
    streams = options.out and not options.html and not options.neighbors
    given = [] if streams else list(named.source)
    search = NeighborSearch.asked(options, [Path(picture.path) for picture in given if not picture.error])
    runner, model = load_runner(settings)
    texts = _text_vectors(settings, options, runner, model)
    shown = _shown(given, search) if options.html else frozenset()
    with opened_pipeline(
        settings, options, runner, model,
        normalize=not options.no_normalize, shown=shown, ahead_bytes=options.ahead_bytes,
    ) as pipeline:  # fmt: skip
        if streams:
            status = stream(
                lambda ledger: pipeline.rows(named.source, ledger), pipeline.packs.count, pipeline.decoder.recipe,
                out=options.out, total=named.source.total, model=model, texts=texts,
            )  # fmt: skip
        else:
            status = _collect(pipeline, given, search, options, model, texts)
    sys.stderr.writelines(f"{line}\n" for line in (*not_read(named.others), *(search.not_read if search else ())))
    return status


def _check(options: argparse.Namespace) -> None:
    """Raises `SettingsError` for an option that would have no effect beside the others."""
    if options.task is not None and not options.texts:
        raise SettingsError("--task is for texts: give a --text")
    if options.texts and options.out and options.out.suffix in TABLES:
        raise SettingsError("--text goes into .npy, .safetensors and .jsonl; a table holds pictures")
    if options.top is not None and not options.neighbors and not options.html:
        raise SettingsError("--top says how many neighbors to print; it needs --neighbors or --html")
    if options.ray is None and (options.ray_runners or options.ray_cpus):
        raise SettingsError("--ray-runners and --ray-cpus are for a job on Ray: give --ray")
    if options.ray is not None and options.decode_threads is not None:
        raise SettingsError("--decode-threads is for one host: on Ray free processors decode")


def _collect(
    pipeline: "Pipeline",
    given: Sequence["Picture"],
    search: NeighborSearch | None,
    options: argparse.Namespace,
    model: "ModelFacts",
    texts: Sequence["TextVector"],
) -> int:
    """Prints, compares or draws the pictures when all are embedded."""
    from service.cli.progress import Progress
    from service.cli.report.contents import Report
    from service.cli.report.page import write_page
    from service.jobs.rows import Embedded, Failed

    pictures = search.pictures(given) if search else given
    with Progress(len(pictures), pipeline.packs.count) as progress:
        rows: list[Row] = []
        for row in pipeline.rows(pictures):
            progress.add(row)
            rows.append(row)
    done = [row for row in rows if isinstance(row, Embedded)]
    if search:
        say(search.text(done))
    elif not options.out and not options.html:
        say(_rows(done) + _text_rows(texts))
    fingerprint = pipeline.decoder.recipe.fingerprint
    if options.out and (status := _write(options.out, model, fingerprint, rows, texts)):
        return status
    if options.html:
        report = Report(
            model, fingerprint, pipeline.packs.count, done, texts, [row for row in rows if isinstance(row, Failed)],
            top=options.top or DEFAULT_TOP, named=frozenset(picture.path for picture in given),
            gallery=search.found.images if search else None,
        )  # fmt: skip
        try:
            write_page(options.html, report)
        except OSError as error:
            return cannot_write(options.html, error)
    sys.stderr.write(summary(pipeline.packs.count, len(done), texts, progress.failed))
    return EXIT_SOME_FAILED if progress.failed else 0


def _write(
    out: Path, model: "ModelFacts", fingerprint: str, rows: Sequence["Row"], texts: Sequence["TextVector"]
) -> int:
    """All rows at once. Returns the exit status."""
    from service.jobs.ledger import LedgerError, alone

    try:
        with alone(out), open_sink(out, width=model.dim, fingerprint=fingerprint) as sink:
            for row in rows:
                sink.add(row)
            for text in texts:
                sink.add_text(text)
    except LedgerError as error:
        sys.stderr.write(f"packlight: {error}\n")
        return EXIT_CANNOT_WRITE
    except OSError as error:
        return cannot_write(out, error)
    return 0


def _shown(given: Sequence["Picture"], search: NeighborSearch | None) -> frozenset[str]:
    """The pictures that the page shows: as many as it can, those that the command line names before others."""
    from service.cli.report.contents import MOST_PICTURES

    named = frozenset(picture.path for picture in given)
    pictures = search.pictures(given) if search else given
    return frozenset([each.path for each in sorted(pictures, key=lambda each: each.path not in named)][:MOST_PICTURES])


def _text_vectors(
    settings: Settings, options: argparse.Namespace, runner: "Runner", model: "ModelFacts"
) -> list["TextVector"]:
    """Raises `SettingsError` for a model without text, and `TextError`."""
    if not options.texts:
        return []
    from service.cli.texts import TextEmbedder

    return TextEmbedder.of(settings, runner, model, task=options.task).embed(
        options.texts, normalize=not options.no_normalize
    )


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
