"""JPEGs to decode: photographs and printed pages made from scikit-image's pictures, or the JPEGs of a folder.

A strongly enlarged photograph is smooth and would be cheap to decode. So a photograph is only doubled in size, tiled
with its mirror images until the picture is full, and given a camera's noise. A page is enlarged until its letters are
as large as a scanner's. Every figure comes with the bytes of its files: a fast decode, too, reads all of them.
"""

import argparse
from collections.abc import Iterable
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
    """Encoded pictures of one kind."""

    kind: str
    pictures: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class _Kind:
    names: tuple[str, ...]
    size: tuple[int, int]  # (height, width)
    quality: int
    noise: float  # standard deviation, out of 255
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
    parser.add_argument("--folder", type=Path, metavar="DIR", help="your own JPEGs instead of those made here")


def chosen(options: argparse.Namespace) -> list[Jpegs]:
    return of_folder(options.folder) if options.folder else made()


def made(kinds: Iterable[str] = _KINDS) -> list[Jpegs]:
    """Every kind, or some; each call makes the same bytes. Needs scikit-image, a development dependency."""
    return [Jpegs(name, tuple(_made(_KINDS[name]))) for name in kinds]


def of_folder(folder: Path) -> list[Jpegs]:
    """The JPEGs of a folder, grouped by megapixels. Raises `SystemExit` if there is none."""
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
    """`[height, width]` or `[height, width, 3]`: the picture tiled with its mirror images up to `size`."""
    more = [(0, max(0, wanted - had)) for wanted, had in zip(size, pixels.shape, strict=False)]
    padded = np.pad(pixels, [*more, (0, 0)][: pixels.ndim], mode="symmetric")
    return padded[: size[0], : size[1]]
