"""From an RGB picture and its plan to uint8 patch rows: resized, cropped, padded and cut, by way of Pillow.

Sizes are `(height, width)` in pixels and grids `(grid_h, grid_w)` in patches, rows first. Knows nothing of files, of
packs or of normalising, which happens on the device.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.anyres import fitted_size
from model.geometry import FixedInput, Geometry, Resample
from model.sizing import ImagePlan

_FILTERS: dict[Resample, Image.Resampling] = {
    "nearest": Image.Resampling.NEAREST,
    "lanczos": Image.Resampling.LANCZOS,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}


def patch_rows(image: Image.Image, plan: ImagePlan, geometry: Geometry) -> NDArray[np.uint8]:
    """An RGB image of the planned size as patch rows: uint8 `[N, 3*P*P]`, contiguous and writable.

    The plan's segments lie end to end, in its order. Patches go along the grid of a segment row by row; inside a patch
    the order is `(ph, pw, channel)`.
    """
    rows = np.empty((plan.tokens, 3 * geometry.patch_size**2), dtype=np.uint8)
    if plan.strategy == "anyres":
        _cut_tiles(image, plan, geometry, rows)
    elif plan.strategy == "square" and geometry.fixed:
        _cut(_fixed_input(image, geometry.fixed), rows, geometry.patch_size)
    else:
        _cut(_resized(image, plan.resized, geometry.resample), rows, geometry.patch_size)
    return rows


def _cut_tiles(image: Image.Image, plan: ImagePlan, geometry: Geometry, rows: NDArray[np.uint8]) -> None:
    """The whole picture squashed onto one tile, then the tiles of the canvas that it lies on with its shape kept."""
    assert geometry.tile_side, "a model with AnyRes has a tile"
    side = geometry.tile_side
    canvas = _on_black(_resized(image, fitted_size(plan.size, plan.resized), geometry.resample), plan.resized)
    for segment, start in zip(plan.segments, plan.offsets, strict=False):
        if segment.kind == "thumbnail":
            pixels = _resized(image, (side, side), geometry.resample)
        else:
            top, left = segment.row * side, segment.column * side
            pixels = canvas[top : top + side, left : left + side]
        _cut(pixels, rows[start : start + segment.tokens], geometry.patch_size)


def _on_black(pixels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """In the middle of a black canvas, an odd pixel at the right and the bottom, as LLaVA-NeXT's processor pads.

    Black, not the gray that normalising makes zero: that processor pads before it normalises.
    """
    height, width = pixels.shape[:2]
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    canvas = np.zeros((*size, 3), dtype=np.uint8)
    canvas[top : top + height, left : left + width] = pixels
    return canvas


def _fixed_input(image: Image.Image, fixed: FixedInput) -> NDArray[np.uint8]:
    """The square of a fixed model, as the Pillow processors of SigLIP and CLIP in Transformers make it."""
    height = width = fixed.resize_side
    if fixed.resize == "shortest_edge" and image.height > image.width:
        height = int(fixed.resize_side * image.height / image.width)
    elif fixed.resize == "shortest_edge":
        width = int(fixed.resize_side * image.width / image.height)
    top, left = (height - fixed.side) // 2, (width - fixed.side) // 2
    pixels = _resized(image, (height, width), fixed.resample)
    return pixels[top : top + fixed.side, left : left + fixed.side]


def _resized(image: Image.Image, size: tuple[int, int], resample: Resample) -> NDArray[np.uint8]:
    """uint8 `[height, width, 3]`."""
    return np.asarray(image.resize((size[1], size[0]), _FILTERS[resample]))


def _cut(pixels: NDArray[np.uint8], rows: NDArray[np.uint8], patch_size: int) -> None:
    """Writes the patches of uint8 `[height, width, 3]` into `rows`; what fills no patch at the edges is left out."""
    grid_h, grid_w = pixels.shape[0] // patch_size, pixels.shape[1] // patch_size
    whole = pixels[: grid_h * patch_size, : grid_w * patch_size]
    patches = whole.reshape(grid_h, patch_size, grid_w, patch_size, 3).swapaxes(1, 2)  # [grid_h, grid_w, P, P, 3]
    rows.reshape(grid_h, grid_w, patch_size, patch_size, 3)[...] = patches
