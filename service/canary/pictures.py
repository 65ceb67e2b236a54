"""The canary's pictures, drawn with whole numbers: the same pixels on every machine. Pure.

They differ in what they show and in shape, so that no two have nearly the same vector.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
_Field = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Drawing:
    """grid: its shape in patches, `(grid_h, grid_w)`; a model may want another. paint: from the rows and columns of all
    pixels, int64 `[H, 1]` and `[1, W]`, to red, green and blue, each of a shape that broadcasts to `[H, W]`."""

    name: str
    grid: tuple[int, int]
    paint: Callable[[_Field, _Field], tuple[_Field, _Field, _Field]]

    def pixels(self, height: int, width: int) -> Pixels:
        """uint8 `[height, width, 3]`."""
        y, x = np.arange(height, dtype=np.int64)[:, None], np.arange(width, dtype=np.int64)[None, :]
        channels = [np.broadcast_to(channel, (height, width)) for channel in self.paint(y, x)]
        return np.ascontiguousarray(np.stack(channels, axis=-1).clip(0, 255).astype(np.uint8))


def _icon(y: _Field, x: _Field) -> tuple[_Field, _Field, _Field]:
    """A white disk with a red core on blue."""
    height, width = len(y), x.shape[1]
    far = (2 * y - height) ** 2 * width**2 + (2 * x - width) ** 2 * height**2
    scale = height**2 * width**2
    disk, core = far * 4 < scale * 3, far * 9 < scale
    return np.where(disk, 255, 20), np.where(core, 30, np.where(disk, 255, 60)), np.where(core, 40, 200 + 55 * disk)


def _page(y: _Field, x: _Field) -> tuple[_Field, _Field, _Field]:
    """Lines of black words on white, under a heading."""
    height, width = len(y), x.shape[1]
    line, column = y * 16 // height, x * 40 // width
    words = (_noise(line, column) > 70) & (column > 1) & (column < 38)
    heading = (line == 1) & (column > 3) & (column < 26)
    ink = np.where(heading | ((line > 2) & (line < 15) & (y * 48 // height % 3 < 2) & words), 25, 250)
    return ink, ink, ink - 6


def _photograph(y: _Field, x: _Field) -> tuple[_Field, _Field, _Field]:
    """A bright sky over hills, with grain."""
    height, width = len(y), x.shape[1]
    down = y * 256 // height
    across = x * 256 // width
    ridge = 120 + (across * (255 - across) >> 8) + (_noise(across >> 4, across >> 6) >> 4)
    land = down > ridge
    grain = (_noise(y, x) >> 4) + (_noise(y >> 3, x >> 3) >> 3)
    red = np.where(land, 70 + (down >> 3), 120 + (down >> 1))
    green = np.where(land, 90 + (across >> 3), 150 + (down >> 2))
    blue = np.where(land, 40, 225 - (down >> 3))
    return red + grain - 20, green + grain - 20, blue + grain - 20


def _panorama(y: _Field, x: _Field) -> tuple[_Field, _Field, _Field]:
    """Upright bands of all colours."""
    band = x * 12 // x.shape[1]
    return 30 + band * 83 % 226 + 0 * y, 20 + band * 149 % 236 + 0 * y, 250 - band * 20


def _receipt(y: _Field, x: _Field) -> tuple[_Field, _Field, _Field]:
    """A long strip of orange and black squares that fades to the bottom."""
    height, width = len(y), x.shape[1]
    square = (y * 30 // height + x * 2 // width) % 2
    light = 256 - y * 160 // height
    return light * (20 + 220 * square) >> 8, light * (15 + 120 * square) >> 8, light * 25 >> 8


def _weave(y: _Field, x: _Field) -> tuple[_Field, _Field, _Field]:
    """Fine green and violet threads across one another."""
    thread = ((y + x) // 3 % 2) * 90 + ((y - x) // 5 % 2) * 60
    return 60 + thread, 200 - thread, 90 + (thread >> 1) + 60 * (y // 4 % 2)


def _noise(y: _Field, x: _Field) -> _Field:
    """0 to 255, as good as random, and always the same."""
    mixed = (y * 73_856_093 + 19_349_663) ^ (x * 83_492_791 + 12_582_917)
    mixed = (mixed ^ (mixed >> 13)) * 1_274_126_177 & 0xFFFFFFFF
    return (mixed ^ (mixed >> 16)) & 255


DRAWINGS = (
    Drawing("icon", (3, 3), _icon),
    Drawing("page", (8, 6), _page),
    Drawing("panorama", (1, 20), _panorama),
    Drawing("photograph", (6, 8), _photograph),
    Drawing("receipt", (20, 1), _receipt),
    Drawing("weave", (4, 5), _weave),
)
TEXTS = ("a canary in a cage", "Rechnung Nr. 4711 vom 12. März")


def patch_rows(pixels: Pixels, patch_size: int) -> Pixels:
    """uint8 `[N, 3*P*P]` of pixels whose sides are multiples of P, as `model.images.patches` cuts them."""
    height, width, _ = pixels.shape
    grid_h, grid_w = height // patch_size, width // patch_size
    patches = pixels.reshape(grid_h, patch_size, grid_w, patch_size, 3).swapaxes(1, 2)
    return patches.reshape(grid_h * grid_w, 3 * patch_size**2)
