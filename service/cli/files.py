"""What the commands that embed image files have in common: options of a budget, an embedder, and how results come."""

import argparse
import sys
from collections.abc import Container, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from model.images.formats import heic
from model.images.image_files import FolderFiles, folder_files
from model.sizing.geometry import STRATEGIES
from service.cli.names import one_line, suffix_counts
from service.settings import Settings

if TYPE_CHECKING:
    from model.running.runner import Runner
    from service.cli.offline import Embedded, Failed, FileEmbedder
    from service.limits import ModelFacts

EXIT_SOME_FAILED = 1
EXIT_CANNOT_WRITE = 2


def add_budget_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--max-tokens", type=int, metavar="N", help="most tokens an image may use")
    parser.add_argument("--max-pixels", type=int, metavar="N", help="most pixels an image may have after resizing")
    parser.add_argument("--min-pixels", type=int, metavar="N", help="least pixels, with --strategy native")
    parser.add_argument("--strategy", choices=STRATEGIES, help="how the size is chosen (default: the model's own)")


def given_files(paths: Sequence[Path]) -> FolderFiles:
    """The files that a command line names, in order, and in place of each folder the image files in it."""
    given = FolderFiles()
    for path in paths:
        found = folder_files(path) if path.is_dir() else FolderFiles([path])
        given.images += found.images
        given.others += found.others
        given.unreadable += found.unreadable
    return given


def not_read(found: FolderFiles, done: str = "embedded") -> list[str]:
    """Which files of folders are not `done`, and how they would be, in sentences; none if all are."""
    sentences = [f"not {done}: {suffix_counts(found.others)}"] if found.others else []
    return sentences + [heic.HOW_TO_READ] * any(path.suffix.lower() in heic.SUFFIXES for path in found.others)


@contextmanager
def opened_embedder(
    settings: Settings,
    options: argparse.Namespace,
    runner: "Runner",
    model: "ModelFacts",
    *,
    normalize: bool = True,
    shown: Container[Path] = (),
) -> Iterator["FileEmbedder"]:
    """Embeds files under the options' budget. Afterwards the processes that decode images have ended.

    shown: the files whose thumbnails are kept.
    """
    from model.images.reader import ImageReader
    from service.cli.offline import FileEmbedder, FileReader
    from service.limits import Limits

    limits = Limits.of(settings, model)
    strategy = options.strategy or model.geometry.default_strategy
    bounds = {name: getattr(options, name) for name in ("max_tokens", "max_pixels", "min_pixels")}
    budget = limits.budget(model.geometry, strategy, **bounds)
    with closing(
        ImageReader(processes=settings.decode_threads, max_decode_pixels=settings.max_decode_pixels)
    ) as images:
        reader = FileReader(model.geometry, budget, strategy, images, settings.decode, shown)
        yield FileEmbedder(runner, reader, limits, decode_threads=settings.decode_threads, normalize=normalize)


class FileRun:
    """Files that are embedded under a progress bar. failures: those that have no vector."""

    def __init__(self, embedder: "FileEmbedder") -> None:
        self._embedder = embedder
        self.failures: list[Failed] = []

    @property
    def failed(self) -> int:
        return len(self.failures)

    def add_failures(self, unreadable: Sequence[tuple[Path, str]]) -> None:
        """Prints and counts what could not even be given to the embedder."""
        from service.cli.offline import Failed

        for path, reason in unreadable:
            sys.stderr.write(f"{one_line(path)}: {reason}\n")
            self.failures.append(Failed(path, reason))

    def results(self, files: Sequence[Path]) -> Iterator["Embedded"]:
        """The vectors, in order. Each failure is printed as it is met."""
        from tqdm import tqdm

        from service.cli.offline import Failed

        # `disable=None`: a progress bar on a terminal, nothing in a pipe or a log.
        with tqdm(total=len(files), unit="image", disable=None) as progress:
            for result in self._embedder.embed(files):
                progress.update()
                if isinstance(result, Failed):
                    self.failures.append(result)
                    progress.write(f"{one_line(result.path)}: {result.reason}", file=sys.stderr)
                else:
                    yield result
