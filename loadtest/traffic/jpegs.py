"""JPEGs to decode: photographs and printed pages, made of those that scikit-image carries, or those of a folder.

A photograph enlarged is smooth, and would be cheap to decode. So it is enlarged to twice its size only and laid side by
side with its mirror images until the picture is full, with a camera's noise; a page so that its letters are as large as
a scanner's. What that takes in bytes is told with every figure: a fast decode has to go through all of them.
"""

import argparse
from dataclasses import dataclass
from importlib.resources import files
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_PHOTOGRAPHS = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg")
_PAGES = ("page.png",)


@dataclass(frozen=True, slots=True)
class Jpegs:
    """Pictures of a kind, as files."""

    kind: str
    pictures: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class _Kind:
    names: tuple[str, ...]
    size: tuple[int, int]  # (height, width)
    quality: int
    noise: float  # standard deviation, of 255
    enlarged: int = 2
    mode: str = "RGB"


_KINDS = {
    "photo, 0.2 MP": _Kind(_PHOTOGRAPHS, (400, 500), 90, noise=2.0),
    "photo, 12 MP, quality 80": _Kind(_PHOTOGRAPHS, (3000, 4000), 80, noise=2.0),
    "photo, 12 MP, quality 93": _Kind(_PHOTOGRAPHS, (3000, 4000), 93, noise=2.0),
    "scan, 5.4 MP, gray": _Kind(_PAGES, (2750, 1960), 75, noise=1.0, enlarged=5, mode="L"),
    "scan, 5.4 MP, colour": _Kind(_PAGES, (2750, 1960), 75, noise=1.0, enlarged=5),
    "scan, A4 at 600 dpi, colour": _Kind(_PAGES, (7016, 4961), 75, noise=1.0, enlarged=5),
}


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--folder", type=Path, metavar="DIR", help="JPEGs of your own, in place of those made here")


def chosen(options: argparse.Namespace) -> list[Jpegs]:
    return of_folder(options.folder) if options.folder else made()


def made() -> list[Jpegs]:
    """Every kind, the same with each call. Needs scikit-image, of the development dependencies."""
    return [Jpegs(name, tuple(_made(kind))) for name, kind in _KINDS.items()]


def of_folder(folder: Path) -> list[Jpegs]:
    """The JPEGs of a folder by megapixels. Raises `SystemExit` if there is none."""
    found: dict[str, list[bytes]] = {}
    for path in sorted(folder.iterdir()):
        data = path.read_bytes() if path.is_file() else b""
        if data.startswith(b"\xff\xd8\xff"):
            with Image.open(BytesIO(data)) as image:
                found.setdefault(_class_of(image.width * image.height / 1e6), []).append(data)
    if not found:
        raise SystemExit(f"--folder {folder}: no JPEG")
    return [Jpegs(kind, tuple(found[kind])) for kind in sorted(found)]


def _class_of(megapixels: float) -> str:
    limit = next((limit for limit in (0.5, 2, 8, 20) if megapixels < limit), None)
    return f"under {limit} MP" if limit else "20 MP and over"


def _made(kind: _Kind) -> list[bytes]:
    rng = np.random.default_rng(0)
    pictures = []
    for name in kind.names:
        with Image.open(BytesIO((files("skimage") / "data" / name).read_bytes())) as stored:
            sides = (kind.enlarged * stored.width, kind.enlarged * stored.height)
            image = stored.convert(kind.mode).resize(sides, Image.Resampling.BICUBIC)
        pixels = _filled(np.asarray(image), kind.size).astype(np.float32)
        noise = rng.normal(0, kind.noise, kind.size).astype(np.float32)
        pixels += noise if pixels.ndim == 2 else noise[..., None]
        buffer = BytesIO()
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=kind.quality)
        pictures.append(buffer.getvalue())
    return pictures


def _filled(pixels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """The picture and its mirror images, as often as they fit."""
    more = [(0, max(0, wanted - had)) for wanted, had in zip(size, pixels.shape, strict=False)]
    padded = np.pad(pixels, [*more, (0, 0)][: pixels.ndim], mode="symmetric")
    return padded[: size[0], : size[1]]
