"""How a class of processors makes squares of pictures, from the sizes, the crop and the filter in its file.

Knows nothing of means, weights or families.
"""

from typing import Literal

from model.encoders.parts.fields import Fields
from model.sizing.geometry import FixedInput, Resample

Resize = Literal["squash", "shortest_edge"]
"""As in `FixedInput`."""

# Classes that cut squares out unless a file says otherwise.
_CROPPING = ("CLIP", "Bit")
# Pillow's filters by their numbers.
_RESAMPLE: dict[int, Resample] = {
    0: "nearest",
    1: "lanczos",
    2: "bilinear",
    3: "bicubic",
    4: "box",
    5: "hamming",
}


def read_square(given: Fields, name: str) -> FixedInput:
    """How the processor of this name makes squares. Raises `CheckpointError`."""
    number: Resize = "squash" if name.endswith("ViT") else "shortest_edge"
    crops = (given if name in _CROPPING else given.over({"do_center_crop": False})).flag("do_center_crop")
    resample = given.get("resample")
    if not isinstance(resample, int) or resample not in _RESAMPLE:
        raise given.error("resample", f"it is one of {', '.join(map(str, _RESAMPLE))}")
    resize, resize_side = resize_of(given, number=number)
    side = _crop_side(given) if crops else resize_side
    if resize == "shortest_edge" and not crops:
        raise given.error("do_center_crop", "with a size of a shortest_edge alone pictures would not become squares")
    if side > resize_side:
        raise given.error("crop_size", f"it is larger than what pictures are resized to, {resize_side} pixels")
    return FixedInput(side=side, resize=resize, resize_side=resize_side, resample=_RESAMPLE[resample])


def resize_of(fields: Fields, *, number: Resize) -> tuple[Resize, int]:
    """What pictures are resized to. number: what a plain number means. In old files of CLIP it is a shortest edge.

    Raises `CheckpointError`.
    """
    size = fields.get("size")
    if is_side(size):
        return number, size
    if isinstance(size, dict) and size.keys() == {"shortest_edge"} and is_side(size["shortest_edge"]):
        return "shortest_edge", size["shortest_edge"]
    if side := square_side(size):
        return "squash", side
    raise fields.error("size", "it is a square's height and width, or a shortest_edge")


def _crop_side(fields: Fields) -> int:
    size = fields.get("crop_size")
    if side := size if is_side(size) else square_side(size):
        return side
    raise fields.error("crop_size", "it is a square's height and width")


def square_side(size: object) -> int | None:
    """The side of a square's height and width; None for anything else."""
    if isinstance(size, dict) and size.keys() == {"height", "width"} and size["height"] == size["width"]:
        side: int | None = size["height"] if is_side(size["height"]) else None
        return side
    return None


def is_side(value: object) -> bool:
    """Whether it is a number of pixels."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
