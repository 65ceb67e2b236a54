"""The text towers of SigLIP and SigLIP 2: bidirectional, over exactly as many tokens as there are positions.

Equal to Transformers' `SiglipTextModel` and `Siglip2TextModel` without a mask, on the same weights. The models were
trained on padded texts without a mask: padding is input like any token, and the vector is that of the last position.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from model.encoders.parts.fields import Fields
from model.encoders.parts.text_tower import TextConfig, text_fields
from model.pack import PackedTexts

# Transformers' defaults for keys that config.json leaves out. The head is as wide as the blocks by default.
DEFAULTS: dict[str, Any] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "vocab_size": 32000,
    "max_position_embeddings": 64,
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SiglipTextConfig(TextConfig):
    causal: ClassVar = False
    projection: ClassVar = "head"
    projection_bias: ClassVar = True

    def used(self, texts: PackedTexts) -> NDArray[np.int64]:
        """All. A text of another length is an `AssertionError`, since it gets padded or cut before."""
        lengths = np.diff(texts.cu_seqlens).astype(np.int64)
        assert (lengths == self.context).all(), f"a text has {lengths.tolist()} tokens; this model takes {self.context}"
        return lengths


def read_config(fields: Fields, names: Collection[str]) -> SiglipTextConfig:
    """From a config.json of a whole model, or of a text tower alone."""
    whole = fields.get("model_type") in ("siglip", "siglip2")
    text = (fields.section("text_config") if whole else fields).given().over(DEFAULTS)
    width = text.over({"projection_size": text.get("hidden_size")}).count("projection_size")
    return SiglipTextConfig(**text_fields(text), projection_width=width)
