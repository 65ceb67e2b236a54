"""The command `packlight search`: the pictures of a folder that are nearest to a text or to a picture."""

import argparse
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from model.fingerprint import difference
from model.images.image_files import FolderFiles
from service.cli.files import (
    EXIT_CANNOT_WRITE,
    EXIT_SOME_FAILED,
    FileRun,
    add_budget_options,
    add_task_option,
    files_of,
    not_read,
    opened_pipeline,
    say,
)
from service.cli.folder_index import FolderIndex
from service.cli.neighbors import count, existing_folder, nearest
from service.names import SuffixCounts, one_line
from service.settings.names import SettingsError
from service.settings.settings import Settings

if TYPE_CHECKING:
    from service.jobs.pipeline import Pipeline

_DEFAULT_TOP = 5
# An index is written this often while it grows, so that a run that is ended loses little; a large one, which is written
# whole, less often.
_SAVE_EVERY_S = 30.0
_MOST_SAVING_SHARE = 0.05


def add_search_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=existing_folder, metavar="FOLDER", help="pictures to search, folders below too")
    parser.add_argument("text", nargs="?", metavar="TEXT", help="what the pictures should show")
    parser.add_argument("--image", type=Path, metavar="FILE", help="a picture in place of the text")
    parser.add_argument(
        "--top", type=count, default=_DEFAULT_TOP, metavar="N", help=f"how many to print (default: {_DEFAULT_TOP})"
    )
    add_task_option(parser)
    add_budget_options(parser)


def run_search(settings: Settings, options: argparse.Namespace) -> int:
    """The exit status: 0, 1 if a file failed, 2 if the index could not be written, which leaves the answer as it is."""
    if (options.text is None) == (options.image is None):
        raise SettingsError("search for a TEXT or for an --image: give one of them")
    if options.task is not None and options.text is None:
        raise SettingsError("--task is for a TEXT, and a picture has none")
    files = files_of(options.folder, "searched")
    from service.cli.texts import TextEmbedder
    from service.loading import load_runner

    runner, model = load_runner(settings)
    texts = TextEmbedder.of(settings, runner, model, task=options.task) if options.text is not None else None
    index = FolderIndex(
        options.folder,
        _meaning(settings, options),
        fingerprint=model.fingerprint_of(settings.decode),
        old_forms=model.old_fingerprints,
    )
    _tell_of_others(index, model.fingerprint_of(settings.decode))
    with opened_pipeline(settings, options, runner, model) as pipeline:
        run, written = FileRun(pipeline), True
        try:
            _bring_up_to_date(index, run, files)
        except OSError as error:
            written = False
            sys.stderr.write(
                f"packlight: {one_line(index.path)} cannot be written, so the next search embeds the pictures again: "
                f"{error.strerror or error}\n"
            )
        query = texts.embed([options.text])[0].embedding if texts else _image_vector(pipeline, options.image)
    found, vectors = index.vectors()
    if not found:
        raise SettingsError(f"{one_line(options.folder)} holds no image that can be embedded")
    for row, similarity in nearest(query, vectors, options.top):
        say(f"{similarity:6.3f}  {one_line(found[row])}\n")
    sys.stderr.writelines(f"{line}\n" for line in not_read(SuffixCounts(files.others), "searched"))
    if not written:
        return EXIT_CANNOT_WRITE
    return EXIT_SOME_FAILED if run.failed else 0


def _bring_up_to_date(index: FolderIndex, run: FileRun, files: FolderFiles) -> None:
    """Embeds what the index lacks, and saves it now and then and at the end, however that comes. Raises `OSError`
    at the end."""
    saved_s, wait_s = time.monotonic(), _SAVE_EVERY_S
    try:
        for result in run.results(index.missing(files.images), files.unreadable):
            index.add(Path(result.path), result.embedding)
            if (now_s := time.monotonic()) - saved_s > wait_s:
                with suppress(OSError):
                    index.save()
                saved_s = time.monotonic()
                wait_s = max(_SAVE_EVERY_S, (saved_s - now_s) / _MOST_SAVING_SHARE)
    finally:
        index.save()


def _tell_of_others(index: FolderIndex, fingerprint: str) -> None:
    """Says on standard error what becomes of vectors of another fingerprint."""
    for other in index.others:
        then = "the pictures are embedded again" if index.dropped else "they are kept beside new ones"
        sys.stderr.write(
            f"packlight: {one_line(index.path)} holds vectors of the fingerprint {other}, and this model's have "
            f"{fingerprint}: {difference(other, fingerprint)}; {then}\n"
        )


def _meaning(settings: Settings, options: argparse.Namespace) -> dict[str, str]:
    """What the vectors of an index depend on besides their fingerprint."""
    budget = {name: str(getattr(options, name)) for name in ("strategy", "max_tokens", "max_pixels", "min_pixels")}
    defaults = {name: str(getattr(settings, name)) for name in ("default_max_tokens", "max_image_tokens")}
    return budget | defaults


def _image_vector(pipeline: "Pipeline", image: Path) -> NDArray[np.float32]:
    """Raises `SettingsError` for a picture that cannot be embedded."""
    from service.jobs.rows import Failed, Picture

    (result,) = pipeline.rows([Picture(str(image), image)])
    if isinstance(result, Failed):
        raise SettingsError(f"{one_line(image)}: {result.reason}")
    return result.embedding
