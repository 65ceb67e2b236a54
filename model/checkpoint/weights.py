"""Reads the tensors of a tower from the safetensors files of a folder. Never unpickles anything.

A missing, misshapen or unexpected tensor is a `CheckpointError` that names the file and the key. Knows no family of
encoders.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from model.encoders.parts.fields import Fields
from model.errors import CheckpointError


@dataclass(frozen=True, slots=True)
class Keys:
    """How the keys of a tower look in a checkpoint.

    prefix: what is removed from a key to make its name. bare: how names without a prefix begin. ignored: names that are
    not read.
    """

    prefix: re.Pattern[str]
    bare: re.Pattern[str]
    ignored: re.Pattern[str]

    def of(self, keys: Iterable[str]) -> Iterator[tuple[str, str]]:
        """The keys of the tower, each with its name without the prefix."""
        for key in keys:
            name = self.prefix.sub("", key)
            if not self.ignored.fullmatch(name) and (name != key or self.bare.match(name)):
                yield key, name


# Checkpoints of a tower alone may lack the prefix, and a projection never has it. Old files also hold the position
# numbers 0, 1, 2, …, and timm's hold a classifier.
VISION = Keys(
    prefix=re.compile(r"^(vision_model|(model\.)?visual)\."),
    bare=re.compile(
        r"(embeddings|encoder|pre_layrnorm|post_layernorm|head|visual_projection)\."
        r"|(patch_embed|pos_embed|blocks|merger|deepstack_merger_list)\."  # Qwen's
        r"|(embeds|blocks|norm|fc_norm|attn_pool)\."  # timm's
    ),
    ignored=re.compile(r"embeddings\.position_ids|head\.(weight|bias)"),
)
_TEXT_PREFIX, _POSITION_IDS = re.compile(r"^text_model\."), re.compile(r"embeddings\.position_ids")
TEXT = Keys(prefix=_TEXT_PREFIX, bare=re.compile(r"text_projection\."), ignored=_POSITION_IDS)
TEXT_ALONE = Keys(
    prefix=_TEXT_PREFIX,
    bare=re.compile(r"(embeddings|encoder|final_layer_norm|head|text_projection)\."),
    ignored=_POSITION_IDS,
)
# What turns cosines into logits.
LOGITS = Keys(prefix=re.compile(r"$."), bare=re.compile(r"logit_(scale|bias)$"), ignored=re.compile(r"$."))


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Where a tensor is: its file, and its key in it."""

    path: Path
    key: str


def find_tensors(folder: Path, wanted: Keys = VISION) -> dict[str, StoredTensor]:
    """Every tensor with one of these keys, under its name without the prefix. Raises `CheckpointError`."""
    found: dict[str, StoredTensor] = {}
    for path in _weight_files(folder, wanted):
        with _opened(path) as file:
            found |= {name: StoredTensor(path, key) for key, name in wanted.of(file.keys())}
    return found


def read_tensors(
    folder: Path, stored: Mapping[str, StoredTensor], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, Tensor]:
    """The tensors that `shapes` names, as stored. Raises `CheckpointError`, also if there are others."""
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
        raise CheckpointError(f"{path} is not a whole safetensors file: {error}") from None


def weight_files(folder: Path, *wanted: Keys) -> list[str]:
    """Names of the files that hold tensors with one of these keys. If there is an index, it says which."""
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        return ["model.safetensors"]
    shards = Fields.read(index).get("weight_map")
    if not isinstance(shards, dict):
        raise CheckpointError(f"{index}: weight_map is missing")
    # Only the file's name is used: a path in an index must not lead out of the folder.
    return sorted({Path(shards[key]).name for keys in wanted for key, _ in keys.of(shards)})


def _weight_files(folder: Path, wanted: Keys) -> list[Path]:
    paths = [folder / name for name in weight_files(folder, wanted)]
    for path in paths:
        if not path.exists():
            pickled = [*folder.glob("*.bin"), *folder.glob("*.pt")]
            why = f": {folder} holds pickled weights only, and pickles are never read" if pickled else ""
            raise CheckpointError(f"{path} is missing{why}")
    return paths


def _listed(names: list[str]) -> str:
    shown = ", ".join(sorted(names)[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
