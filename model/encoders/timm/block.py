"""How timm stores a block of a vision transformer, and its weights as ours."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from model.encoders.parts.tensors import Shapes, linear_shapes, norm_shapes, renamed, scaled
from model.kernels.rotary import paired_halves


@dataclass(frozen=True, slots=True)
class StoredBlock:
    """bias: whether queries, keys and values have one. biased_keys: whether keys have one too. fused: queries, keys and
    values are one layer; if keys have no bias, the others' are tensors of their own. scales: names of layer scales, or
    none. mlp: an MLP, or a gated one whose first layers are one (`packed`) or two (`split`). neighbours: rotary
    positions rotate neighbours of a head.
    """

    bias: bool
    biased_keys: bool
    fused: bool
    scales: tuple[str, str] | None
    mlp: Literal["plain", "packed", "split"]
    neighbours: bool

    @property
    def gated(self) -> bool:
        return self.mlp != "plain"

    def shapes(self, block: str, d: int, m: int) -> Shapes:
        """d: width, m: of the MLP."""
        shapes = linear_shapes(f"{block}.attn.proj", d, d) | linear_shapes(f"{block}.mlp.fc2", d, m)
        shapes |= norm_shapes(f"{block}.norm1", d) | norm_shapes(f"{block}.norm2", d)
        if self.mlp == "split":
            shapes |= linear_shapes(f"{block}.mlp.fc1_g", m, d) | linear_shapes(f"{block}.mlp.fc1_x", m, d)
        else:
            shapes |= linear_shapes(f"{block}.mlp.fc1", m if self.mlp == "plain" else 2 * m, d)
        shapes |= {f"{block}.{scale}": (d,) for scale in self.scales or ()}
        rows = 3 * d if self.fused else d
        for weight, bias in self._qkv():
            shapes[f"{block}.attn.{weight}"] = (rows, d)
            shapes |= {f"{block}.attn.{name}": (rows if name == "qkv.bias" else d,) for name in bias}
        return shapes

    def _qkv(self) -> list[tuple[str, tuple[str, ...]]]:
        """The weights, each with its biases."""
        if self.fused:
            biases = ("qkv.bias",) if self.biased_keys else ("q_bias", "v_bias")
            return [("qkv.weight", biases if self.bias else ())]
        biased = "qkv" if self.biased_keys else "qv"
        return [(f"{x}_proj.weight", (f"{x}_proj.bias",) if self.bias and x in biased else ()) for x in "qkv"]

    def weights(self, tensors: Mapping[str, Tensor], block: str, heads: int) -> dict[str, Tensor]:
        """Ours, under the same name of the block: layer scales multiplied into the layers before them."""
        names = {"norm1": "norm1", "norm2": "norm2", "out": "attn.proj"}
        last = "mlp.down" if self.gated else "mlp.1"
        names |= {last: "mlp.fc2"} | ({} if self.gated else {"mlp.0": "mlp.fc1"})
        if self.mlp == "split":
            names |= {"mlp.gate": "mlp.fc1_g", "mlp.up": "mlp.fc1_x"}
        weights = renamed(tensors, {f"{block}.{ours}": f"{block}.{theirs}" for ours, theirs in names.items()})
        if self.mlp == "packed":
            for part in ("weight", "bias"):
                gate, up = tensors[f"{block}.mlp.fc1.{part}"].chunk(2)
                weights |= {f"{block}.mlp.gate.{part}": gate, f"{block}.mlp.up.{part}": up}
        for layer, scale in zip(("out", last), self.scales or (), strict=False):
            weights |= scaled(weights, f"{block}.{layer}", tensors[f"{block}.{scale}"])
        for part, parts in (("weight", self._projections(tensors, block)), ("bias", self._biases(tensors, block))):
            if self.neighbours:
                parts = [paired_halves(parts[0], heads), paired_halves(parts[1], heads), parts[2]]
            weights[f"{block}.qkv.{part}"] = torch.cat(parts)
        return weights

    def _projections(self, tensors: Mapping[str, Tensor], block: str) -> list[Tensor]:
        """The weights of queries, keys and values."""
        if self.fused:
            return list(tensors[f"{block}.attn.qkv.weight"].chunk(3))
        return [tensors[f"{block}.attn.{x}_proj.weight"] for x in "qkv"]

    def _biases(self, tensors: Mapping[str, Tensor], block: str) -> list[Tensor]:
        """Their biases, with zeros for what is not stored."""
        if self.fused and self.bias and self.biased_keys:
            return list(tensors[f"{block}.attn.qkv.bias"].chunk(3))
        zeros = torch.zeros_like(tensors[f"{block}.norm1.bias"])
        ending = "_bias" if self.fused else "_proj.bias"
        return [tensors.get(f"{block}.attn.{x}{ending}", zeros) for x in "qkv"]
