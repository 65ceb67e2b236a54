"""Fetches a checkpoint from the Hugging Face hub, or finds it in the local cache."""

import re
from pathlib import Path

import huggingface_hub
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from model.checkpoint.weights import WHOLE, weight_files
from model.encoders.families import find_family
from model.encoders.parts.fields import Fields
from model.encoders.parts.keys import TEXT
from model.errors import CheckpointError
from model.texts import read as texts

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_DESCRIPTIONS = [
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "model.safetensors.index.json",
    *texts.FILES,
    "tokenizer_config.json",
    "config_sentence_transformers.json",
    "sentence_bert_config.json",
    # Read only to say what a model is that is not served.
    "adapter_config.json",
    "modules.json",
    "open_clip_config.json",
]


def download(name: str, *, revision: str | None) -> Path:
    """The folder with the files of a hub id: its descriptions, and the weight files that hold the towers.

    Without a network the files come from the cache. Raises `CheckpointError`.
    """
    if not _HUB_ID.fullmatch(name):
        raise CheckpointError(
            f"model is {name!r}: no such folder, and not a hub id such as google/siglip2-base-patch16-naflex"
        )
    at = f" at revision {revision}" if revision else ""
    try:
        wanted = [*_DESCRIPTIONS, WHOLE]
        folder = Path(huggingface_hub.snapshot_download(name, revision=revision, allow_patterns=wanted))
        if not (folder / WHOLE).exists():
            # A snapshot's folder is named for its commit. This one cannot change between two calls, as a branch can.
            vision = find_family(Fields.read(folder / "config.json")).keys
            files = weight_files(folder, vision, TEXT)
            huggingface_hub.snapshot_download(name, revision=folder.name, allow_patterns=files)
        return folder
    except CheckpointError:
        raise
    except GatedRepoError:
        raise CheckpointError(f"model {name}{at} is gated on the hub: accept its terms and set HF_TOKEN") from None
    except RevisionNotFoundError:
        raise CheckpointError(f"model {name} has no revision {revision!r} on the hub") from None
    except RepositoryNotFoundError:
        raise CheckpointError(f"model {name} is neither a folder here nor on the hub") from None
    except LocalEntryNotFoundError:
        raise CheckpointError(
            f"model {name}{at} is not in the local cache, and the hub cannot be reached: "
            "download it on a machine with a network, or name a folder"
        ) from None
    except HFValidationError as error:
        raise CheckpointError(f"model is {name!r}: {error}") from None
    except Exception as error:
        # A broken connection, a full disk and the like raise many kinds of exceptions.
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise CheckpointError(f"model {name}{at} could not be downloaded: {reason}") from error
