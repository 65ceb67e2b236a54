"""Which tensors of a checkpoint belong to a tower, by their keys.

Knows no file and no family's shape.
"""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from model.errors import CheckpointError

# Matches no name.
_NONE = re.compile(r"(?!)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """How the keys of a tower look in a checkpoint.

    anchor: the key that every such tower has once. Its group is the prefix of the tower's names: that of a whole model,
    and before it the prefix of a program that wrapped the model (`module.`, `base_model.model.`, `vision_tower.`).
    bare: how names begin in a tower without a prefix. prefixes: those of a whole model. beside: names that never have
    the prefix. ignored: names that are not read.
    """

    anchor: re.Pattern[str]
    bare: re.Pattern[str]
    prefixes: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    ignored: re.Pattern[str] = _NONE

    def of(self, keys: Collection[str]) -> Iterator[tuple[str, str]]:
        """The keys of the tower, each with its name without the prefix. keys: all, of every file."""
        prefix = self._prefix(keys)
        if prefix is None:
            return
        wrapper = next((prefix.removesuffix(each) for each in self.prefixes if prefix.endswith(each)), prefix)
        beside = {wrapper + name: name for name in self.beside}
        for key in keys:
            name = beside.get(key, key.removeprefix(prefix))
            under_prefix = key.startswith(prefix) and (prefix.endswith(self.prefixes) or self.bare.match(name))
            if (under_prefix or key in beside) and not self.ignored.fullmatch(name):
                yield key, name

    def _prefix(self, keys: Collection[str]) -> str | None:
        """What stands before every key of the tower, with a dot at its end; None if there is no such tower.

        Raises `CheckpointError` for two towers.
        """
        found = {match[1] for key in keys if (match := self.anchor.fullmatch(key))}
        prefixes = found & {"", *self.prefixes} or found
        if len(prefixes) > 1:
            named = ", ".join(sorted(prefixes))
            raise CheckpointError(f"the weights hold several towers, under {named}: save one alone")
        return prefixes.pop() if prefixes else None


VISION = Keys(
    anchor=re.compile(r"((?:[^.]+\.)*)embeddings\.patch_embedding\.weight"),
    prefixes=("vision_model.",),
    beside=("visual_projection.weight",),
    bare=re.compile(r"(embeddings|encoder|pre_layrnorm|post_layernorm|head)\."),
    # Old files also hold the position numbers 0, 1, 2, …
    ignored=re.compile(r"embeddings\.position_ids"),
)
"""Towers of SigLIP and CLIP."""
LOGITS = ("logit_scale", "logit_bias")
"""What turns cosines into logits, stored beside the text tower of a whole model."""
TEXT = Keys(
    anchor=re.compile(r"((?:[^.]+\.)*)embeddings\.token_embedding\.weight"),
    prefixes=("text_model.",),
    beside=("text_projection.weight", *LOGITS),
    bare=re.compile(r"(embeddings|encoder|final_layer_norm|head)\."),
    ignored=re.compile(r"embeddings\.position_ids"),
)
"""Their text towers."""
