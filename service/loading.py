"""Builds the runner that the settings ask for. Only this module of `service` imports torch, and only when called."""

import logging
import os
import time
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.deferred import import_torch
from service.calibration import Calibration, read_calibration
from service.engine.cost.fit import CostModel
from service.limits import DocumentFacts, Limits, ModelFacts, TextFacts
from service.settings.names import SettingsError, named
from service.settings.settings import Settings

if TYPE_CHECKING:
    from model.checkpoint.load import Checkpoint, DocumentCheckpoint
    from model.running.runner import Runner
    from model.running.texts import Texts
    from model.sizing.geometry import Geometry
    from model.texts.read import Around, Family
    from model.texts.rules import Cleaning
    from model.texts.tokenizer import TextTokenizer

# Torch's libraries read these when they are loaded. A variable that is set already stays as it is.
_TORCH_ENVIRONMENT = {
    # OpenMP threads that wait for one another would otherwise spin on cores that decoding threads could use.
    "OMP_WAIT_POLICY": "passive",
    # oneDNN keeps a compiled kernel for each shape, about a megabyte each, and torch keeps some alive too. Packs bring
    # ever new shapes: at the default of 1,024 each, the two caches grow past a gigabyte. One pack of a hundred
    # different lengths needs 200 at every layer, and takes 2.8 times as long without them.
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "256",
    "LRU_CACHE_CAPACITY": "32",
}

_log = logging.getLogger(__name__)


def load_runner(settings: Settings) -> tuple["Runner", ModelFacts]:
    """Reads the weights and puts them on the device.

    Raises `CheckpointError`, `BackendUnavailable`, or `SettingsError` for tiles that the model cannot take or for an
    int8 calibration that is not of its vectors.
    """
    calibration = read_calibration(settings.int8_calibration) if settings.int8_calibration else None
    for variable, value in _TORCH_ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    # Torch leaves a cycle behind that holds the frame which imports it, with all of its variables, until garbage is
    # collected. A start collects none, so the checkpoint is no variable here: its weights would stay in memory.
    import_torch()
    return _loaded(settings, calibration)


def _loaded(settings: Settings, calibration: Calibration | None) -> tuple["Runner", ModelFacts]:
    from model.checkpoint.load import load_checkpoint
    from model.running.devices import default_device, limit_threads
    from model.running.runner import Runner

    limit_threads()
    checkpoint = _with_tiles(
        load_checkpoint(settings.model, revision=settings.revision, text=settings.text_tower != "off"), settings
    )
    if settings.pooling:
        checkpoint = replace(checkpoint, config=checkpoint.config.pooled_by(settings.pooling))
    if checkpoint.text and not _has_tokenizer(checkpoint):
        checkpoint = replace(checkpoint, text=None)
    device = default_device() if settings.devices == "auto" else settings.devices
    runner = Runner(
        checkpoint,
        device=device,
        dtype=settings.dtype,
        attention=settings.attention,
        feature_layer=settings.feature_layer,
    )
    facts = ModelFacts(
        name=checkpoint.name,
        dim=runner.width,
        token_dim=runner.token_width,
        geometry=checkpoint.preprocessing.geometry,
        default_max_tokens=checkpoint.preprocessing.default_max_tokens,
        parameters=runner.parameters,
        fingerprint=runner.fingerprint(),
        fast_fingerprint=runner.fingerprint(decode="fast"),
        device=str(runner.device),
        dtype=runner.dtype_name,
        attention=runner.attention,
        card=checkpoint.card,
        text=_text_facts(checkpoint, runner, settings),
        matryoshka_dimensions=checkpoint.matryoshka_dimensions,
        pooling=checkpoint.config.chosen_pooling,
        language_positions=checkpoint.config.language_positions,
        old_fingerprints=runner.old_fingerprints(),
    )
    if calibration:
        facts = replace(facts, int8=calibration.scale_for(facts.fingerprint, facts.old_fingerprints))
    return runner, facts


def _has_tokenizer(checkpoint: "Checkpoint") -> bool:
    """Whether texts can be turned into ids."""
    from model.texts.read import FILES

    assert checkpoint.text
    if any((checkpoint.text.folder / name).exists() for name in FILES):
        return True
    _log.debug("%s takes no texts: its folder has no tokenizer (%s)", checkpoint.name, ", ".join(FILES))
    return False


def _text_facts(checkpoint: "Checkpoint", runner: "Runner", settings: Settings) -> TextFacts | None:
    """Raises `CheckpointError` for a tokenizer that cannot be read."""
    text, logits, tower = checkpoint.text, checkpoint.logits, runner.texts
    if checkpoint.documents is not None and tower is not None:
        return _named(_document_facts(checkpoint.documents), tower, settings)
    if text is None or logits is None or tower is None:
        return None
    facts = TextFacts(
        context=tower.context,
        preprocessing="",
        logit_scale=logits.scale,
        logit_bias=logits.bias,
        probability="softmax" if logits.bias is None else "sigmoid",
        fingerprint="",
        folder=str(text.folder),
        family=text.family,
        vocabulary=tower.vocabulary,
    )
    return _named(facts, tower, settings)


def _document_facts(documents: "DocumentCheckpoint") -> TextFacts:
    return TextFacts(
        context=documents.context,
        preprocessing="",
        logit_scale=None,
        logit_bias=None,
        probability=None,
        fingerprint="",
        folder=str(documents.folder),
        family="embedding_gemma2",
        vocabulary=documents.vocabulary,
        documents=DocumentFacts(documents.frame, documents.pooled, dict(documents.prompts), documents.default_prompt),
    )


def _named(facts: TextFacts, tower: "Texts", settings: Settings) -> TextFacts:
    """With the names of what makes ids and vectors of a text. Raises `CheckpointError`."""
    preprocessing = tokenizer_of(settings, facts).preprocessing
    return replace(
        facts,
        preprocessing=preprocessing,
        fingerprint=tower.fingerprint(preprocessing),
        old_fingerprints=tower.old_fingerprints(preprocessing),
    )


def tokenizer_of(settings: Settings, text: TextFacts) -> "TextTokenizer":
    """Needs no torch. Raises `CheckpointError`."""
    frame = text.documents.frame if text.documents else None
    around = (frame.start, frame.end) if frame else None
    return _tokenizer(
        text.folder, text.family, text.context, text.vocabulary, settings.text_cleaning, settings.max_text_chars, around
    )


# A vocabulary of 256,000 pieces and 580,000 merges takes 2 s to read and 320 MB to hold.
@lru_cache(maxsize=1)
def _tokenizer(
    folder: str,
    family: "Family",
    context: int,
    vocabulary: int,
    cleaning: "Cleaning",
    max_chars: int,
    around: "Around | None",
) -> "TextTokenizer":
    # A thread of ours is given one text at a time, for which a pool of threads is no use.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from model.texts.read import read_tokenizer

    return read_tokenizer(
        Path(folder),
        family=family,
        context=context,
        vocabulary=vocabulary,
        cleaning=cleaning,
        max_chars=max_chars,
        around=around,
    )


def forget_tokenizers() -> None:
    """The next one is read from its folder, which may have other files by then."""
    _tokenizer.cache_clear()


def _with_tiles(checkpoint: "Checkpoint", settings: Settings) -> "Checkpoint":
    """The checkpoint with the tiles that the settings ask for. Raises `SettingsError`."""
    geometry = checkpoint.preprocessing.geometry
    if settings.anyres_tile is not None:
        geometry = _changed(geometry, "anyres_tile", tile_side=settings.anyres_tile)
    if settings.anyres_pinpoints:
        geometry = _changed(geometry, "anyres_pinpoints", pinpoints=settings.anyres_pinpoints)
    return replace(checkpoint, preprocessing=replace(checkpoint.preprocessing, geometry=geometry))


def _changed(geometry: "Geometry", name: str, **change: Any) -> "Geometry":
    if "anyres" not in geometry.strategies:
        raise SettingsError(f"{name} is set, and the model does not take strategy=anyres")
    try:
        return replace(geometry, **change)
    except ValueError as error:
        raise SettingsError(f"{named(name)}: {error}") from None


def warm_up(runner: "Runner", limits: Limits) -> CostModel:
    """Runs packs of gray images, so that no request pays for what a device does once or for memory not yet taken.

    Returns what packs cost. Its rate is that of the largest pack: a low guess, since that pack was the first of its
    size.
    """
    cost = CostModel()
    for lengths in ([1], [limits.default_max_tokens], _fullest(limits)):
        began_s = time.monotonic()
        runner.warm_up(lengths)
        took_s = time.monotonic() - began_s
    if runner.texts:
        for tokens in (1, limits.max_batch_tokens):
            runner.texts.warm_up(tokens)
    cost.know_rate(sum(lengths), took_s)
    return cost


def _fullest(limits: Limits) -> list[int]:
    """As many of the largest images as a pack can hold, and one that fills the rest."""
    images, rest = divmod(limits.max_batch_tokens, limits.max_image_tokens)
    return [limits.max_image_tokens] * images + [rest] * bool(rest)
