"""From Transformers' tensors to ours: names and shapes of the layers that its vision towers share."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from model.encoders.parts.blocks import BlockShape
from model.encoders.parts.fields import Fields
from model.kernels.activations import Activation

Shapes = dict[str, tuple[int, ...]]

# The activation that is computed, by Transformers' name.
ACTIVATIONS: dict[str, Activation] = {
    "quick_gelu": "silu",
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "silu": "silu",
}
# quick_gelu(x) = x * sigmoid(1.702 x) = silu(1.702 x) / 1.702: the factor goes into the weights before and after it.
_QUICK_GELU = 1.702


def hidden_act(vision: Fields) -> str:
    """One of `ACTIVATIONS`. Raises `CheckpointError`."""
    name = vision.get("hidden_act")
    if not isinstance(name, str) or name not in ACTIVATIONS:
        raise vision.error("hidden_act", f"it is one of {', '.join(ACTIVATIONS)}")
    return name


def activation_weights(weights: Mapping[str, Tensor], depth: int, hidden_act: str) -> dict[str, Tensor]:
    """Weights that give with `ACTIVATIONS[hidden_act]` what `weights` give with `hidden_act` itself."""
    if hidden_act != "quick_gelu":
        return dict(weights)
    factors = {"mlp.0.weight": _QUICK_GELU, "mlp.0.bias": _QUICK_GELU, "mlp.1.weight": 1 / _QUICK_GELU}
    scaled = {f"blocks.{i}.{name}": factor for i in range(depth) for name, factor in factors.items()}
    return {**weights, **{name: weights[name].float() * factor for name, factor in scaled.items()}}


def linear_shapes(name: str, out: int, into: int) -> Shapes:
    return {f"{name}.weight": (out, into), f"{name}.bias": (out,)}


def norm_shapes(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def block_shapes(shape: BlockShape) -> Shapes:
    """The shapes of all blocks."""
    d, m = shape.width, shape.mlp_width
    shapes: Shapes = {}
    for i in range(shape.depth):
        layer = f"encoder.layers.{i}"
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= linear_shapes(f"{layer}.self_attn.{name}", d, d)
        shapes |= norm_shapes(f"{layer}.layer_norm1", d) | norm_shapes(f"{layer}.layer_norm2", d)
        shapes |= linear_shapes(f"{layer}.mlp.fc1", m, d) | linear_shapes(f"{layer}.mlp.fc2", d, m)
    return shapes


def map_head_shapes(shape: BlockShape) -> Shapes:
    d, m = shape.width, shape.mlp_width
    shapes: Shapes = {"head.probe": (1, 1, d), "head.attention.in_proj_weight": (3 * d, d)}
    shapes |= {"head.attention.in_proj_bias": (3 * d,)} | linear_shapes("head.attention.out_proj", d, d)
    shapes |= norm_shapes("head.layernorm", d)
    return shapes | linear_shapes("head.mlp.fc1", m, d) | linear_shapes("head.mlp.fc2", d, m)


def renamed(tensors: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """The weights and biases of layers. names: from our name to the checkpoint's."""
    return {f"{ours}.{part}": tensors[f"{names[ours]}.{part}"] for ours in names for part in ("weight", "bias")}


def with_biases(tensors: Mapping[str, Tensor], layers: Iterable[str]) -> dict[str, Tensor]:
    """The tensors, and zeros for the biases that these layers lack."""
    zeros = {f"{layer}.bias": torch.zeros_like(tensors[f"{layer}.weight"][:, 0]) for layer in layers}
    return {**tensors, **zeros}


def scaled(weights: Mapping[str, Tensor], layer: str, scale: Tensor) -> dict[str, Tensor]:
    """The weight and bias of a linear layer with a layer scale that follows it. scale: `[out]`."""
    weight, bias = (weights[f"{layer}.{part}"].float() for part in ("weight", "bias"))
    return {f"{layer}.weight": weight * scale.float().unsqueeze(1), f"{layer}.bias": bias * scale.float()}


def block_weights(tensors: Mapping[str, Tensor], depth: int) -> dict[str, Tensor]:
    """The state of `Blocks`, under `blocks`, with q, k and v in one tensor."""
    weights: dict[str, Tensor] = {}
    for i in range(depth):
        ours, theirs = f"blocks.{i}", f"encoder.layers.{i}"
        for part in ("weight", "bias"):
            qkv = [tensors[f"{theirs}.self_attn.{x}_proj.{part}"] for x in "qkv"]
            weights[f"{ours}.qkv.{part}"] = torch.cat(qkv)
        names = {
            f"{ours}.out": f"{theirs}.self_attn.out_proj",
            f"{ours}.norm1": f"{theirs}.layer_norm1",
            f"{ours}.norm2": f"{theirs}.layer_norm2",
            f"{ours}.mlp.0": f"{theirs}.mlp.fc1",
            f"{ours}.mlp.1": f"{theirs}.mlp.fc2",
        }
        weights |= renamed(tensors, names)
    return weights


def map_head_weights(tensors: Mapping[str, Tensor], width: int) -> dict[str, Tensor]:
    """The state of `MapHead`, under `head`. The probe is projected here, once."""
    in_weight, in_bias = (tensors[f"head.attention.in_proj_{part}"] for part in ("weight", "bias"))
    weights = {
        "head.query": projected_probe(tensors["head.probe"], in_weight[:width], in_bias[:width]),
        "head.kv.weight": in_weight[width:],
        "head.kv.bias": in_bias[width:],
    }
    names = {
        "head.out": "head.attention.out_proj",
        "head.norm": "head.layernorm",
        "head.mlp.0": "head.mlp.fc1",
        "head.mlp.1": "head.mlp.fc2",
    }
    return weights | renamed(tensors, names)


def projected_probe(probe: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The query of a `MapHead`, `[D]`, from `[1, 1, D]`."""
    # In float64, because the bits of a float32 product of one row depend on the memory layout of the weights.
    return (weight.double() @ probe.flatten().double() + bias.double()).float()


def patch_weight(convolution: Tensor) -> Tensor:
    """A convolution's `[D, 3, P, P]` as a matrix `[D, P*P*3]` over patch rows, `(ph, pw, channel)` inside a patch."""
    return convolution.permute(0, 2, 3, 1).flatten(1).contiguous()
