"""How a checkpoint's pictures are prepared, from its preprocessor_config.json.

Refuses, by key, whatever asks for another preparation than `model.images` does. Knows nothing of weights.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from model.encoders.parts.fields import Fields
from model.encoders.parts.squares import is_side, read_square, resize_of, square_side
from model.sizing.geometry import Geometry
from model.sizing.shrink import Shrink

_Channels = tuple[float, float, float]

# The only supported preparation. The last two are what a processor of CLIP can do besides.
_BATCHED = {"do_resize": True, "do_rescale": True, "do_normalize": True, "rescale_factor": 1 / 255}
_PREPARED = _BATCHED | {"do_pad": False, "use_square_size": False}
# Normalisation of models that follow OpenAI's CLIP, and of those that map values from 0 to 1 to -1 to 1.
CLIP_NORMALISATION: dict[str, Any] = {
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
HALVES: dict[str, Any] = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """mean and std: of RGB values from 0 to 1. default_max_tokens: the cap of a picture if nobody gives one."""

    mean: _Channels
    std: _Channels
    geometry: Geometry
    default_max_tokens: int


def read_naflex(fields: Fields, *, patch_size: int) -> Preprocessing:
    """For a model that takes any grid. Missing keys are as for SigLIP 2."""
    processor(fields, ("Siglip2",))
    given = stated(fields).over(HALVES)
    given.require(_PREPARED | {"resample": 2, "patch_size": patch_size})
    default_max_tokens = fields.over({"max_num_patches": 256}).count("max_num_patches")
    mean, std = mean_and_std(given)
    return Preprocessing(mean, std, Geometry.for_naflex(patch_size, default_max_tokens), default_max_tokens)


def read_fixed(
    fields: Fields, defaults: Mapping[str, Any], *, own: tuple[str, ...], image_side: int, patch_size: int
) -> Preprocessing:
    """For a model that takes squares of `image_side` pixels.

    own: the family's classes. defaults: theirs, for null or missing keys. Other classes have others, so all keys must
    be there.
    """
    name = processor(fields, tuple(dict.fromkeys((*own, "CLIP", "Siglip", "Bit", "ViT"))))
    given = stated(fields).over(defaults) if name in own else stated(fields)
    given.require(_PREPARED)
    fixed = read_square(given, name)
    if fixed.side != image_side:
        key = "crop_size" if given.get("do_center_crop") else "size"
        raise given.error(key, f"config.json asks for pictures of {image_side} pixels a side")
    mean, std = mean_and_std(given)
    return Preprocessing(mean, std, Geometry.for_fixed(patch_size, fixed), (fixed.side // patch_size) ** 2)


def read_own_square(
    fields: Fields, defaults: Mapping[str, Any], *, names: tuple[str, ...], patch_size: int
) -> Preprocessing:
    """For a model that takes any grid, and whose own processor makes squares: of as many tokens as its default cap.

    defaults: without a file. A file must have all keys, since what a class takes for a missing one is not what the
    family was trained with. names: of the classes that are read.
    """
    name = processor(fields, names)
    given = stated(fields) if fields else fields.over(defaults)
    given.require(_PREPARED)
    own = read_square(given, name)
    if own.side < patch_size:
        raise given.error("crop_size" if given.get("do_center_crop") else "size", f"it holds no patch of {patch_size}")
    mean, std = mean_and_std(given)
    return Preprocessing(mean, std, Geometry.for_own_square(patch_size, own), (own.side // patch_size) ** 2)


def stated(fields: Fields) -> Fields:
    """Without what is null: in Transformers a switch that is null is off, and any other field as good as missing."""
    return fields.given().over({key: False for key in fields if key.startswith("do_")})


def read_merging(fields: Fields, defaults: Mapping[str, Any], *, patch_size: int, factor: int) -> Preprocessing:
    """For a model that keeps a picture's size and merges `factor` patches a side. defaults: as for `read_fixed`.

    The bounds of the area are `min_pixels` and `max_pixels`, otherwise the edges in `size`.
    """
    processor(fields, ("Qwen2VL", "Qwen2_5_VL", "Qwen3VL"))
    given = stated(fields).over(defaults)
    given.require(_PREPARED | {"resample": 3, "patch_size": patch_size, "merge_size": factor})
    bounds = given.section("size")
    bounds = given.over({"min_pixels": bounds.get("shortest_edge"), "max_pixels": bounds.get("longest_edge")})
    least, most = bounds.count("min_pixels"), bounds.count("max_pixels")
    if most < max(least, (patch_size * factor) ** 2):
        raise bounds.error("max_pixels", f"it is under min_pixels, {least}, or under what one merged token takes")
    mean, std = mean_and_std(given)
    geometry = Geometry.for_merging(patch_size, factor, min_pixels=least, max_pixels=most)
    return Preprocessing(mean, std, geometry, most // patch_size**2)


def read_unnormalised(fields: Fields, *, mean: _Channels, std: _Channels, patch_size: int, side: int) -> Preprocessing:
    """For a model that takes any grid, normalises pictures itself, and is fed by a processor of CLIP's class.

    mean, std: the model's own. side: of the squares that it is fed without a file. A picture without a budget gets as
    many tokens as such a square; its aspect ratio is kept, so whether the processor crops makes no difference.
    """
    processor(fields, ("CLIP",))
    # A processor of CLIP's class normalises unless its file says otherwise.
    given = stated(fields).over({"size": {"height": side, "width": side}, "do_normalize": bool(fields)})
    kept = {key: value for key, value in _PREPARED.items() if key not in ("do_resize", "do_normalize")}
    given.require(kept | {"resample": 3})
    side = resize_of(given, number="shortest_edge")[1]
    if side < patch_size:
        raise given.error("size", f"it holds no patch of {patch_size} pixels a side")
    given.require({"do_normalize": False})
    tokens = (side // patch_size) ** 2
    return Preprocessing(mean, std, Geometry.for_naflex(patch_size, tokens, resample="bicubic"), tokens)


def read_longest_edge(fields: Fields, *, patch_size: int, multiple: int | None) -> Preprocessing:
    """For a model that bounds the longer side of a picture alone (Pixtral).

    multiple: grids are multiples of so many patches; None if the processor's own `patch_size` says it.
    """
    processor(fields, ("Pixtral",))
    given = stated(fields).over(CLIP_NORMALISATION | {"size": {"longest_edge": 1024}, "patch_size": patch_size})
    given.require(_BATCHED | {"resample": 3, "do_center_crop": False})
    size = given.get("size")
    side = size if is_side(size) else square_side(size)
    if side is None and isinstance(size, dict) and size.keys() == {"longest_edge"}:
        side = given.section("size").count("longest_edge")
    if side is None:
        raise given.error("size", "it is a longest_edge, or a square's height and width")
    patch = given.get("patch_size")
    step = patch if is_side(patch) else square_side(patch)
    if step is None or step % patch_size:
        raise given.error("patch_size", f"it is a multiple of the {patch_size} pixels in config.json")
    shrink = Shrink(side, multiple=multiple or step // patch_size)
    mean, std = mean_and_std(given)
    most = shrink.most_patches(patch_size)
    return Preprocessing(mean, std, Geometry.for_shrinking(patch_size, shrink), most)


def read_patch_count(fields: Fields, *, patch_size: int, factor: int) -> Preprocessing:
    """For a model that bounds the patches of a picture and of a side, and merges `factor` of them a side (Kimi)."""
    processor(fields, ("Kimi_K25",))
    bounds = {"size": {"max_height": 512, "max_width": 512}, "max_patches": 16_384}
    given = stated(_moonshots(fields)).over(HALVES | bounds)
    given.require(_BATCHED | {"resample": 3, "do_center_crop": False, "patch_size": patch_size, "merge_size": factor})
    side, patches = given.section("size").count("max_height"), given.count("max_patches")
    if given.section("size").get("max_width") != side:
        raise given.error("size", "max_height and max_width are the same number of patches")
    shrink = Shrink(side * patch_size, patches, multiple=factor, pads=True)
    mean, std = mean_and_std(given)
    return Preprocessing(mean, std, Geometry.for_shrinking(patch_size, shrink, factor=factor), patches)


def _moonshots(fields: Fields) -> Fields:
    """The fields of Moonshot's own file, which has them in an object and under other names, by Transformers' names."""
    own = fields.section("media_proc_cfg").given()
    own.require({"fixed_output_tokens": None})
    names = {"in_patch_limit": "max_patches", "merge_kernel_size": "merge_size"}
    named = {names.get(key, key): own.get(key) for key in own}
    if side := own.get("patch_limit_on_one_side"):
        named["size"] = {"max_height": side, "max_width": side}
    return fields.over(named)


def processor(fields: Fields, names: tuple[str, ...]) -> str:
    """The name of the class that prepares pictures: one of `names`, the first if the file does not say.

    Refuses other classes: they may do with the same keys what no key says. `Fast` and `Pil` name a class's backends,
    and `FeatureExtractor` its older versions.
    """
    key = "image_processor_type" if fields.get("image_processor_type") else "feature_extractor_type"
    named = fields.get(key) or f"{names[0]}ImageProcessor"
    match = re.fullmatch(r"(\w+?)(ImageProcessor|FeatureExtractor)(Fast|Pil)?", str(named))
    if not match or match[1] not in names:
        raise fields.error(key, f"classes that are read are {', '.join(f'{name}ImageProcessor' for name in names)}")
    return match[1]


def mean_and_std(
    fields: Fields, mean_key: str = "image_mean", std_key: str = "image_std"
) -> tuple[_Channels, _Channels]:
    """Mean and deviation of RGB values from 0 to 1. Raises `CheckpointError`."""
    mean, std = fields.triple(mean_key), fields.triple(std_key)
    if min(std) <= 0:
        raise fields.error(std_key, "each is above 0")
    return mean, std
