"""From the name of a model to the tensors and constants that an encoder is built from.

A name is `packlight-tiny` (in this package), a folder written by Transformers' `save_pretrained`, or a Hugging Face hub
id. Knows no device and no particular family of encoders.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from model.checkpoint import tiny
from model.checkpoint.foreign import refuse_foreign
from model.checkpoint.weights import WHOLE, digest, find_tensors, read_tensors
from model.encoders.families import find_reader
from model.encoders.parts.fields import Fields
from model.encoders.parts.preprocessing import Preprocessing
from model.encoders.parts.tower import EncoderConfig
from model.errors import CheckpointError


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """Weights, and how to prepare the pictures they expect.

    tensors: under the names of `config.checkpoint_shapes`, as stored. digest: of the tensors. card: the file that says
    what the model is good for, if there is one.
    """

    name: str
    config: EncoderConfig
    tensors: Mapping[str, Tensor]
    preprocessing: Preprocessing
    digest: str
    card: str | None = None


def load_checkpoint(name: str, *, revision: str | None = None) -> Checkpoint:
    """revision: a branch, tag or commit, for hub ids only. Raises `CheckpointError`."""
    if name == tiny.NAME:
        return _load_tiny()
    folder = Path(name).expanduser()
    if folder.is_file():
        raise CheckpointError(f"{folder} is a file: name the folder that holds it and config.json")
    if not name or not folder.is_dir():
        # Imported late: a model that is here already can be read without the hub's package.
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
    refuse_foreign(folder)
    fields = Fields.read(folder / "config.json")
    reader = find_reader(fields)
    fields.require({"transformers_weights": WHOLE})
    stored = find_tensors(folder)
    config = reader(fields, stored)
    preprocessing = config.preprocessing(_preprocessor_fields(folder))
    tensors = read_tensors(folder, stored, config.checkpoint_shapes())
    return Checkpoint(name=name, config=config, tensors=tensors, preprocessing=preprocessing, digest=digest(tensors))


def _preprocessor_fields(folder: Path) -> Fields:
    """The fields about pictures: from the newer of two files first, as in Transformers; no fields without a file."""
    newer, older = folder / "processor_config.json", folder / "preprocessor_config.json"
    if newer.exists():
        section = Fields.read(newer).section("image_processor")
        if section:
            return section
    return Fields.read(older) if older.exists() else Fields(older, {})
