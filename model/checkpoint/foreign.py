"""Folders that other libraries write: what each is, and what to do to have it served. Reads no weights."""

import json
from pathlib import Path

from model.encoders.parts.fields import Fields, why_unreadable
from model.errors import CheckpointError

# Modules of sentence-transformers that leave the vector of the Transformers model as it is, or give it length 1.
_HARMLESS = {"Transformer", "CLIPModel", "Normalize"}
# Types whose vector is a mean over tokens without a module that says so.
_MEANS = {"embedding_gemma2"}
_SAVE = "save the model with Transformers' save_pretrained, which writes model.safetensors"
# Patterns of the names of weights that are not read, and what they are.
_OTHER_WEIGHTS = (
    (("open_clip_*",), "OpenCLIP's weights, whose tensors have other names"),
    (("*model*.bin", "*.pt", "*.pth", "*.ckpt"), "pickled weights only, and pickles are never read"),
    (("*.gguf",), "GGUF weights, those of llama.cpp"),
    (("*.onnx", "onnx/*.onnx"), "ONNX weights"),
    (("*.h5", "*.pb"), "TensorFlow's weights"),
    (("*.msgpack",), "Flax's weights"),
    (("*.safetensors",), "weights under another name, and no model.safetensors.index.json"),
)


def refuse_foreign(folder: Path) -> None:
    """Raises `CheckpointError` for a folder that no model, or another than its config.json's, is made of."""
    if (folder / "adapter_config.json").exists() or any(folder.glob("adapter_model.*")):
        raise CheckpointError(
            f"{folder} is an adapter (LoRA or alike){_base_of(folder)}: merge it into that model with peft's "
            "merge_and_unload, save the result with save_pretrained, and name its folder"
        )
    if (folder / "modules.json").exists():
        _refuse_modules(folder / "modules.json")
    if (folder / "config.json").exists():
        return
    if why := why_unreadable(folder / "config.json"):
        raise CheckpointError(why)
    if any(folder.glob("open_clip_*")):
        raise CheckpointError(
            f"{folder} is an OpenCLIP checkpoint: name the same model as Transformers saves it, with config.json and "
            "model.safetensors; for SigLIP, Google's own on the hub"
        )
    inner = sorted(path.parent.name for path in folder.glob("*/config.json"))
    hint = f"; there is one in its folder {inner[0]}" if inner else ""
    raise CheckpointError(
        f"{folder / 'config.json'} is missing: a checkpoint's folder holds config.json and model.safetensors, as "
        f"Transformers' save_pretrained writes them{hint}"
    )


def missing_weights(path: Path) -> CheckpointError:
    """What to say of a weight file that is not there."""
    for patterns, what in _OTHER_WEIGHTS:
        found = sorted(file.name for pattern in patterns for file in path.parent.glob(pattern))
        if found:
            return CheckpointError(f"{path} is missing: {path.parent} holds {what} ({found[0]}); {_SAVE}")
    return CheckpointError(f"{path} is missing, and no other weights are there; {_SAVE}")


def _base_of(folder: Path) -> str:
    """The model that the folder says it adapts."""
    path = folder / "adapter_config.json"
    base = Fields.read(path).get("base_model_name_or_path") if path.exists() else None
    return f" of {base}" if base else ", not a model"


def _is_its_mean(folder: Path, kind: str, module: str) -> bool:
    """Whether a module pools as the model's type does."""
    config, pooling = folder / "config.json", folder / module / "config.json"
    if kind != "Pooling" or not config.exists() or not pooling.exists():
        return False
    modes = Fields.read(pooling)
    wanted = [name for name in modes if name.startswith("pooling_mode_") and modes.get(name)]
    is_mean = modes.get("pooling_mode", "mean") == "mean" and wanted in ([], ["pooling_mode_mean_tokens"])
    return is_mean and Fields.read(config).get("model_type") in _MEANS


def _refuse_modules(path: Path) -> None:
    """For a sentence-transformers model that is more than a Transformers model, or keeps that in another folder."""
    try:
        modules = [
            (str(module["type"]).rpartition(".")[2], str(module["path"])) for module in json.loads(path.read_text())
        ]
    except (OSError, ValueError, TypeError, KeyError):
        raise CheckpointError(f"{path} is not the list of modules that sentence-transformers writes") from None
    others = [kind for kind, folder in modules if kind not in _HARMLESS and not _is_its_mean(path.parent, kind, folder)]
    if others:
        raise CheckpointError(
            f"{path.parent} is a sentence-transformers model whose vectors also go through {', '.join(others)}, which "
            "is not read: name a folder with its Transformers model alone, and without modules.json, to serve that"
        )
    if modules and modules[0][1]:
        raise CheckpointError(
            f"{path.parent} is a sentence-transformers model: its Transformers model lies in its folder "
            f"{modules[0][1]}; name that folder"
        )
