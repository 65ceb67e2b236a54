"""What tells vectors apart that do not belong in one index."""

import hashlib
import json
from dataclasses import asdict

from model.checkpoint.load import Checkpoint
from model.encoders.parts.text_tower import TextConfig

# Changes whenever the same bytes would become other patch rows: new vectors must not mix with old ones then.
_PREPROCESSING = "exif, white under alpha, pillow {} uint8, 2"


def identity(checkpoint: Checkpoint, *, dtype: str, features_after: int | None) -> dict[str, object]:
    """Everything that decides a vector except the decode mode: weights, shape of the model, dtype, preprocessing.

    Device and attention backend are left out: they change last bits, not vectors. features_after: as in `Blocks`.
    """
    geometry = checkpoint.preprocessing.geometry
    parts: dict[str, object] = {
        "weights": checkpoint.digest,
        "config": asdict(checkpoint.config),
        "mean": checkpoint.preprocessing.mean,
        "std": checkpoint.preprocessing.std,
        "dtype": dtype,
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


def fingerprint(identity: dict[str, object], *, decode: str) -> str:
    """16 hexadecimal digits that name an identity and a decode mode."""
    return named_by(identity | {"decode": decode})


def text_fingerprint(weights: str, config: TextConfig, *, dtype: str, preprocessing: str) -> str:
    """16 hexadecimal digits that name how a text gets into the space that `fingerprint` names.

    Vectors of images do not depend on it, so an index of images stays valid if it changes. weights: their digest.
    preprocessing: names what makes ids of a text.
    """
    return named_by({"weights": weights, "config": asdict(config), "dtype": dtype, "preprocessing": preprocessing})


def named_by(parts: dict[str, object]) -> str:
    """16 hexadecimal digits that name these parts."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
