"""Real pictures that take no part in training: those in scikit-image and scikit-learn, and those of a folder.

Knows nothing of encoders or of the exam.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from model.errors import ImageError
from model.images.decode import decode_rgb
from model.images.image_files import image_files

Kind = Literal["photo", "document"]

# Pictures of scikit-image are left out if they are drawn (chessboards, the colour wheel), nearly uniform (a moving
# clock), or another view of the same scene (the right eye's motorcycle).
_PHOTOGRAPHS: dict[str, Sequence[str]] = {
    "skimage/data": (
        "astronaut.png",
        "brick.png",
        "camera.png",
        "cell.png",
        "chelsea.png",
        "coffee.png",
        "coins.png",
        "grass.png",
        "gravel.png",
        "hubble_deep_field.jpg",
        "ihc.png",
        "moon.png",
        "motorcycle_left.png",
        "retina.jpg",
        "rocket.jpg",
    ),
    "sklearn/datasets/images": ("china.jpg", "flower.jpg"),
}
_DOCUMENTS: dict[str, Sequence[str]] = {"skimage/data": ("page.png", "text.png")}
_DISTRIBUTIONS = {"skimage": "scikit-image", "sklearn": "scikit-learn"}

_CUTS = 24  # scenes per photograph, about
# Fewer scenes of photographs that look alike everywhere, so that scenes are distinct.
_ALIKE = {"brick.png": 9, "grass.png": 9, "gravel.png": 9, "hubble_deep_field.jpg": 9}
_LEAST_SIDE = 80  # pixels, about, even in a small photograph
_LEAST_DEVIATION = 8.0  # standard deviation of gray, of 255; sky and the dark around a retina have less

_LARGEST_SIDE = 768  # pixels; even a crop has more than its budget shows. Copies of a 7,000-pixel scan fill memory
_MAX_DECODE_PIXELS = 50_000_000
_DOCUMENT_NAMES = ("receipt", "document", "page", "scan")


class PicturesMissing(Exception):
    """There is nothing to judge by: a package is not installed, or a folder has no readable picture."""


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """One picture in mode RGB. source: the file it is, or was cut from. Pictures of one source may look alike."""

    name: str
    source: str
    kind: Kind
    image: Image.Image


@cache
def built_in_pictures() -> tuple[Picture, ...]:
    """Returns scenes cut from the photographs and documents of the two packages.

    No two scenes overlap, and none is nearly uniform. Raises `PicturesMissing` if a package is not installed.
    """
    pictures: list[Picture] = []
    named: tuple[tuple[Kind, dict[str, Sequence[str]]], ...] = (("photo", _PHOTOGRAPHS), ("document", _DOCUMENTS))
    for kind, by_folder in named:
        for folder, names in by_folder.items():
            for name in names:
                photograph = decode_rgb((_package_folder(folder) / name).read_bytes(), max_decode_pixels=10**7)
                for number, box in enumerate(scene_boxes(photograph, _ALIKE.get(name, _CUTS))):
                    pictures.append(Picture(f"{name}#{number}", name, kind, photograph.crop(box)))
    return tuple(pictures)


def _package_folder(folder: str) -> Path:
    package, _, inner = folder.partition("/")
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise PicturesMissing(f"the built-in pictures need {_DISTRIBUTIONS[package]}: pip install -e '.[dev]'")
    return Path(spec.submodule_search_locations[0]) / inner


def scene_boxes(photograph: Image.Image, count: int) -> list[tuple[int, int, int, int]]:
    """Returns about `count` nearly square cells `(left, top, right, bottom)` of a grid, without nearly uniform ones."""
    width, height = photograph.size
    side = max(_LEAST_SIDE, math.sqrt(width * height / count))
    columns, rows = max(1, round(width / side)), max(1, round(height / side))
    cells = [
        (width * column // columns, height * row // rows, width * (column + 1) // columns, height * (row + 1) // rows)
        for row in range(rows)
        for column in range(columns)
    ]
    gray = np.asarray(photograph.convert("L"), np.float32)
    return [
        (left, top, right, bottom)
        for left, top, right, bottom in cells
        if gray[top:bottom, left:right].std() >= _LEAST_DEVIATION
    ]


def folder_pictures(folder: Path) -> list[Picture]:
    """Returns the readable pictures of a folder and its subfolders, by name, at most 768 pixels a side.

    A file whose name begins with receipt, document, page or scan is a document, any other a photo. Raises
    `PicturesMissing` if there is none.
    """
    pictures = []
    for path in image_files(folder):
        try:
            image = decode_rgb(path.read_bytes(), max_decode_pixels=_MAX_DECODE_PIXELS)
        except (ImageError, OSError):
            continue
        image.thumbnail((_LARGEST_SIDE, _LARGEST_SIDE), Image.Resampling.LANCZOS)
        name = str(path.relative_to(folder))
        kind: Kind = "document" if path.name.lower().startswith(_DOCUMENT_NAMES) else "photo"
        pictures.append(Picture(name, name, kind, image))
    if not pictures:
        raise PicturesMissing(f"{folder} has no readable picture")
    return pictures
