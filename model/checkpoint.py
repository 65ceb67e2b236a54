"""From the name of a model to the tensors and constants that an encoder is built from.

A name is `packlight-tiny` (in this package), a folder as Transformers' `save_pretrained` writes it, or a Hugging Face
hub id. Only safetensors files are read, and of those only the vision tower; nothing is ever unpickled. What is missing,
misshapen or unexpected is an error that names file and key. Knows nothing of devices.
"""

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from model import hub, tiny
from model.encoders.naflex import NaFlexConfig, checkpoint_shapes
from model.errors import CheckpointError

# What Transformers' configuration classes take for a key that config.json leaves out.
_VISION_DEFAULTS: dict[str, Any] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_channels": 3,
    "patch_size": 16,
    "num_patches": 256,
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6,
    "vision_use_head": True,
}
_COUNTS = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "patch_size",
    "num_patches",
)
# What a preprocessor may say beside mean, std and budget: pictures are prepared in this manner and no other.
_PREPARED = {
    "do_resize": True,
    "do_rescale": True,
    "do_normalize": True,
    "resample": 2,
    "rescale_factor": 1 / 255,
}
_PREFIX = "vision_model."
_TOWER = re.compile(r"(embeddings|encoder|post_layernorm|head)\.")

_Channels = tuple[float, float, float]


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """Weights and what they were trained to see.

    tensors: by the names of `checkpoint_shapes`, as stored. mean and std: of RGB values from 0 to 1.
    digest: SHA-256 of names, dtypes, shapes and bytes of the tensors. notice: what a user must know before trusting
    the embeddings, or None.
    """

    name: str
    config: NaFlexConfig
    tensors: Mapping[str, Tensor]
    mean: _Channels
    std: _Channels
    default_max_tokens: int
    digest: str
    notice: str | None = None


def load_checkpoint(name: str, *, revision: str | None = None) -> Checkpoint:
    """Raises `CheckpointError`. `revision` (a branch, tag or commit) applies to hub ids only."""
    if name == tiny.NAME:
        tensors = tiny.seeded_tensors()
        return Checkpoint(
            name=name,
            config=tiny.CONFIG,
            tensors=tensors,
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
            default_max_tokens=256,
            digest=_digest(tensors),
            notice=tiny.NOTICE,
        )
    folder = Path(name).expanduser()
    if not name or not folder.is_dir():
        folder = hub.download(name, revision=revision)
    return _load_folder(name, folder)


def _load_folder(name: str, folder: Path) -> Checkpoint:
    config = _read_config(folder / "config.json")
    mean, std, default_max_tokens = _read_preprocessing(folder / "preprocessor_config.json", config)
    tensors = _read_tensors(folder, checkpoint_shapes(config))
    return Checkpoint(
        name=name,
        config=config,
        tensors=tensors,
        mean=mean,
        std=std,
        default_max_tokens=default_max_tokens,
        digest=_digest(tensors),
    )


def _read_preprocessing(path: Path, config: NaFlexConfig) -> tuple[_Channels, _Channels, int]:
    """Mean, standard deviation and default budget; those of SigLIP 2 where the file does not exist."""
    content = _read_json(path) if path.exists() else {}
    for key, wanted in (_PREPARED | {"patch_size": config.patch_size}).items():
        if content.get(key, wanted) != wanted:
            raise CheckpointError(f"{path}: {key} is {content[key]!r}; only {wanted!r} is supported")
    default_max_tokens = content.get("max_num_patches", 256)
    if not isinstance(default_max_tokens, int) or default_max_tokens < 1:
        raise CheckpointError(f"{path}: max_num_patches is {default_max_tokens!r}; it is a positive whole number")
    mean, std = (_three_numbers(path, key, content.get(key) or [0.5, 0.5, 0.5]) for key in ("image_mean", "image_std"))
    if min(std) <= 0:
        raise CheckpointError(f"{path}: image_std is {list(std)}; each is above 0")
    return mean, std, default_max_tokens


def _three_numbers(path: Path, key: str, value: object) -> _Channels:
    if not isinstance(value, list) or len(value) != 3 or not all(isinstance(part, int | float) for part in value):
        raise CheckpointError(f"{path}: {key} is {value!r}; it is a list of three numbers")
    return float(value[0]), float(value[1]), float(value[2])


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is not readable as JSON: {error}") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} does not hold a JSON object")
    return content


def _vision_section(path: Path) -> dict[str, Any]:
    """What a config.json says of its vision tower, with the defaults of what it leaves out."""
    content = _read_json(path)
    model_type = content.get("model_type")
    if model_type == "siglip2":
        content = content.get("vision_config") or {}
        if not isinstance(content, dict):
            raise CheckpointError(f"{path}: vision_config is not an object")
    elif model_type != "siglip2_vision_model":
        raise CheckpointError(
            f"{path}: model_type is {model_type!r}; 'siglip2' and 'siglip2_vision_model' (NaFlex) are read. "
            "Fixed-resolution SigLIP and SigLIP 2 checkpoints say 'siglip'"
        )
    return _VISION_DEFAULTS | content


def _read_config(path: Path) -> NaFlexConfig:
    vision = _vision_section(path)

    def require(key: str, wanted: object) -> None:
        if vision[key] != wanted:
            raise CheckpointError(f"{path}: {key} is {vision[key]!r}; only {wanted!r} is supported")

    require("num_channels", 3)
    require("hidden_act", "gelu_pytorch_tanh")
    require("vision_use_head", True)
    for key in _COUNTS:
        if not isinstance(vision[key], int) or vision[key] < 1:
            raise CheckpointError(f"{path}: {key} is {vision[key]!r}; it is a positive whole number")
    if not isinstance(vision["layer_norm_eps"], float) or not vision["layer_norm_eps"] > 0:
        raise CheckpointError(f"{path}: layer_norm_eps is {vision['layer_norm_eps']!r}; it is a positive number")
    side = math.isqrt(vision["num_patches"])
    if side**2 != vision["num_patches"]:
        raise CheckpointError(f"{path}: num_patches is {vision['num_patches']}, which is not the square of a side")
    if vision["hidden_size"] % vision["num_attention_heads"]:
        raise CheckpointError(f"{path}: hidden_size is not a multiple of num_attention_heads")
    return NaFlexConfig(
        width=vision["hidden_size"],
        depth=vision["num_hidden_layers"],
        heads=vision["num_attention_heads"],
        mlp_width=vision["intermediate_size"],
        patch_size=vision["patch_size"],
        table_side=side,
        eps=vision["layer_norm_eps"],
    )


def _read_tensors(folder: Path, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Every tensor of the vision tower, and nothing else of the files, under its name without the prefix."""
    tensors: dict[str, Tensor] = {}
    unexpected: list[str] = []
    for path in _weight_files(folder):
        try:
            with safe_open(path, framework="pt") as file:
                for key, name in _tower_keys(list(file.keys())):
                    if name not in shapes:
                        unexpected.append(key)
                        continue
                    found = tuple(file.get_slice(key).get_shape())
                    if found != shapes[name]:
                        raise CheckpointError(f"{path}: {key} has shape {found}; config.json asks for {shapes[name]}")
                    tensors[name] = file.get_tensor(key)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path} is not a whole safetensors file: {error}") from None
    _check_complete(folder, tensors, shapes, unexpected)
    return tensors


def _check_complete(
    folder: Path, tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], unexpected: list[str]
) -> None:
    if missing := [name for name in shapes if name not in tensors]:
        raise CheckpointError(f"{folder}: the weights lack {_listed(missing)}")
    if unexpected:
        raise CheckpointError(
            f"{folder}: the weights hold {_listed(unexpected)}, which config.json does not account for"
        )
    for name, tensor in tensors.items():
        if not tensor.dtype.is_floating_point or tensor.element_size() == 1:
            raise CheckpointError(f"{folder}: {name} is stored as {tensor.dtype}; float32, bfloat16, float16 are read")


def _weight_files(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    if index.exists():
        shards = _read_json(index).get("weight_map")
        if not isinstance(shards, dict):
            raise CheckpointError(f"{index}: weight_map is missing")
        # A path in an index never leads out of its folder.
        return [_existing(folder / Path(shard).name) for shard in sorted({*shards.values()})]
    single = folder / "model.safetensors"
    if not single.exists() and list(folder.glob("*.bin")) + list(folder.glob("*.pt")):
        raise CheckpointError(f"{single} is missing: {folder} holds pickled weights only, and pickles are never read")
    return [_existing(single)]


def _existing(path: Path) -> Path:
    if not path.exists():
        raise CheckpointError(f"{path} is missing")
    return path


def _tower_keys(keys: list[str]) -> Iterator[tuple[str, str]]:
    """Keys of the vision tower and their names without prefix: checkpoints of the tower alone may lack the prefix."""
    for key in keys:
        if key.startswith(_PREFIX):
            yield key, key.removeprefix(_PREFIX)
        elif _TOWER.match(key):
            yield key, key


def _listed(names: list[str]) -> str:
    shown = ", ".join(sorted(names)[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.view(torch.uint8).numpy().data)
    return digest.hexdigest()
