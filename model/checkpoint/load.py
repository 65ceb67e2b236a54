"""From the name of a model to the tensors and constants that an encoder is built from.

A name is `packlight-tiny` (in this package), a folder as Transformers' `save_pretrained` writes it, or a Hugging Face
hub id. Knows nothing of devices, and of families of encoders only that there are some.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from model.checkpoint import tiny
from model.checkpoint.weights import digest, find_tensors, read_tensors
from model.encoders.families import read_config
from model.encoders.parts.fields import Fields
from model.encoders.parts.preprocessing import Preprocessing
from model.encoders.parts.tower import EncoderConfig


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """Weights and what they were trained to see.

    tensors: by the names of `config.checkpoint_shapes`, as stored. digest: of them. card: the file that says what the
    model is good for, where it is known.
    """

    name: str
    config: EncoderConfig
    tensors: Mapping[str, Tensor]
    preprocessing: Preprocessing
    digest: str
    card: str | None = None


def load_checkpoint(name: str, *, revision: str | None = None) -> Checkpoint:
    """Raises `CheckpointError`. `revision` (a branch, tag or commit) applies to hub ids only."""
    if name == tiny.NAME:
        return _load_tiny()
    folder = Path(name).expanduser()
    if not name or not folder.is_dir():
        # Only now: what is here already is read where the hub's own package is not.
        from model.checkpoint import hub

        folder = hub.download(name, revision=revision)
    return _load_folder(name, folder)


def _load_tiny() -> Checkpoint:
    tensors = read_tensors(tiny.FOLDER, find_tensors(tiny.FOLDER), tiny.CONFIG.checkpoint_shapes())
    return Checkpoint(
        name=tiny.NAME,
        config=tiny.CONFIG,
        tensors=tensors,
        preprocessing=tiny.PREPROCESSING,
        digest=digest(tensors),
        card=tiny.CARD,
    )


def _load_folder(name: str, folder: Path) -> Checkpoint:
    fields = Fields.read(folder / "config.json")
    stored = find_tensors(folder)
    config = read_config(fields, stored)
    preprocessing = config.preprocessing(_preprocessor_fields(folder))
    tensors = read_tensors(folder, stored, config.checkpoint_shapes())
    return Checkpoint(name=name, config=config, tensors=tensors, preprocessing=preprocessing, digest=digest(tensors))


def _preprocessor_fields(folder: Path) -> Fields:
    """What is said of pictures, by the newer of two files first, as Transformers does; nothing where neither exists."""
    newer, older = folder / "processor_config.json", folder / "preprocessor_config.json"
    if newer.exists():
        section = Fields.read(newer).section("image_processor")
        if section:
            return section
    return Fields.read(older) if older.exists() else Fields(older, {})
