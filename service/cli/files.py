"""What the commands that embed image files have in common: options of a budget, an embedder, and how results come."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from model.sizing.geometry import STRATEGIES
from service.cli.names import one_line
from service.settings import Settings

if TYPE_CHECKING:
    from model.running.runner import Runner
    from service.cli.offline import Embedded, FileEmbedder
    from service.limits import ModelFacts

EXIT_SOME_FAILED = 1
EXIT_CANNOT_WRITE = 2


def add_budget_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--max-tokens", type=int, metavar="N", help="most tokens an image may use")
    parser.add_argument("--max-pixels", type=int, metavar="N", help="most pixels an image may have after resizing")
    parser.add_argument("--min-pixels", type=int, metavar="N", help="least pixels, with --strategy native")
    parser.add_argument("--strategy", choices=STRATEGIES, help="how the size is chosen (default: the model's own)")


@contextmanager
def opened_embedder(
    settings: Settings, options: argparse.Namespace, runner: "Runner", model: "ModelFacts", *, normalize: bool = True
) -> Iterator["FileEmbedder"]:
    """Embeds files under the options' budget. Afterwards the processes that decode images have ended."""
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
        reader = FileReader(model.geometry, budget, strategy, images, settings.decode)
        yield FileEmbedder(runner, reader, limits, decode_threads=settings.decode_threads, normalize=normalize)


class FileRun:
    """Files that are embedded under a progress bar. failed: how many have no vector."""

    def __init__(self, embedder: "FileEmbedder") -> None:
        self._embedder = embedder
        self.failed = 0

    def results(self, files: Sequence[Path]) -> Iterator["Embedded"]:
        """The vectors, in order. Each failure is printed as it is met."""
        from tqdm import tqdm

        from service.cli.offline import Failed

        # `disable=None`: a progress bar on a terminal, nothing in a pipe or a log.
        with tqdm(total=len(files), unit="image", disable=None) as progress:
            for result in self._embedder.embed(files):
                progress.update()
                if isinstance(result, Failed):
                    self.failed += 1
                    progress.write(f"{one_line(result.path)}: {result.reason}", file=sys.stderr)
                else:
                    yield result
