"""Reads the tensors of a tower from the safetensors files of a folder. Never unpickles anything.

A missing, misshapen or unexpected tensor is a `CheckpointError` that names the file and the key. Knows no family of
encoders.
"""

import hashlib
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from model.checkpoint.foreign import missing_weights
from model.encoders.parts.fields import Fields
from model.errors import CheckpointError

WHOLE = "model.safetensors"
"""The file of a checkpoint that is not cut into shards."""


@dataclass(frozen=True, slots=True)
class Keys:
    """How the keys of a tower look in a checkpoint.

    anchor: the key that every such tower has once; its group is what stands before the tower's names: the prefix of a
    whole model, and before that what a program put there that wrapped it (`module.`, `base_model.model.`,
    `vision_tower.` and the like). prefixes: those of a whole model. beside: names that never have the prefix. bare: how
    names begin in a tower without a prefix. ignored: names that are not read.
    """

    anchor: re.Pattern[str]
    prefixes: tuple[str, ...]
    beside: tuple[str, ...]
    bare: re.Pattern[str]
    ignored: re.Pattern[str]

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
            raise CheckpointError(f"the weights hold several towers, under {_listed([*prefixes])}: save one alone")
        return prefixes.pop() if prefixes else None


VISION = Keys(
    anchor=re.compile(r"((?:[^.]+\.)*)(?:embeddings\.patch_embedding|patch_embed\.proj|embeds\.proj)\.weight"),
    prefixes=("vision_model.", "visual."),
    beside=("visual_projection.weight",),
    bare=re.compile(
        r"(embeddings|encoder|pre_layrnorm|post_layernorm|head)\."
        r"|(patch_embed|pos_embed|blocks|merger|deepstack_merger_list)\."  # Qwen's
        r"|(embeds|blocks|norm|fc_norm|attn_pool)\."  # timm's
    ),
    # Old files also hold the position numbers 0, 1, 2, …, and timm's hold a classifier.
    ignored=re.compile(r"embeddings\.position_ids|head\.(weight|bias)"),
)
LOGITS = ("logit_scale", "logit_bias")
"""What turns cosines into logits, stored beside the text tower of a whole model."""
TEXT = Keys(
    anchor=re.compile(r"((?:[^.]+\.)*)embeddings\.token_embedding\.weight"),
    prefixes=("text_model.",),
    beside=("text_projection.weight", *LOGITS),
    bare=re.compile(r"(embeddings|encoder|final_layer_norm|head)\."),
    ignored=re.compile(r"embeddings\.position_ids"),
)


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Where a tensor is: its file, and its key in it."""

    path: Path
    key: str


def find_tensors(folder: Path, wanted: Keys = VISION) -> dict[str, StoredTensor]:
    """Every tensor with one of these keys, under its name without the prefix. Raises `CheckpointError`."""
    paths: dict[str, Path] = {}
    for path in _weight_files(folder, wanted):
        with _opened(path) as file:
            paths |= dict.fromkeys(file.keys(), path)
    return {name: StoredTensor(paths[key], key) for key, name in wanted.of(paths)}


def read_tensors(
    folder: Path, stored: Mapping[str, StoredTensor], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, Tensor]:
    """The tensors that `shapes` names, as stored. Raises `CheckpointError`, also if there are others."""
    if any(".lora_" in name or ".base_layer." in name for name in stored):
        raise CheckpointError(
            f"{folder}: the weights hold LoRA layers beside those that they adapt: merge them with peft's "
            "merge_and_unload, and save the result with save_pretrained"
        )
    if missing := [name for name in shapes if name not in stored]:
        raise CheckpointError(f"{folder}: the weights lack {_listed(missing)}")
    if unexpected := [tensor.key for name, tensor in stored.items() if name not in shapes]:
        raise CheckpointError(
            f"{folder}: the weights hold {_listed(unexpected)}, which config.json does not account for"
        )
    tensors: dict[str, Tensor] = {}
    for path in sorted({tensor.path for tensor in stored.values()}):
        with _opened(path) as file:
            for name, tensor in stored.items():
                if tensor.path == path:
                    tensors[name] = _read(file, tensor, shapes[name])
    return tensors


def digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, dtypes, shapes and bytes."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        total.update(tensor.view(torch.uint8).numpy().data)
    return total.hexdigest()


def _read(file: Any, stored: StoredTensor, shape: tuple[int, ...]) -> Tensor:
    found = tuple(file.get_slice(stored.key).get_shape())
    if found != shape:
        raise CheckpointError(f"{stored.path}: {stored.key} has shape {found}; config.json asks for {shape}")
    tensor: Tensor = file.get_tensor(stored.key)
    if not tensor.dtype.is_floating_point or tensor.element_size() == 1:
        raise CheckpointError(
            f"{stored.path}: {stored.key} is stored as {tensor.dtype}; float32, bfloat16, float16 are read"
        )
    return tensor


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        if path.stat().st_size < 1024 and path.read_bytes().startswith(b"version https://git-lfs"):
            raise CheckpointError(f"{path} is a pointer of Git LFS, not the weights: run git lfs pull") from None
        raise CheckpointError(f"{path} is not a whole safetensors file: {error}") from None


def weight_files(folder: Path, *wanted: Keys) -> list[str]:
    """Names of the files that hold tensors with one of these keys. An index says which, unless a whole file lies
    beside it.

    `save_pretrained` leaves the index of an earlier save there. Transformers then reads the whole file.
    """
    index = folder / "model.safetensors.index.json"
    if (folder / WHOLE).exists() or not index.exists():
        return [WHOLE]
    shards = Fields.read(index).get("weight_map")
    if not isinstance(shards, dict):
        raise CheckpointError(f"{index}: weight_map is missing")
    # Only the file's name is used: a path in an index must not lead out of the folder.
    return sorted({Path(shards[key]).name for keys in wanted for key, _ in keys.of(shards)})


def _weight_files(folder: Path, wanted: Keys) -> list[Path]:
    paths = [folder / name for name in weight_files(folder, wanted)]
    for path in paths:
        if not path.exists():
            raise missing_weights(path)
    return paths


def _listed(names: list[str]) -> str:
    shown = ", ".join(sorted(names)[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
