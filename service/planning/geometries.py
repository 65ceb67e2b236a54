"""Geometries by name, for planning without a loaded model. Each is as its model's own preprocessor has it.

Plain values. Knows nothing of weights, or of what the models are good for.
"""

from dataclasses import dataclass
from typing import Final

from model.sizing.geometry import FixedInput, Geometry


@dataclass(frozen=True, slots=True)
class NamedGeometry:
    """checkpoint: a hub id to serve, in order to measure milliseconds."""

    geometry: Geometry
    default_max_tokens: int
    checkpoint: str


def _fixed(patch_size: int, fixed: FixedInput, checkpoint: str) -> NamedGeometry:
    return NamedGeometry(Geometry.for_fixed(patch_size, fixed), (fixed.side // patch_size) ** 2, checkpoint)


def _qwen(patch_size: int, min_pixels: int, max_pixels: int, checkpoint: str) -> NamedGeometry:
    geometry = Geometry.for_merging(patch_size, 2, min_pixels=min_pixels, max_pixels=max_pixels)
    return NamedGeometry(geometry, max_pixels // patch_size**2, checkpoint)


# A name gives the input (`fixed336/14`: 336 pixels a side, patches of 14) or the merge (`qwen14x2`: 2×2 patches of 14).
GEOMETRIES: Final[dict[str, NamedGeometry]] = {
    "naflex16": NamedGeometry(Geometry.for_naflex(16, 256), 256, "google/siglip2-base-patch16-naflex"),
    "fixed336/14": _fixed(14, FixedInput(336, "shortest_edge", 336, "bicubic"), "openai/clip-vit-large-patch14-336"),
    "siglip512/16": _fixed(16, FixedInput(512, "squash", 512, "bilinear"), "google/siglip2-base-patch16-512"),
    "qwen14x2": _qwen(14, 56 * 56, 16_384 * 28 * 28, "Qwen/Qwen2.5-VL-7B-Instruct"),
    "qwen16x2": _qwen(16, 65_536, 16_777_216, "Qwen/Qwen3-VL-8B-Instruct"),
}
