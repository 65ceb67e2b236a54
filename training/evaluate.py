"""`python -m training.evaluate`: judges an encoder on real pictures that took no part in training.

This is a measurement and not a gate: the exit status is 0 whatever the figures. Knows nothing of how pictures are
changed, or of how figures are computed and reported.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from model.checkpoint import tiny
from model.checkpoint.load import Checkpoint, load_checkpoint
from model.checkpoint.weights import digest
from model.errors import ModelError
from training.judging.baselines import hash_vectors, thumbnail_vectors
from training.judging.embed import PictureEmbedder
from training.judging.exam import Embed, Exam, judge, set_exam
from training.judging.real_pictures import Picture, PicturesMissing, built_in_pictures, folder_pictures
from training.judging.report import Line, as_json, as_text, lines

EXIT_CANNOT_RUN = 2


@dataclass(frozen=True, slots=True)
class _Judged:
    """One set of pictures, with the figures of the encoder and of its baselines."""

    title: str
    table: list[Line]


def main(arguments: Sequence[str] | None = None) -> int:
    """Judges, prints and writes the figures. Returns 0 whatever they are, or 2 if it cannot run."""
    options = _parser().parse_args(arguments)
    try:
        model = PictureEmbedder(load_checkpoint(options.model))
        judged = []
        for one in _judge_sets(model, options.folder, options.max_tokens):
            sys.stdout.write(as_text(one.title, "model", one.table) + "\n")
            judged.append(one)
        if options.json:
            sets = [{"set": one.title, "figures": as_json(one.table)} for one in judged]
            document = {"model": options.model, "max_tokens": options.max_tokens, "sets": sets}
            options.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    except (ModelError, PicturesMissing, OSError) as error:
        sys.stderr.write(f"training.evaluate: {error}\n")
        return EXIT_CANNOT_RUN
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        allow_abbrev=False,
        prog="python -m training.evaluate",
        description="Judges an encoder on real pictures that took no part in training, against three baselines.",
    )
    parser.add_argument("--folder", action="append", default=[], type=Path, metavar="DIR", help="folder of pictures")
    parser.add_argument("--model", default=tiny.NAME, metavar="NAME", help="packlight-tiny, a folder, or a hub id")
    parser.add_argument("--max-tokens", type=int, default=256, metavar="N", help="token cap (default: 256)")
    parser.add_argument("--json", type=_json_path, metavar="FILE", help="also write the figures to a file")
    return parser


def _json_path(value: str) -> Path:
    path = Path(value)
    if path.is_dir() or not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"cannot write a file at {path}")
    return path


def _judge_sets(model: Embed, folders: Sequence[Path], max_tokens: int) -> Iterator[_Judged]:
    """Judges the built-in pictures, then each folder's, with built-in ones to fill the gallery."""
    built_in = built_in_pictures()
    # Read before the first set is judged, so that a folder without pictures is reported at once.
    named = [(str(folder), folder_pictures(folder)) for folder in folders]
    yield _judge_set("built-in pictures", model, built_in, (), max_tokens)
    for name, pictures in named:
        yield _judge_set(name, model, pictures, built_in, max_tokens)


def _judge_set(
    name: str, model: Embed, pictures: Sequence[Picture], others: Sequence[Picture], max_tokens: int
) -> _Judged:
    exam = set_exam(pictures, others)
    encoders: dict[str, Embed] = {"model": model, "untrained": PictureEmbedder(untrained())}
    without_budget: dict[str, Embed] = {"thumbnail": thumbnail_vectors, "hash": hash_vectors}
    with tqdm(total=2 * exam.embeddings(), desc=name, unit="image", disable=None) as progress:
        figures = {
            label: judge(_counted(embed, progress.update), exam, max_tokens=max_tokens)
            for label, embed in encoders.items()
        }
    for label, embed in without_budget.items():
        figures[label] = judge(embed, exam, max_tokens=max_tokens, uses_budget=False)
    return _Judged(_title(name, pictures, exam), lines(figures.pop("model"), figures))


def _title(name: str, pictures: Sequence[Picture], exam: Exam) -> str:
    sources = len({picture.source for picture in pictures})
    documents = sum(picture.kind == "document" for picture in pictures)
    return (
        f"{name}: {len(pictures)} pictures ({documents} of documents) from {sources} files, "
        f"each looked for among {len(exam.gallery)}"
    )


def _counted(embed: Embed, count: Callable[[int], object]) -> Embed:
    """Returns the same embedder, which also reports how many pictures it has embedded."""

    def counted(pictures: Sequence[Image.Image], max_tokens: int) -> NDArray[np.float32]:
        vectors = embed(pictures, max_tokens)
        count(len(pictures))
        return vectors

    return counted


def untrained() -> Checkpoint:
    """Returns the network of packlight-tiny with its initial random weights."""
    tensors = tiny.seeded_tensors()
    return Checkpoint("untrained", tiny.CONFIG, tensors, tiny.PREPROCESSING, digest(tensors))


if __name__ == "__main__":
    sys.exit(main())
