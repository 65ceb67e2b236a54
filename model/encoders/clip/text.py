"""CLIP's text tower: causal, with a vector made of the end token's row, projected where the model has a projection.

Equal to Transformers' `CLIPTextModel`, `CLIPTextModelWithProjection` and `CLIPModel.get_text_features` on the same
weights. What follows the end token changes nothing, and is not computed.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from model.encoders.parts.fields import Fields
from model.encoders.parts.text_tower import TextConfig, text_fields
from model.pack import PackedTexts

# Transformers' defaults for keys that config.json leaves out.
DEFAULTS: dict[str, Any] = {
    "hidden_size": 512,
    "intermediate_size": 2048,
    "projection_dim": 512,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "vocab_size": 49408,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
    "eos_token_id": 49407,
}
# Old files give this number and mean the highest id, which is the end token's.
_OLD_END = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipTextConfig(TextConfig):
    """end_id: of the token whose first row becomes the vector; None takes the highest id of a text."""

    end_id: int | None

    causal: ClassVar = True
    projection: ClassVar = "text_projection"
    projection_bias: ClassVar = False

    def used(self, texts: PackedTexts) -> NDArray[np.int64]:
        """Up to the end token. A text without one gives the vector of its first token, as in Transformers."""
        assert texts.max_seqlen <= self.context, f"{texts.max_seqlen} tokens; this model takes {self.context}"
        marks = texts.ids if self.end_id is None else texts.ids == self.end_id
        return np.array([text.argmax() + 1 for text in np.split(marks, texts.cu_seqlens[1:-1])])

    def longest(self) -> NDArray[np.int32]:
        # `super()` fails in a dataclass with slots.
        ids = TextConfig.longest(self)
        ids[-1] = self.end_id or 1
        return ids


def read_config(fields: Fields, names: Collection[str]) -> ClipTextConfig:
    """From a config.json of a whole model, or of a text tower alone, and the names of the stored tensors."""
    whole = fields.get("model_type") == "clip"
    text = fields
    if whole:
        # If both are present, Transformers takes the older key and ignores the other.
        text = fields.section("text_config_dict" if fields.get("text_config_dict") is not None else "text_config")
    text = text.over(DEFAULTS)
    end_id = text.count("eos_token_id")
    # A whole model gives the width of both its projections. A tower alone may be stored with one.
    owner = fields.over({"projection_dim": DEFAULTS["projection_dim"]}) if whole else text
    projected = whole or "text_projection.weight" in names
    return ClipTextConfig(
        **text_fields(text),
        projection_width=owner.count("projection_dim") if projected else None,
        end_id=None if end_id == _OLD_END else end_id,
    )
