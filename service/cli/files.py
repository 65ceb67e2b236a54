"""What the commands that embed image files have in common: options of a budget, an embedder, and how results come."""

import argparse
import os
import sys
from collections.abc import Container, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from model.images.formats import heic
from model.images.image_files import FolderFiles, folder_files
from model.sizing.geometry import STRATEGIES
from service.names import SuffixCounts, one_line
from service.settings.names import SettingsError
from service.settings.settings import Settings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from model.running.runner import Runner
    from model.sizing.plan import ImagePlan
    from service.jobs.pipeline import Pipeline
    from service.jobs.rows import Embedded, Failed
    from service.limits import ModelFacts

EXIT_SOME_FAILED = 1
EXIT_CANNOT_WRITE = 2

# Files of a folder without a picture that the message names with what is wrong with them.
_MOST_NAMED = 3


EXIT_BROKEN_PIPE = 141  # as shells show a process that SIGPIPE ended


def say(text: str) -> None:
    """Prints a result. Raises `SettingsError` if it does not arrive, and ends the command in silence if the other end
    of a pipe has seen enough, as `head` has."""
    if sys.stdout is None:
        raise SettingsError("standard output is closed")
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        # What is in the buffer would fail once more when the interpreter ends.
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            raise SystemExit(EXIT_BROKEN_PIPE) from None
        raise SettingsError(f"standard output cannot be written: {error.strerror or error}") from None


def add_budget_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--max-tokens", type=int, metavar="N", help="most tokens an image may use")
    parser.add_argument("--max-pixels", type=int, metavar="N", help="most pixels an image may have after resizing")
    parser.add_argument("--min-pixels", type=int, metavar="N", help="least pixels, with --strategy native")
    parser.add_argument("--strategy", choices=STRATEGIES, help="how the size is chosen (default: the model's own)")


def add_task_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--task", metavar="NAME", help="what texts are for: a prompt of the model, put before them")


def not_read(others: SuffixCounts, done: str = "embedded") -> list[str]:
    """Which files are not `done`, and how they would be, in sentences; none if there are none."""
    sentences = [f"not {done}: {others}"] if others.suffixes else []
    if done == "embedded" and not {".tar", ".tgz", ".parquet"}.isdisjoint(others.suffixes):
        sentences.append("a folder gives its image files: name shards and tables as 'FOLDER/**/*.tar' does")
    return sentences + [heic.HOW_TO_READ] * any(suffix in heic.SUFFIXES for suffix in others.suffixes)


def files_of(folder: Path, done: str) -> FolderFiles:
    """Those of a folder. done: what is not done with those that are no pictures. Raises `SettingsError` if there is no
    picture."""
    found = folder_files(folder)
    if not found.images:
        wrong = [f"{one_line(path)}: {reason}" for path, reason in found.unreadable[:_MOST_NAMED]]
        others = not_read(SuffixCounts(found.others), done)
        raise SettingsError("; ".join([f"{one_line(folder)} holds no image file", *wrong, *others]))
    return found


@contextmanager
def opened_pipeline(
    settings: Settings,
    options: argparse.Namespace,
    runner: "Runner",
    model: "ModelFacts",
    *,
    normalize: bool = True,
    shown: Container[str] = (),
    ahead_bytes: int | None = None,
) -> Iterator["Pipeline"]:
    """Embeds pictures under the options' budget. Afterwards the processes that decode images have ended.

    shown: the pictures whose thumbnails are kept. ahead_bytes: as in `Pipeline`; None for its own.
    """
    from model.images.patches import picture_of
    from model.images.reader import ImageReader
    from service.cli.report.thumbs import webp_thumb
    from service.engine.device import device_of
    from service.jobs.decoding import PictureDecoder, Recipe
    from service.jobs.packs import Packs
    from service.jobs.pipeline import AHEAD_BYTES, Pipeline
    from service.limits import Limits

    limits = Limits.of(settings, model)
    bounds = {name: getattr(options, name) for name in ("strategy", "max_tokens", "max_pixels", "min_pixels")}
    recipe = Recipe.of(model, limits, decode=settings.decode, normalize=normalize, **bounds)

    def thumb(path: str, plan: "ImagePlan", rows: "NDArray[np.uint8]") -> bytes:
        return webp_thumb(picture_of(rows, plan, model.geometry)) if path in shown else b""

    with closing(
        ImageReader(processes=settings.decode_threads, max_decode_pixels=settings.max_decode_pixels)
    ) as images:
        yield Pipeline(
            Packs(device_of(runner), limits, normalize=normalize),
            PictureDecoder(recipe, images, thumb=thumb if shown else None),
            decode_threads=settings.decode_threads,
            ahead_bytes=ahead_bytes or AHEAD_BYTES,
        )


class FileRun:
    """Files that are embedded under a progress bar. failures: those that have no vector."""

    def __init__(self, pipeline: "Pipeline") -> None:
        self._pipeline = pipeline
        self.failures: list[Failed] = []

    @property
    def failed(self) -> int:
        return len(self.failures)

    def results(self, files: Sequence[Path], unreadable: Sequence[tuple[Path, str]] = ()) -> Iterator["Embedded"]:
        """The vectors, in order. Each failure is printed as it is met. unreadable: what cannot be read, and why, which
        fails behind the files."""
        from tqdm import tqdm

        from service.jobs.rows import Failed, Picture

        # `disable=None`: a progress bar on a terminal, nothing in a pipe or a log.
        pictures = [Picture(str(path), path) for path in files]
        pictures += [Picture(str(path), error=reason) for path, reason in unreadable]
        with tqdm(total=len(pictures), unit="image", disable=None) as progress:
            for row in self._pipeline.rows(pictures):
                progress.update()
                if isinstance(row, Failed):
                    self.failures.append(row)
                    progress.write(f"{one_line(row.path)}: {row.reason}", file=sys.stderr)
                else:
                    yield row
