"""What the checkpoints of DINOv2 and DINOv3 share: blocks with layer scales, a class token, registers, preprocessing.

Knows nothing of images, devices or files.
"""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from model.encoders.parts.fields import Fields
from model.encoders.parts.preprocessing import Preprocessing, read_own_square
from model.encoders.parts.tensors import (
    Shapes,
    activation_weights,
    linear_shapes,
    norm_shapes,
    patch_weight,
    renamed,
    scaled,
    with_biases,
)
from model.encoders.parts.tower import EncoderConfig, Pooling

IMAGENET: dict[str, Any] = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
_CLASS, _REGISTERS = "embeddings.cls_token", "embeddings.register_tokens"


@dataclass(frozen=True, slots=True, kw_only=True)
class DinoConfig(EncoderConfig):
    """hidden_act: Transformers' name. gated: whether the MLP is a gated one. unbiased: linear layers of a block without
    a bias, by the checkpoint's names.

    patch_name, block_name, norm_name: a checkpoint's names. attention_names: of queries, keys, values and output.
    processors: the classes that prepare pictures. pictures: what they do if there is no file.
    """

    hidden_act: str
    gated: bool
    registers: int
    unbiased: tuple[str, ...] = ()
    pooling: Pooling = "cls"

    patch_name: ClassVar[str]
    block_name: ClassVar[str]
    norm_name: ClassVar[str]
    attention_names: ClassVar[tuple[str, str, str, str]]
    processors: ClassVar[tuple[str, ...]]
    pictures: ClassVar[Mapping[str, Any]]

    @property
    def chosen_pooling(self) -> Pooling:
        return self.pooling

    def pooled_by(self, pooling: Pooling) -> "DinoConfig":
        return replace(self, pooling=pooling)

    @property
    def stores_registers(self) -> bool:
        """Whether a checkpoint has a tensor of registers, possibly an empty one."""
        return self.registers > 0

    @property
    @abstractmethod
    def mlp_shapes(self) -> Mapping[str, tuple[int, int]]:
        """The weight of each layer of an MLP, by the checkpoint's names."""

    @abstractmethod
    def mlp_weights(self, tensors: Mapping[str, Tensor], block: str) -> dict[str, Tensor]:
        """The state of an `Mlp` or a `GatedMlp`. tensors: all biases among them. block: its name in the checkpoint."""

    def preprocessing(self, fields: Fields) -> Preprocessing:
        return read_own_square(fields, self.pictures, names=self.processors, patch_size=self.patch_size)

    def checkpoint_shapes(self) -> Shapes:
        d = self.width
        shapes: Shapes = {_CLASS: (1, 1, d), f"{self.patch_name}.bias": (d,)}
        shapes[f"{self.patch_name}.weight"] = (d, 3, self.patch_size, self.patch_size)
        if self.stores_registers:
            shapes[_REGISTERS] = (1, self.registers, d)
        layers = dict.fromkeys(self.attention_names, (d, d)) | dict(self.mlp_shapes)
        for block in self._blocks():
            shapes |= norm_shapes(f"{block}.norm1", d) | norm_shapes(f"{block}.norm2", d)
            for name, (out, into) in layers.items():
                shapes |= linear_shapes(f"{block}.{name}", out, into)
            for name in self.unbiased:
                del shapes[f"{block}.{name}.bias"]
            shapes |= {f"{block}.layer_scale{part}.lambda1": (d,) for part in (1, 2)}
        return shapes | norm_shapes(self.norm_name, d)

    def encoder_weights(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        weights = renamed(tensors, {"norm": self.norm_name})
        weights["patch.weight"] = patch_weight(tensors[f"{self.patch_name}.weight"])
        weights["patch.bias"] = tensors[f"{self.patch_name}.bias"]
        tensors = with_biases(tensors, [f"{block}.{name}" for block in self._blocks() for name in self.unbiased])
        for i, block in enumerate(self._blocks()):
            weights |= self._block_weights(tensors, f"blocks.{i}", block)
        weights = activation_weights(weights, self.depth, self.hidden_act)
        for i, block in enumerate(self._blocks()):
            last = "mlp.down" if self.gated else "mlp.1"
            for layer, part in (("out", 1), (last, 2)):
                weights |= scaled(weights, f"blocks.{i}.{layer}", tensors[f"{block}.layer_scale{part}.lambda1"])
        return weights

    def _block_weights(self, tensors: Mapping[str, Tensor], ours: str, theirs: str) -> dict[str, Tensor]:
        *qkv, out = (f"{theirs}.{name}" for name in self.attention_names)
        names = {f"{ours}.out": out, f"{ours}.norm1": f"{theirs}.norm1", f"{ours}.norm2": f"{theirs}.norm2"}
        weights = renamed(tensors, names)
        for part in ("weight", "bias"):
            weights[f"{ours}.qkv.{part}"] = torch.cat([tensors[f"{name}.{part}"] for name in qkv])
        return weights | {f"{ours}.mlp.{name}": each for name, each in self.mlp_weights(tensors, theirs).items()}

    def prefix(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """float32 `[C, D]`: the class token, then the registers."""
        return torch.cat([tensors[name][0].float() for name in (_CLASS, _REGISTERS) if name in tensors])

    def _blocks(self) -> list[str]:
        return [f"{self.block_name}.{i}" for i in range(self.depth)]


def gated_act(fields: Fields, name: str) -> str:
    """The activation of a gated MLP. Raises `CheckpointError` for the one that would have to go into its weights."""
    if name == "quick_gelu":
        raise fields.error("hidden_act", "a gated MLP takes silu, gelu or gelu_pytorch_tanh")
    return name
