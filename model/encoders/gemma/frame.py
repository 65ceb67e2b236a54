"""The ids around what a document holds: those that its tokenizer puts around every text, and those around an image.

Reads files of the tokenizer, as Transformers does: `add_bos_token` and `add_eos_token`, where tokenizer_config.json has
them, otherwise the post-processor of tokenizer.json.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.encoders.parts.fields import Fields
from model.errors import CheckpointError
from model.pack import SOFT_TOKEN, PackedBatch, PackedDocuments

# Transformers saves a huge number for a tokenizer without a bound. Anything over this one means that there is none.
_MOST_CONTEXT = 1_000_000
DEFAULT_CONTEXT = 2_048


@dataclass(frozen=True, slots=True)
class Frame:
    """start, end: ids around a document. image_start, image_end: ids around the soft tokens of an image."""

    start: tuple[int, ...]
    end: tuple[int, ...]
    image_start: int
    image_end: int

    def image(self, soft_tokens: int) -> list[int]:
        """The ids of an image inside a document."""
        return [self.image_start, *[SOFT_TOKEN] * soft_tokens, self.image_end]

    def document(self, ids: Sequence[int]) -> NDArray[np.int32]:
        """int32 `[n]`: a whole document of these."""
        return np.array([*self.start, *ids, *self.end], np.int32)

    def around(self, batch: PackedBatch, *, pooled: int) -> PackedDocuments:
        """Each picture of a pack as a document. pooled: patches a side of a soft token."""
        ids = [self.document(self.image(height * width // pooled**2)) for height, width in batch.grids]
        lengths, count = [len(each) for each in ids], len(ids)
        cu_seqlens = np.cumsum([0, *lengths], dtype=np.int32)
        return PackedDocuments(
            np.concatenate(ids), cu_seqlens, max(lengths), batch, np.arange(count + 1, dtype=np.int32)
        )


def read_frame(folder: Path, fields: Fields, text: Fields) -> Frame:
    """fields, text: of config.json, and its text_config. Raises `CheckpointError`."""
    image_start, image_end = fields.count("boi_token_id"), fields.count("eoi_token_id")
    path = folder / "tokenizer_config.json"
    settings = Fields.read(path) if path.exists() else Fields(path, {})
    if "add_bos_token" in settings or "add_eos_token" in settings:
        start = (text.count("bos_token_id"),) if settings.get("add_bos_token") else ()
        end = (text.count("eos_token_id"),) if settings.get("add_eos_token") else ()
        return Frame(start, end, image_start, image_end)
    tokenizer = folder / "tokenizer.json"
    if not tokenizer.exists():
        raise CheckpointError(f"{tokenizer} is missing: it says which ids stand around an image")
    return Frame(*_around(Fields.read(tokenizer)), image_start, image_end)


def _around(tokenizer: Fields) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The ids before and behind a text."""
    template: Any = tokenizer.get("post_processor")
    if template is None:
        return (), ()
    try:
        if template["type"] != "TemplateProcessing":
            raise KeyError("type")
        before: list[int] = []
        after: list[int] = []
        ids = before
        for piece in template["single"]:
            if "Sequence" in piece:
                ids = after
            else:
                ids += template["special_tokens"][piece["SpecialToken"]["id"]]["ids"]
    except (KeyError, TypeError):
        raise tokenizer.error("post_processor", "only a TemplateProcessing is supported") from None
    if max(len(before), len(after)) > 1:
        raise tokenizer.error("post_processor", "it puts at most one token before a text and one behind it")
    return tuple(before), tuple(after)


def read_context(folder: Path, positions: int) -> int:
    """The most tokens of a text: sentence-transformers' max_seq_length, otherwise the tokenizer's model_max_length,
    otherwise `DEFAULT_CONTEXT`; at most `positions`."""
    for name, key in (("sentence_bert_config.json", "max_seq_length"), ("tokenizer_config.json", "model_max_length")):
        path = folder / name
        given = Fields.read(path).get(key) if path.exists() else None
        if isinstance(given, int) and 0 < given < _MOST_CONTEXT:
            return min(given, positions)
    return min(DEFAULT_CONTEXT, positions)
