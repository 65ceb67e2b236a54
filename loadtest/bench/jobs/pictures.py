"""Pictures by the thousand: `python -m loadtest.bench.jobs.pictures FOLDER --count 20000`.

Each is a part of a real photograph that scikit-image or scikit-learn carries, turned, scaled and changed in brightness,
so no two have the same bytes but those that are meant to. A hundred are about 60 JPEGs and 31 pictures in other
formats; 5 are broken, and 4 repeat the bytes of an earlier one. The same count and seed make the same files.
"""

import argparse
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache, partial
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance

from model.kernels.hardware import usable_cores

_PHOTOGRAPHS = (
    *(("skimage", f"data/{name}") for name in ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "page.png")),
    *(("sklearn", f"datasets/images/{name}") for name in ("china.jpg", "flower.jpg")),
)
_SIDES = (40, 480)
_FOLDER_FILES = 1000


def _saved(image: Image.Image, format: str, **options: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def _jpeg(image: Image.Image) -> bytes:
    return _saved(image, "JPEG", quality=85)


def _sixteen_bits(image: Image.Image) -> bytes:
    gray = np.asarray(image.convert("L"), np.uint16) * 257
    return _saved(Image.fromarray(gray), "PNG", compress_level=1)


def _with_alpha(image: Image.Image) -> bytes:
    image = image.convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    return _saved(image, "PNG", compress_level=1)


Encoder = Callable[[Image.Image], bytes]
# Suffix, share of a hundred, and what writes it. The last four cannot be decoded.
_KINDS: tuple[tuple[str, int, Encoder], ...] = (
    (".jpg", 52, _jpeg),
    (".jpeg", 4, lambda image: _saved(image.convert("L"), "JPEG")),
    (".jpg", 4, lambda image: _saved(image, "JPEG", progressive=True)),
    (".png", 6, lambda image: _saved(image, "PNG", compress_level=1)),
    (".png", 5, lambda image: _saved(image.quantize(64), "PNG", compress_level=1)),
    (".png", 3, _sixteen_bits),
    (".png", 3, _with_alpha),
    (".webp", 5, lambda image: _saved(image, "WEBP", method=0)),
    (".avif", 2, lambda image: _saved(image, "AVIF", speed=10)),
    (".jp2", 2, lambda image: _saved(image, "JPEG2000")),
    (".gif", 2, lambda image: _saved(image.quantize(32), "GIF")),
    (".tiff", 2, lambda image: _saved(image, "TIFF")),
    (".bmp", 1, lambda image: _saved(image, "BMP")),
    (".jpg", 2, lambda image: _jpeg(image)[: -len(_jpeg(image)) // 2]),
    (".png", 1, lambda image: _saved(image, "PNG", compress_level=1)[:-300]),
    (".webp", 1, lambda image: _saved(image, "WEBP", method=0)[:40]),
    (".jpg", 1, lambda image: b"not a picture but " + _jpeg(image)[:40]),
)
_REPEATS = 4  # of a hundred


def picture(number: int, seed: int) -> tuple[str, bytes]:
    """A suffix and the bytes of one picture, the same for the same number and seed."""
    random = np.random.default_rng((seed, number))
    if number and random.random() < _REPEATS / 100:
        return picture(int(random.integers(max(0, number - 500), number)), seed)
    shares = np.array([share for _, share, _ in _KINDS], float)
    suffix, _, encoder = _KINDS[random.choice(len(_KINDS), p=shares / shares.sum())]
    return suffix, encoder(_altered(random))


def _altered(random: np.random.Generator) -> Image.Image:
    whole = _photograph(int(random.integers(len(_PHOTOGRAPHS))))
    width, height = (int(side * random.uniform(0.3, 1)) for side in whole.size)
    left, top = int(random.integers(whole.width - width + 1)), int(random.integers(whole.height - height + 1))
    scale = np.exp(random.uniform(*np.log(_SIDES))) / max(width, height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    part = whole.resize(size, Image.Resampling.BILINEAR, box=(left, top, left + width, top + height))
    if random.random() < 0.5:
        part = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return ImageEnhance.Brightness(part).enhance(random.uniform(0.6, 1.4))


@lru_cache
def _photograph(number: int) -> Image.Image:
    package, name = _PHOTOGRAPHS[number]
    with Image.open(BytesIO((files(package) / name).read_bytes())) as image:
        return image.convert("RGB")


def write(folder: Path, count: int, seed: int) -> None:
    """Writes pictures into folders of a thousand below `folder`, on all cores."""
    starts = range(0, count, _FOLDER_FILES)
    with ProcessPoolExecutor(usable_cores()) as pool:
        for _ in pool.map(partial(_write_some, folder, count, seed), starts):
            pass


def _write_some(folder: Path, count: int, seed: int, start: int) -> None:
    below = folder / f"{start // _FOLDER_FILES:04d}"
    below.mkdir(parents=True, exist_ok=True)
    for number in range(start, min(start + _FOLDER_FILES, count)):
        suffix, data = picture(number, seed)
        (below / f"{number:07d}{suffix}").write_bytes(data)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m loadtest.bench.jobs.pictures", description=__doc__)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--count", type=int, default=20_000, metavar="N", help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    given = parser.parse_args()
    write(given.folder, given.count, given.seed)
    sys.stdout.write(f"{given.count} pictures in {given.folder}\n")


if __name__ == "__main__":
    main()
