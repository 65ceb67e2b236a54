"""The shape of an EmbeddingGemma 2, the names of its tensors, and how its pictures are prepared.

Knows nothing of images, devices or files.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from model.encoders.gemma.frame import Frame
from model.encoders.gemma.layers import LayerShape
from model.encoders.gemma.text import TextLayer
from model.encoders.gemma.vision import GemmaPositions, quartered_halves
from model.encoders.parts.fields import Fields
from model.encoders.parts.keys import Keys
from model.encoders.parts.preprocessing import Preprocessing
from model.encoders.parts.soft_tokens import read_soft_tokens
from model.encoders.parts.tensors import Shapes
from model.encoders.parts.tower import EncoderConfig

_BOUNDS = ("input_min", "input_max", "output_min", "output_max")
_VISION, _TEXT = "vision_tower.", "language_model."
# For both towers. An audio tower beside them is not read.
KEYS = Keys(
    anchor=re.compile(r"((?:[^.]+\.)*)language_model\.embed_tokens\.weight"),
    prefixes=("model.",),
    bare=re.compile(r"(vision_tower|embed_vision|language_model)\."),
    ignored=re.compile(r"(audio_tower|embed_audio)\..*"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class GemmaConfig(EncoderConfig):
    """The fields describe the vision tower, unless their names say text.

    shape: of its blocks. pooled: patches a side of a soft token. standardised: whether soft tokens are shifted and
    scaled. table_length: rows of each position table. text_layers: in order. vocabulary: ids are below it. out_width:
    of an embedding. frame: the ids around a document and around an image in it. context: the most tokens of a text.
    """

    shape: LayerShape
    pooled: int
    standardised: bool
    table_length: int
    text_layers: tuple[TextLayer, ...]
    vocabulary: int
    out_width: int
    frame: Frame
    context: int

    @property
    def head_width(self) -> int:
        return self.shape.head_width

    @property
    def text_width(self) -> int:
        return self.text_layers[0].shape.width

    @property
    def embedding_width(self) -> int:
        return self.out_width

    @property
    def token_width(self) -> int:
        return self.out_width

    def preprocessing(self, fields: Fields) -> Preprocessing:
        return read_soft_tokens(fields, patch_size=self.patch_size, pooled=self.pooled)

    def checkpoint_shapes(self) -> Shapes:
        d, text = self.width, self.text_layers
        signal_width = text[0].shape.signal_width or 0
        shapes: Shapes = {
            f"{_VISION}patch_embedder.position_embedding_table": (2, self.table_length, d),
            f"{_TEXT}ple.per_layer_model_projection.weight": (len(text) * signal_width, self.text_width),
            f"{_TEXT}ple.per_layer_projection_norm.weight": (signal_width,),
        }
        for i, layer in enumerate([*[self.shape] * self.depth, *(layer.shape for layer in text)]):
            prefix = f"{_VISION}encoder.layers.{i}" if i < self.depth else f"{_TEXT}layers.{i - self.depth}"
            for name, width in zip("qkv", layer.qkv_widths, strict=True):
                suffix = ".linear" if i < self.depth else ""
                shapes[f"{prefix}.self_attn.{name}_proj{suffix}.weight"] = (width, layer.width)
        shapes |= {f"{theirs}.{bound}": () for _, theirs in self._clipped() for bound in _BOUNDS}
        return shapes | {theirs: shape for _, theirs, shape in self._tensors()}

    def encoder_weights(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The state of a `GemmaEncoder`."""
        weights = {ours: tensors[theirs] for ours, theirs, _ in self._tensors()}
        for ours, theirs in self._clipped():
            weights[f"{ours}.bounds"] = torch.stack([tensors[f"{theirs}.{bound}"] for bound in _BOUNDS])
        for i in range(self.depth):
            theirs = f"{_VISION}encoder.layers.{i}.self_attn"
            q, k, v = (tensors[f"{theirs}.{name}_proj.linear.weight"] for name in "qkv")
            q, k = quartered_halves(q, self.heads), quartered_halves(k, self.shape.shared_heads)
            qkv = [q, k, v] if self.shape.clipped else [torch.cat([q, k, v])]
            weights |= {f"vision.blocks.{i}.attention.qkv.{n}.weight": weight for n, weight in enumerate(qkv)}
            for head_norm in ("q_norm", "k_norm"):
                ours = f"vision.blocks.{i}.attention.{head_norm}"
                weights[ours] = quartered_halves(weights[ours], 1)
        count = len(self.text_layers)
        signals = tensors[f"{_TEXT}ple.per_layer_model_projection.weight"].chunk(count)
        for i, signal in enumerate(signals):
            qkv = [tensors[f"{_TEXT}layers.{i}.self_attn.{name}_proj.weight"] for name in "qkv"]
            weights[f"text.blocks.{i}.attention.qkv.0.weight"] = torch.cat(qkv)
            weights[f"text.blocks.{i}.signal.signal.weight"] = signal.contiguous()
            norm = tensors[f"{_TEXT}ple.per_layer_projection_norm.weight"]
            weights[f"text.blocks.{i}.signal.signal_norm.weight"] = norm
        return weights

    def _clipped(self) -> Iterator[tuple[str, str]]:
        """Our name and the checkpoint's name of every layer that is clipped."""
        for i in range(self.depth if self.shape.clipped else 0):
            ours, theirs = f"vision.blocks.{i}", f"{_VISION}encoder.layers.{i}"
            for n, name in enumerate("qkv"):
                yield f"{ours}.attention.qkv.{n}", f"{theirs}.self_attn.{name}_proj"
            yield f"{ours}.attention.out", f"{theirs}.self_attn.o_proj"
            for name in ("gate", "up", "down"):
                yield f"{ours}.{name}", f"{theirs}.mlp.{name}_proj"

    def _tensors(self) -> Iterator[tuple[str, str, tuple[int, ...]]]:
        """Our name, the checkpoint's name and the shape of every tensor that is taken as it is."""
        d, text_d = self.width, self.text_width
        yield "vision.patch.weight", f"{_VISION}patch_embedder.input_proj.weight", (d, self.patch_width)
        for i in range(self.depth):
            yield from _block(f"vision.blocks.{i}", f"{_VISION}encoder.layers.{i}", self.shape, linear=".linear")
        for name in ("std_bias", "std_scale") if self.standardised else ():
            yield f"vision.{name}", f"{_VISION}{name}", (d,)
        yield "vision.project.weight", "embed_vision.embedding_projection.weight", (text_d, d)
        yield "text.tokens", f"{_TEXT}embed_tokens.weight", (self.vocabulary, text_d)
        for i, layer in enumerate(self.text_layers):
            yield from _block(f"text.blocks.{i}", f"{_TEXT}layers.{i}", layer.shape, linear="")
        yield "text.norm.weight", f"{_TEXT}norm.weight", (text_d,)
        yield "text.project.weight", f"{_TEXT}embedding_projection.weight", (self.out_width, text_d)

    def positions(self, tensors: Mapping[str, Tensor], device: torch.device) -> GemmaPositions:
        table = tensors[f"{_VISION}patch_embedder.position_embedding_table"]
        return GemmaPositions.of(table, head_width=self.head_width, device=device)


def _block(ours: str, theirs: str, shape: LayerShape, *, linear: str) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    d, m = shape.width, shape.mlp_width
    norms = {
        "norm1": "input_layernorm", "after1": "post_attention_layernorm",
        "norm2": "pre_feedforward_layernorm", "after2": "post_feedforward_layernorm",
    }  # fmt: skip
    for name, their_name in norms.items():
        yield f"{ours}.{name}.weight", f"{theirs}.{their_name}.weight", (d,)
    for name in ("q_norm", "k_norm"):
        yield f"{ours}.attention.{name}", f"{theirs}.self_attn.{name}.weight", (shape.head_width,)
    yield f"{ours}.attention.out.weight", f"{theirs}.self_attn.o_proj{linear}.weight", (d, shape.qkv_widths[0])
    yield f"{ours}.gate.weight", f"{theirs}.mlp.gate_proj{linear}.weight", (m, d)
    yield f"{ours}.up.weight", f"{theirs}.mlp.up_proj{linear}.weight", (m, d)
    yield f"{ours}.down.weight", f"{theirs}.mlp.down_proj{linear}.weight", (d, m)
    if s := shape.signal_width:
        yield f"{ours}.signal.gate.weight", f"{theirs}.ple_block.per_layer_input_gate.weight", (s, d)
        yield f"{ours}.signal.project.weight", f"{theirs}.ple_block.per_layer_projection.weight", (d, s)
        yield f"{ours}.signal.norm.weight", f"{theirs}.ple_block.post_per_layer_input_norm.weight", (d,)
        yield f"{ours}.scale", f"{theirs}.layer_scalar", (1,)
