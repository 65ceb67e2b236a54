"""Rows that are written to a file as they come, with a ledger beside it, and what a run says at its end."""

import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from service.cli.files import EXIT_CANNOT_WRITE, EXIT_SOME_FAILED
from service.jobs.sinks.kinds import open_sink
from service.names import one_line

if TYPE_CHECKING:
    from service.jobs.decoding import Recipe
    from service.jobs.ledger import Ledger
    from service.jobs.packs import PackCount
    from service.jobs.rows import Row, TextVector
    from service.limits import ModelFacts


def stream(
    rows: "Callable[[Ledger], Generator[Row, None, None]]",
    count: "PackCount",
    recipe: "Recipe",
    *,
    out: Path,
    total: int | None,
    model: "ModelFacts",
    texts: "Sequence[TextVector]" = (),
) -> int:
    """Writes rows as they come. A job that ends early keeps its vectors for the next one of the same options.

    rows: of the job, given what is kept. count: of its packs, kept up to date by them. total: of its pictures, None if
    not known. Returns the exit status.
    """
    from service.cli.progress import Progress
    from service.jobs.ledger import Ledger, LedgerError

    try:
        with (
            Ledger(out, recipe.meaning, old_forms=model.old_fingerprints) as ledger,
            Progress(total, count) as progress,
        ):
            if kept := ledger.kept:
                sys.stderr.write(f"resuming: {one_line(ledger.path)} has {kept:,} vectors of an earlier run\n")
            # What ends it, a full disk or Ctrl-C, must leave the ledger open until it has the last packs.
            with open_sink(out, width=model.dim, fingerprint=recipe.fingerprint) as sink, closing(rows(ledger)) as made:
                for row in made:
                    progress.add(row)
                    sink.add(row)
                for text in texts:
                    sink.add_text(text)
            ledger.remove()
    except LedgerError as error:
        sys.stderr.write(f"packlight: {error}\n")
        return EXIT_CANNOT_WRITE
    except OSError as error:
        return cannot_write(out, error)
    embedded = progress.rows - progress.failed
    rate = f", packs {count.fill:.0%} full, {progress.rows / progress.seconds:,.1f} images/s"
    taken = f", {ledger.found:,} not embedded again" if ledger.found else ""
    sys.stderr.write(summary(count, embedded, texts, progress.failed, rate + taken))
    return EXIT_SOME_FAILED if progress.failed else 0


def cannot_write(path: Path, error: OSError) -> int:
    sys.stderr.write(f"packlight: {one_line(path)} cannot be written: {error.strerror or error}\n")
    return EXIT_CANNOT_WRITE


def summary(count: "PackCount", images: int, texts: "Sequence[TextVector]", failed: int, more: str = "") -> str:
    """What has been embedded, in a line."""
    packs = "1 pack" if count.packs == 1 else f"{count.packs} packs"
    parts = [f"{images + len(texts)} embedded"]
    if images or failed or not texts:
        parts += [f"{count.image_tokens} tokens in {packs}", f"padding waste {count.padding_waste:.1%}"]
    if texts:
        parts.append(f"{sum(text.tokens for text in texts)} tokens of text")
    if failed:
        parts.append(f"{failed} failed")
    return ", ".join(parts) + f"{more}\n"
