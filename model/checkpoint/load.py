"""From the name of a model to the tensors and constants that an encoder is built from.

A name is `packlight-tiny` (in this package), a folder written by Transformers' `save_pretrained`, or a Hugging Face hub
id. Knows no device and no particular family of encoders.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from torch import Tensor

from model.checkpoint import tiny
from model.checkpoint.foreign import refuse_foreign
from model.checkpoint.weights import WHOLE, StoredTensor, digest, find_tensors, read_tensors
from model.encoders.families import TEXT_READERS, find_family, read_text_config
from model.encoders.gemma.config import GemmaConfig
from model.encoders.gemma.frame import Frame
from model.encoders.parts.fields import Fields
from model.encoders.parts.keys import LOGITS, TEXT, VISION
from model.encoders.parts.preprocessing import Preprocessing
from model.encoders.parts.text_tower import TextConfig
from model.encoders.parts.tower import EncoderConfig
from model.errors import CheckpointError

if TYPE_CHECKING:
    # Its module needs the package that reads tokenizers, and a tower alone does not.
    from model.texts.read import Family

# Before `exp`. The largest that float32 holds is 88.
_MAX_LOGIT_SCALE = 80.0


@dataclass(frozen=True, slots=True, eq=False)
class TextCheckpoint:
    """The weights of a text tower.

    tensors: under the names of `config.checkpoint_shapes`, as stored. digest: of the tensors. folder: where they came
    from, for a tokenizer. family: `siglip2`, `siglip` or `clip`.
    """

    config: TextConfig
    tensors: Mapping[str, Tensor]
    digest: str
    folder: Path
    family: "Family"


@dataclass(frozen=True, slots=True)
class DocumentCheckpoint:
    """How texts and pictures become documents of one vector.

    context: the most tokens of a text. vocabulary: ids are below it. frame: the ids around a document and around a
    picture in it. pooled: patches a side of a soft token. prompts: by their names, what the model was trained to read
    before a text for each task. default_prompt: the name of the one for texts without a task, None for none.
    folder: for a tokenizer.
    """

    context: int
    vocabulary: int
    frame: Frame
    pooled: int
    prompts: Mapping[str, str]
    default_prompt: str | None
    folder: Path


@dataclass(frozen=True, slots=True)
class Logits:
    """How a cosine of an image and a text becomes a logit: times `scale`, plus `bias`.

    With a bias, each logit is for a sigmoid; without one, the logits of an image are for a softmax.
    """

    scale: float
    bias: float | None


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """Weights, and how to prepare the pictures they expect.

    tensors: under the names of `config.checkpoint_shapes`, as stored. digest: of the tensors. card: the file that says
    what the model is good for, if there is one. documents: None if the model does not fuse texts and pictures. text:
    the text tower, whose vectors lie in the same space; None if the model has none. logits: None without `text`.
    matryoshka_dimensions: how many of its first numbers an embedding may be cut to, empty for any; None if the
    configuration does not say that it may be cut.
    """

    name: str
    config: EncoderConfig
    tensors: Mapping[str, Tensor]
    preprocessing: Preprocessing
    digest: str
    card: str | None = None
    documents: DocumentCheckpoint | None = None
    text: TextCheckpoint | None = None
    logits: Logits | None = None
    matryoshka_dimensions: tuple[int, ...] | None = None


def load_checkpoint(name: str, *, revision: str | None = None, text: bool = True) -> Checkpoint:
    """revision: a branch, tag or commit, for hub ids only. text: read the text tower, if there is one.

    Raises `CheckpointError`.
    """
    if name == tiny.NAME:
        return _load_tiny()
    return _load_folder(name, _folder(name, revision), text=text)


def load_text(name: str, *, revision: str | None = None) -> TextCheckpoint:
    """The text tower of a whole model, or of a folder that holds one alone. Raises `CheckpointError`."""
    folder = _folder(name, revision)
    return _load_text(Fields.read(folder / "config.json"), folder, find_tensors(folder, TEXT))


def _folder(name: str, revision: str | None) -> Path:
    folder = Path(name).expanduser()
    if folder.is_file():
        raise CheckpointError(f"{folder} is a file: name the folder that holds it and config.json")
    if name and folder.is_dir():
        return folder
    # Imported late: a model that is here already can be read without the hub's package.
    from model.checkpoint import hub

    return hub.download(name, revision=revision)


def _load_tiny() -> Checkpoint:
    tensors = read_tensors(tiny.FOLDER, find_tensors(tiny.FOLDER, VISION), tiny.CONFIG.checkpoint_shapes())
    return Checkpoint(
        name=tiny.NAME,
        config=tiny.CONFIG,
        tensors=tensors,
        preprocessing=tiny.PREPROCESSING,
        digest=digest(tensors),
        card=tiny.CARD,
    )


def _load_folder(name: str, folder: Path, *, text: bool) -> Checkpoint:
    refuse_foreign(folder)
    fields = Fields.read(folder / "config.json")
    family = find_family(fields)
    fields.require({"transformers_weights": WHOLE})
    stored = find_tensors(folder, family.keys)
    config = family.read_config(fields, stored)
    preprocessing = config.preprocessing(_preprocessor_fields(folder))
    tensors = read_tensors(folder, stored, config.checkpoint_shapes())
    checkpoint = Checkpoint(
        name=name,
        config=config,
        tensors=tensors,
        preprocessing=preprocessing,
        digest=digest(tensors),
        matryoshka_dimensions=_matryoshka_dimensions(fields, config),
        documents=_load_documents(config, folder) if text and isinstance(config, GemmaConfig) else None,
    )
    if not text or fields.get("model_type") not in TEXT_READERS:
        return checkpoint
    stored_text = find_tensors(folder, TEXT)
    if not stored_text:
        return checkpoint
    tower = _load_text(fields, folder, stored_text)
    if tower.config.embedding_width != config.embedding_width:
        raise CheckpointError(
            f"{fields.path}: text vectors have {tower.config.embedding_width} numbers, and image vectors "
            f"{config.embedding_width}: they lie in no common space"
        )
    return replace(checkpoint, text=tower, logits=_load_logits(fields, folder, stored_text))


def _matryoshka_dimensions(fields: Fields, config: EncoderConfig) -> tuple[int, ...] | None:
    """From the keys that vLLM reads: `matryoshka_dimensions`, a list or one number, or `is_matryoshka`.

    Vectors of EmbeddingGemma 2 may be cut, whether its file says so or not.
    """
    if listed := fields.get("matryoshka_dimensions"):
        listed = [listed] if type(listed) is int else listed
        if not isinstance(listed, list) or not all(type(count) is int and count > 0 for count in listed):
            raise fields.error("matryoshka_dimensions", "it is a list of positive whole numbers")
        return tuple(sorted({*listed}))
    return () if fields.get("is_matryoshka") is True or isinstance(config, GemmaConfig) else None


def _load_documents(config: GemmaConfig, folder: Path) -> DocumentCheckpoint:
    """With the prompts that sentence-transformers saves."""
    path = folder / "config_sentence_transformers.json"
    stored = Fields.read(path) if path.exists() else Fields(path, {})
    prompts, default = stored.get("prompts") or {}, stored.get("default_prompt_name")
    if not isinstance(prompts, dict) or not all(isinstance(prompt, str) for prompt in prompts.values()):
        raise stored.error("prompts", "it is an object of texts")
    if default is not None and not (isinstance(default, str) and default in prompts):
        raise stored.error("default_prompt_name", f"prompts are {', '.join(prompts)}")
    return DocumentCheckpoint(config.context, config.vocabulary, config.frame, config.pooled, prompts, default, folder)


def _load_text(fields: Fields, folder: Path, stored: Mapping[str, StoredTensor]) -> TextCheckpoint:
    config = read_text_config(fields, stored)
    tower = {name: tensor for name, tensor in stored.items() if name not in LOGITS}
    tensors = read_tensors(folder, tower, config.checkpoint_shapes())
    family = str(fields.get("model_type")).removesuffix("_text_model")
    return TextCheckpoint(
        config=config, tensors=tensors, digest=digest(tensors), folder=folder, family=cast("Family", family)
    )


def _load_logits(fields: Fields, folder: Path, stored: Mapping[str, StoredTensor]) -> Logits:
    """SigLIP stores a scale and a bias, of shape `[1]`; CLIP a scale alone, of shape `[]`."""
    has_bias = fields.get("model_type") != "clip"
    shapes = {"logit_scale": (1,), "logit_bias": (1,)} if has_bias else {"logit_scale": ()}
    tensors = read_tensors(folder, {name: stored[name] for name in LOGITS if name in stored}, shapes)
    scale, bias = float(tensors["logit_scale"]), float(tensors["logit_bias"]) if has_bias else None
    if not (scale < _MAX_LOGIT_SCALE and math.isfinite(scale + (bias or 0.0))):
        raise CheckpointError(f"{folder}: logit_scale is {scale} and logit_bias {bias}: they make no logits")
    return Logits(math.exp(scale), bias)


def _preprocessor_fields(folder: Path) -> Fields:
    """The fields about pictures: from the newer of two files first, as in Transformers; no fields without a file."""
    newer, older = folder / "processor_config.json", folder / "preprocessor_config.json"
    if newer.exists():
        section = Fields.read(newer).section("image_processor")
        if section:
            return section
    return Fields.read(older) if older.exists() else Fields(older, {})
