"""Reads the tensors of a tower from the safetensors files of a folder. Never unpickles anything.

A missing, misshapen or unexpected tensor is a `CheckpointError` that names the file and the key. Knows no family of
encoders.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from model.checkpoint.foreign import missing_weights
from model.encoders.parts.fields import Fields, why_unreadable
from model.encoders.parts.keys import Keys
from model.errors import CheckpointError

WHOLE = "model.safetensors"
"""The file of a checkpoint that is not cut into shards."""
_INDEX = "model.safetensors.index.json"
_SMALL_BYTES = 1024**2


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Where a tensor is: its file, and its key in it."""

    path: Path
    key: str


def find_tensors(folder: Path, wanted: Keys) -> dict[str, StoredTensor]:
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
        total.update(tensor.flatten().view(torch.uint8).numpy().data)
    return total.hexdigest()


def _read(file: Any, stored: StoredTensor, shape: tuple[int, ...]) -> Tensor:
    found = tuple(file.get_slice(stored.key).get_shape())
    if found != shape:
        raise CheckpointError(f"{stored.path}: {stored.key} has shape {found}; config.json asks for {shape}")
    tensor: Tensor = file.get_tensor(stored.key)
    # C-RADIO's `summary_idxs` are numbers of rows.
    holds_rows = tensor.dtype == torch.int64 and stored.key.endswith("_idxs")
    if not holds_rows and (not tensor.dtype.is_floating_point or tensor.element_size() == 1):
        raise CheckpointError(
            f"{stored.path}: {stored.key} is stored as {tensor.dtype}; floats of 16 to 64 bits are read"
        )
    # A tensor refers to the whole file in memory. Small ones, such as norms and positions, are used as they are stored;
    # without a copy they would hold the large ones too, which a device or a kernel has in a form of its own.
    return tensor.clone() if tensor.nbytes <= _SMALL_BYTES else tensor


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        if (
            os.access(path, os.R_OK)
            and path.stat().st_size < 1024
            and path.read_bytes().startswith(b"version https://git-lfs")
        ):
            raise CheckpointError(f"{path} is a pointer of Git LFS, not the weights: run git lfs pull") from None
        # The library says that a file is not there if it may not be read.
        raise CheckpointError(why_unreadable(path) or f"{path} is not a whole safetensors file: {error}") from None


def weight_files(folder: Path, *wanted: Keys) -> list[str]:
    """Names of the files that hold tensors with one of these keys. An index says which, unless a whole file lies
    beside it.

    `save_pretrained` leaves the index of an earlier save there. Transformers then reads the whole file.
    """
    index = folder / _INDEX
    if (folder / WHOLE).exists() or not index.exists():
        return [WHOLE]
    shards = Fields.read(index).get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(name, str) for name in shards.values()):
        raise CheckpointError(f"{index}: weight_map is missing, or names no files")
    # Only the file's name is used: a path in an index must not lead out of the folder.
    return sorted({Path(shards[key]).name for keys in wanted for key, _ in keys.of(shards)})


def _weight_files(folder: Path, wanted: Keys) -> list[Path]:
    paths = [folder / name for name in weight_files(folder, wanted)]
    for path in paths:
        if path.exists():
            continue
        if why := why_unreadable(path):
            raise CheckpointError(why)
        if path.name != WHOLE:
            raise CheckpointError(f"{path} is missing, and {_INDEX} says that it holds weights: copy all files")
        raise missing_weights(path)
    return paths


def _listed(names: list[str]) -> str:
    shown = ", ".join(sorted(names)[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
