"""What the checkpoints of Qwen2-VL, Qwen2.5-VL and Qwen3-VL share: shapes, names of tensors, positions, preprocessing.

Knows nothing of images, devices or files.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from model.encoders.parts.arrangement import RotatedPositions
from model.encoders.parts.axial import axial_rope
from model.encoders.parts.blocks import GatedMlp, Mlp, Norm, RmsNorm
from model.encoders.parts.fields import Fields
from model.encoders.parts.keys import Keys
from model.encoders.parts.preprocessing import CLIP_NORMALISATION, Preprocessing, read_merging
from model.encoders.parts.tensors import Shapes, activation_weights, hidden_act, patch_weight
from model.encoders.parts.tower import EncoderConfig, LanguagePositions
from model.kernels.rotary import RotaryTable

# Transformers' defaults, in all three classes, for keys that config.json leaves out.
DEFAULTS: dict[str, Any] = {"num_heads": 16, "in_channels": 3, "spatial_merge_size": 2, "temporal_patch_size": 2}
_EPS = 1e-6
_SUPPORTED = {"in_channels": 3, "in_chans": 3}
_PREPROCESSING = {"size": {"shortest_edge": 56 * 56, "longest_edge": 1280 * 28 * 28}} | CLIP_NORMALISATION
KEYS = Keys(
    anchor=re.compile(r"((?:[^.]+\.)*)patch_embed\.proj\.weight"),
    prefixes=("visual.",),
    bare=re.compile(r"(patch_embed|pos_embed|blocks|merger|deepstack_merger_list)\."),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class QwenConfig(EncoderConfig):
    """hidden_act: Transformers' name. out_width: E. merge: patches a side that become one token. frames: of a patch,
    all of the same picture. window: merged tokens a side of an attention window, None without windows. full_layers:
    blocks that attend to the whole image all the same. deepstack_layers: blocks after which tokens are also merged, for
    the first layers of the language model.

    mlp_names, merger_names: a checkpoint's names for the layers of an MLP and of a merger (norm, two linear layers).
    """

    hidden_act: str
    out_width: int
    merge: int
    frames: int
    window: int | None = None
    full_layers: tuple[int, ...] = ()
    deepstack_layers: tuple[int, ...] = ()

    norm: ClassVar[type[Norm] | type[RmsNorm]] = Norm
    mlp: ClassVar[type[Mlp] | type[GatedMlp]] = Mlp
    mlp_names: ClassVar[Mapping[str, str]] = {"0": "fc1", "1": "fc2"}
    merger_names: ClassVar[tuple[str, str, str]] = ("ln_q", "mlp.0", "mlp.2")
    has_patch_bias: ClassVar[bool] = False
    preprocessing_defaults: ClassVar[Mapping[str, Any]] = _PREPROCESSING

    @property
    def embedding_width(self) -> int:
        return self.out_width

    @property
    def language_positions(self) -> LanguagePositions:
        return "mrope"

    @property
    def token_width(self) -> int:
        """Values of a merged token, followed by those merged after each of the `deepstack_layers`."""
        return self.out_width * (1 + len(self.deepstack_layers))

    @property
    def block_width(self) -> int:
        """Values of the patches that are merged into one token."""
        return self.width * self.merge**2

    def preprocessing(self, fields: Fields) -> Preprocessing:
        # A file is read as the processor's class reads it, whose defaults are Qwen2-VL's.
        defaults = _PREPROCESSING if fields else self.preprocessing_defaults
        return read_merging(fields, defaults, patch_size=self.patch_size, factor=self.merge)

    def checkpoint_shapes(self) -> Shapes:
        shapes: Shapes = {"patch_embed.proj.weight": (self.width, 3, self.frames, self.patch_size, self.patch_size)}
        if self.has_patch_bias:
            shapes["patch_embed.proj.bias"] = (self.width,)
        return shapes | {theirs: shape for _, theirs, shape in self._layer_tensors()}

    def encoder_weights(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        weights = {ours: tensors[theirs] for ours, theirs, _ in self._layer_tensors()}
        # All frames of a patch show the same picture, so their kernels add up.
        weights["patch.weight"] = patch_weight(tensors["patch_embed.proj.weight"].float().sum(2))
        if self.has_patch_bias:
            weights["patch.bias"] = tensors["patch_embed.proj.bias"]
        return activation_weights(weights, self.depth, self.hidden_act)

    def _layer_tensors(self) -> Iterator[tuple[str, str, tuple[int, ...]]]:
        """Our name, the checkpoint's name and the shape of every tensor in the blocks and mergers."""
        for ours, theirs, shape in self._layers():
            yield f"{ours}.weight", f"{theirs}.weight", shape
            if len(shape) > 1 or self.norm is Norm:
                yield f"{ours}.bias", f"{theirs}.bias", shape[:1]

    def _layers(self) -> Iterator[tuple[str, str, tuple[int, ...]]]:
        d, wide = self.width, self.block_width
        for block in (f"blocks.{i}" for i in range(self.depth)):
            yield f"{block}.norm1", f"{block}.norm1", (d,)
            yield f"{block}.qkv", f"{block}.attn.qkv", (3 * d, d)
            yield f"{block}.out", f"{block}.attn.proj", (d, d)
            yield f"{block}.norm2", f"{block}.norm2", (d,)
            *inner, last = self.mlp_names
            for ours in inner:
                yield f"{block}.mlp.{ours}", f"{block}.mlp.{self.mlp_names[ours]}", (self.mlp_width, d)
            yield f"{block}.mlp.{last}", f"{block}.mlp.{self.mlp_names[last]}", (d, self.mlp_width)
        norm, first, second = self.merger_names
        mergers = [("merger", "merger", d)]
        mergers += [(f"deepstack.{k}", f"deepstack_merger_list.{k}", wide) for k in range(len(self.deepstack_layers))]
        for ours, theirs, norm_width in mergers:
            yield f"{ours}.norm", f"{theirs}.{norm}", (norm_width,)
            yield f"{ours}.first", f"{theirs}.{first}", (wide, wide)
            yield f"{ours}.second", f"{theirs}.{second}", (self.out_width, wide)

    def positions(self, tensors: Mapping[str, Tensor], device: torch.device) -> RotatedPositions:
        return RotatedPositions(RotaryTable(self.head_width, device=device))


def shape_fields(vision: Fields, width: int) -> dict[str, Any]:
    """The fields that all three families read alike; `vision` is over `DEFAULTS`."""
    vision.require(_SUPPORTED)
    axial_rope(vision).require({"rope_theta": 10_000.0})
    heads = vision.count("num_heads")
    if width % (4 * heads):
        raise vision.error("num_heads", f"the width, {width}, is not a multiple of 4 for each head")
    return {
        "width": width,
        "depth": vision.count("depth"),
        "heads": heads,
        "patch_size": vision.count("patch_size"),
        "merge": vision.count("spatial_merge_size"),
        "frames": vision.count("temporal_patch_size"),
        "hidden_act": hidden_act(vision),
        "eps": _EPS,
    }


def vision_fields(fields: Fields, defaults: Mapping[str, Any]) -> Fields:
    """The vision_config of a whole model, or all fields of a tower alone, over the defaults."""
    vision = fields if str(fields.get("model_type")).endswith("_vision") else fields.section("vision_config")
    return vision.over(defaults)
