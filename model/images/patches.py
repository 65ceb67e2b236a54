"""From a decoded picture and its plan to uint8 patch rows: resizes, crops, pads and cuts.

Sizes are `(height, width)` in pixels and grids `(grid_h, grid_w)` in patches, rows first. Knows nothing of files, packs
or normalising, which happens on the device.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.sizing.anyres import fitted_size
from model.sizing.geometry import FixedInput, Geometry, Resample
from model.sizing.plan import ImagePlan, picture_size

_FILTERS: dict[Resample, Image.Resampling] = {
    "nearest": Image.Resampling.NEAREST,
    "lanczos": Image.Resampling.LANCZOS,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}


Box = tuple[float, float, float, float]
"""Where a picture lies in an image: left, top, right, bottom in pixels, possibly fractions."""


def patch_rows(
    image: Image.Image,
    plan: ImagePlan,
    geometry: Geometry,
    *,
    box: Box | None = None,
    rows: NDArray[np.uint8] | None = None,
) -> NDArray[np.uint8]:
    """A picture as patch rows: uint8 `[N, 3*P*P]`, contiguous and writable.

    image: in mode RGB, or L for gray, which gives the same rows in a third of the time. It has the planned size, or is
    the planned picture shrunk to fill `box`. rows: where to write them, instead of to new memory. Segments lie end to
    end in the plan's order. The patches of a segment follow its grid row by row; values inside a patch are in the order
    `(ph, pw, channel)`.
    """
    if rows is None:
        rows = np.empty((plan.tokens, 3 * geometry.patch_size**2), dtype=np.uint8)
    if plan.strategy == "anyres":
        _cut_tiles(image, box, plan, geometry, rows)
    elif plan.strategy == "square" and (square := geometry.square_input(plan.resized[0])):
        _cut(_square_input(image, box, plan.size, square), rows, geometry.patch_size)
    elif plan.strategy == "native" and geometry.shrink and geometry.shrink.pads:
        size = picture_size(plan.size, geometry=geometry, budget=plan.budget)
        _cut(_on_black(_resized(image, box, size, geometry.resample), plan.resized), rows, geometry.patch_size)
    else:
        _cut(_resized(image, box, plan.resized, geometry.resample), rows, geometry.patch_size)
    return rows


def picture_of(rows: NDArray[np.uint8], plan: ImagePlan, geometry: Geometry) -> Image.Image:
    """The picture that `patch_rows` has cut: what the model sees, in mode RGB. Under `anyres` as it lies on the tiles,
    without the black around it."""
    if plan.strategy != "anyres":
        return Image.fromarray(_joined(rows, plan.segments[0].grid, geometry.patch_size))
    tile_h, tile_w = (side * geometry.patch_size for side in geometry.tile_grid)
    tiles = [
        (segment, _joined(rows[start : start + segment.tokens], segment.grid, geometry.patch_size))
        for segment, start in zip(plan.segments, plan.offsets, strict=False)
        if segment.kind == "tile"
    ]
    height = (1 + max(segment.row for segment, _ in tiles)) * tile_h
    width = (1 + max(segment.column for segment, _ in tiles)) * tile_w
    canvas = Image.new("RGB", (width, height))
    for segment, pixels in tiles:
        canvas.paste(Image.fromarray(pixels), (segment.column * tile_w, segment.row * tile_h))
    fitted_h, fitted_w = fitted_size(plan.size, (height, width))
    top, left = (height - fitted_h) // 2, (width - fitted_w) // 2
    return canvas.crop((left, top, left + fitted_w, top + fitted_h))


def largest_resize(plan: ImagePlan, geometry: Geometry) -> tuple[int, int]:
    """The size, `(height, width)` in pixels, to which `patch_rows` resizes a picture, or the larger of two."""
    if plan.strategy == "anyres":
        assert geometry.tile_side, "a model with AnyRes has a tile"
        height, width = fitted_size(plan.size, plan.resized)
        return max(height, geometry.tile_side), max(width, geometry.tile_side)
    if plan.strategy == "square" and (square := geometry.square_input(plan.resized[0])):
        return _uncropped_size(plan.size, square)
    return plan.resized


def _cut_tiles(
    image: Image.Image, box: Box | None, plan: ImagePlan, geometry: Geometry, rows: NDArray[np.uint8]
) -> None:
    """The thumbnail is the picture squashed onto one tile. The tiles cut up a canvas on which it keeps its shape."""
    assert geometry.tile_side, "a model with AnyRes has a tile"
    side = geometry.tile_side
    fitted = _resized(image, box, fitted_size(plan.size, plan.resized), geometry.resample)
    canvas = _on_black(fitted, plan.resized, _centre(fitted, plan.resized))
    for segment, start in zip(plan.segments, plan.offsets, strict=False):
        if segment.kind == "thumbnail":
            pixels = _resized(image, box, (side, side), geometry.resample)
        else:
            top, left = segment.row * side, segment.column * side
            pixels = canvas[top : top + side, left : left + side]
        _cut(pixels, rows[start : start + segment.tokens], geometry.patch_size)


def _on_black(pixels: NDArray[np.uint8], size: tuple[int, int], corner: tuple[int, int] = (0, 0)) -> NDArray[np.uint8]:
    """The picture on a black canvas. corner: where its top left lies.

    Black rather than the gray that normalising makes zero, because the processors that pad do so before they normalise.
    """
    (height, width), (top, left) = pixels.shape[:2], corner
    canvas = np.zeros((*size, 3), dtype=np.uint8)
    canvas[top : top + height, left : left + width] = pixels
    return canvas


def _centre(pixels: NDArray[np.uint8], size: tuple[int, int]) -> tuple[int, int]:
    """As LLaVA-NeXT's processor centres a picture: an odd pixel goes to the right and bottom."""
    return (size[0] - pixels.shape[0]) // 2, (size[1] - pixels.shape[1]) // 2


def _square_input(image: Image.Image, box: Box | None, size: tuple[int, int], square: FixedInput) -> NDArray[np.uint8]:
    """A square, made as Transformers' Pillow processors of SigLIP, CLIP and BiT make it."""
    height, width = _uncropped_size(size, square)
    top, left = (height - square.side) // 2, (width - square.side) // 2
    pixels = _resized(image, box, (height, width), square.resample)
    return pixels[top : top + square.side, left : left + square.side]


def _uncropped_size(size: tuple[int, int], square: FixedInput) -> tuple[int, int]:
    """The size that a picture is resized to before a square is cut out of its middle."""
    if square.resize == "squash":
        return square.resize_side, square.resize_side
    height, width = size
    if height > width:
        return int(square.resize_side * height / width), square.resize_side
    return square.resize_side, int(square.resize_side * width / height)


def _resized(image: Image.Image, box: Box | None, size: tuple[int, int], resample: Resample) -> NDArray[np.uint8]:
    """uint8 `[height, width, 3]`."""
    resized = image.resize((size[1], size[0]), _FILTERS[resample], box=box)
    return np.asarray(resized if resized.mode == "RGB" else resized.convert("RGB"))


def _cut(pixels: NDArray[np.uint8], rows: NDArray[np.uint8], patch_size: int) -> None:
    """Writes the patches of uint8 `[height, width, 3]` into `rows`, without the strips at the edges that fill none."""
    grid_h, grid_w = pixels.shape[0] // patch_size, pixels.shape[1] // patch_size
    whole = pixels[: grid_h * patch_size, : grid_w * patch_size]
    # Copied a row of a patch at a time, in half the time of values one by one.
    patch_row = np.dtype((np.void, 3 * patch_size))
    strips = whole.reshape(grid_h, patch_size, grid_w, 3 * patch_size).view(patch_row)  # [grid_h, P, grid_w, 1]
    rows.reshape(grid_h, grid_w, patch_size, 3 * patch_size).view(patch_row)[...] = strips.swapaxes(1, 2)


def _joined(rows: NDArray[np.uint8], grid: tuple[int, int], patch_size: int) -> NDArray[np.uint8]:
    """The reverse of `_cut`: uint8 `[grid_h*P, grid_w*P, 3]`."""
    patches = rows.reshape(*grid, patch_size, patch_size, 3).swapaxes(1, 2)
    return patches.reshape(grid[0] * patch_size, grid[1] * patch_size, 3)
