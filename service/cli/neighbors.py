"""`packlight embed --neighbors`: which files of a folder are nearest to each image, and how they are printed.

Does not know how files become vectors.
"""

import argparse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from model.images.image_files import FolderFiles
from service.cli.files import files_of, not_read
from service.jobs.rows import Picture
from service.names import SuffixCounts, one_line
from service.settings.names import SettingsError

if TYPE_CHECKING:
    from service.jobs.rows import Embedded

DEFAULT_TOP = 5


def add_neighbor_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--neighbors",
        type=existing_folder,
        metavar="FOLDER",
        help="print the nearest files of a folder for each",
    )
    parser.add_argument(
        "--top", type=count, metavar="N", help=f"how many, with --neighbors or --html (default: {DEFAULT_TOP})"
    )


def existing_folder(value: str) -> Path:
    if not Path(value).is_dir():
        raise argparse.ArgumentTypeError(f"{value} is not a folder")
    return Path(value)


def count(value: str) -> int:
    if not value.isdecimal() or int(value) < 1:
        raise argparse.ArgumentTypeError(f"{value!r} is not a number from 1 up")
    return int(value)


@dataclass(frozen=True, slots=True)
class NeighborSearch:
    """Images, and the files of a folder that may be near them. Two paths to one file are the same file."""

    images: Sequence[Path]
    folder: Path
    found: FolderFiles
    top: int = DEFAULT_TOP

    @classmethod
    def asked(cls, options: argparse.Namespace, images: Sequence[Path]) -> Self | None:
        """The search for `images` that the command line asks for, or None.

        Raises `SettingsError` if its options do not agree.
        """
        if options.neighbors is None:
            return None
        if options.out:
            raise SettingsError("--neighbors prints files and --out writes vectors: ask for one of them")
        if options.texts:
            raise SettingsError("--neighbors takes images; `packlight search` finds pictures by a text")
        if options.no_normalize:
            raise SettingsError("--neighbors compares vectors of length 1: it does not go with --no-normalize")
        found = files_of(options.neighbors, "searched")
        return cls(images, options.neighbors, found, options.top or DEFAULT_TOP)

    def pictures(self, given: Sequence[Picture]) -> list[Picture]:
        """The pictures to embed: those of the folder, and those that are `given`, each once."""
        unreadable = [Picture(str(path), error=reason) for path, reason in self.found.unreadable]
        found = [Picture(str(path), path) for path in self.found.images]
        once = {Path(picture.path).resolve(): picture for picture in (*found, *given) if not picture.error}
        return [*once.values(), *(picture for picture in given if picture.error), *unreadable]

    @property
    def not_read(self) -> list[str]:
        """Which files of the folder are not searched, and how they would be, in sentences; none if all are."""
        return not_read(SuffixCounts(self.found.others), "searched")

    def text(self, done: Iterable["Embedded"]) -> str:
        """A line for each image that has a vector, and below it a line for each of its neighbors, the nearest first.

        Raises `SettingsError` if no file of the folder has a vector.
        """
        vectors = {Path(result.path).resolve(): result.embedding for result in done}
        gallery = {path.resolve(): path for path in self.found.images if path.resolve() in vectors}
        if not gallery:
            raise SettingsError(f"{one_line(self.folder)} holds no image that can be embedded")
        lines = []
        for image in self.images:
            if image.resolve() in vectors:
                lines.append(f"{one_line(image)}\n")
                lines += self._neighbors(image.resolve(), gallery, vectors)
        return "".join(lines)

    def _neighbors(
        self, image: Path, gallery: Mapping[Path, Path], vectors: Mapping[Path, NDArray[np.float32]]
    ) -> list[str]:
        others = [path for path in gallery if path != image]
        if not others:
            return [f"  {one_line(self.folder)} holds no other image\n"]
        ranked = nearest(vectors[image], np.stack([vectors[path] for path in others]), self.top)
        return [f"  {similarity:6.3f}  {one_line(gallery[others[index]])}\n" for index, similarity in ranked]


def nearest(vector: NDArray[np.float32], gallery: NDArray[np.float32], top: int) -> list[tuple[int, float]]:
    """At most `top` rows of float32 `[B, D]` that are nearest to the vector `[D]`, with their cosines, best first.

    All vectors have length 1. Equally near rows keep their order.
    """
    similarity = gallery @ vector
    order = np.argsort(-similarity, kind="stable")[:top]
    return [(int(index), float(similarity[index])) for index in order]
