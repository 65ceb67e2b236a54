"""What tells vectors apart that do not belong in one index."""

import hashlib
import json
from dataclasses import asdict

from model.checkpoint.load import Checkpoint
from model.encoders.parts.text_tower import TextConfig
from model.fingerprint import FAST, written

# Changes whenever the same bytes would become other patch rows: new vectors must not mix with old ones then.
_PREPROCESSING = "exif, white under alpha, pillow {} uint8, 2"
# The dtypes that there were when a fingerprint was one digest of everything.
_OLD_DTYPES = ("float32", "bfloat16", "float16")


def identity(checkpoint: Checkpoint, *, features_after: int | None) -> dict[str, object]:
    """Everything that decides a vector except dtype and decode mode: weights, shape of the model, preprocessing.

    Device and attention backend are left out: they change last bits, not vectors. features_after: as in `Blocks`.
    """
    geometry = checkpoint.preprocessing.geometry
    parts: dict[str, object] = {
        "weights": checkpoint.digest,
        "config": asdict(checkpoint.config),
        "mean": checkpoint.preprocessing.mean,
        "std": checkpoint.preprocessing.std,
        "preprocessing": _PREPROCESSING.format(geometry.resample),
    }
    if own := geometry.fixed or geometry.own_square:
        parts["input"] = asdict(own)
    if "anyres" in geometry.strategies:
        # Only AnyRes vectors depend on the tiles, but an index does not know which strategy made its vectors.
        parts["tiles"] = [geometry.tile_side, geometry.tile_layouts]
    if geometry.shrink:
        # It holds under every budget: pictures shrink to it, and their sides are rounded or filled as it says.
        parts["shrink"] = asdict(geometry.shrink)
    if features_after is not None:
        parts["feature_layer"] = features_after
    return parts


def fingerprint(identity: dict[str, object], *, dtype: str, decode: str = "exact") -> str:
    """The fingerprint of an identity, of the form that `model.fingerprint` describes."""
    return written(named_by(identity), dtype=dtype, decode=decode)


def old_fingerprints(identity: dict[str, object]) -> dict[str, str]:
    """By the fingerprint that earlier versions gave to an identity under each dtype and decode mode, that of today."""
    return {
        named_by(identity | {"dtype": dtype, "decode": decode}): fingerprint(identity, dtype=dtype, decode=decode)
        for dtype in _OLD_DTYPES
        for decode in ("exact", FAST)
    }


def old_text_fingerprints(identity: dict[str, object]) -> dict[str, str]:
    """The same for texts, which nothing decodes."""
    return {named_by(identity | {"dtype": dtype}): fingerprint(identity, dtype=dtype) for dtype in _OLD_DTYPES}


def text_identity(weights: str, config: TextConfig, *, preprocessing: str) -> dict[str, object]:
    """Everything but the dtype that decides how a text gets into the space of an `identity`.

    Vectors of images do not depend on it, so an index of images stays valid if it changes. weights: their digest.
    preprocessing: names what makes ids of a text.
    """
    return {"weights": weights, "config": asdict(config), "preprocessing": preprocessing}


def named_by(parts: dict[str, object]) -> str:
    """16 hexadecimal digits that name these parts."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
