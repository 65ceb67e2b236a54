"""The fields of a JSON file that describes a checkpoint, each checked when it is read.

A field that is missing, of another type or not supported is a `CheckpointError` that names the file and the key.
"""

import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from model.errors import CheckpointError


class Fields:
    """A JSON object in a file."""

    def __init__(self, path: Path, content: Mapping[str, Any]) -> None:
        self.path = path
        self._content = content

    @classmethod
    def read(cls, path: Path) -> "Fields":
        """Reads the object in a file. Raises `CheckpointError`, also if the file is missing."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise CheckpointError(why_unreadable(path) or f"{path} is missing") from None
        except (OSError, ValueError) as error:
            if why := why_unreadable(path):
                raise CheckpointError(why) from None
            raise CheckpointError(f"{path} is not readable as JSON: {error}") from None
        if not isinstance(content, dict):
            raise CheckpointError(f"{path} does not hold a JSON object")
        return cls(path, content)

    def over(self, defaults: Mapping[str, Any]) -> "Fields":
        """These fields, and `defaults` for missing keys."""
        return Fields(self.path, {**defaults, **self._content})

    def given(self) -> "Fields":
        """These fields without those that are null."""
        return Fields(self.path, {key: value for key, value in self._content.items() if value is not None})

    def section(self, key: str) -> "Fields":
        """The object under `key`; empty if that is null or missing."""
        content = self.get(key) or {}
        if not isinstance(content, dict):
            raise CheckpointError(f"{self.path}: {key} is not an object")
        return Fields(self.path, content)

    def __iter__(self) -> Iterator[str]:
        return iter(self._content)

    def get(self, key: str, default: Any = None) -> Any:
        """The value, unchecked."""
        return self._content.get(key, default)

    def count(self, key: str) -> int:
        value = self.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise self.error(key, "it is a positive whole number")
        return value

    def flag(self, key: str) -> bool:
        value = self.get(key)
        if not isinstance(value, bool):
            raise self.error(key, "it is true or false")
        return value

    def indices(self, key: str, *, below: int) -> tuple[int, ...]:
        """Whole numbers from 0, each once, in ascending order."""
        value = self.get(key)
        valid = isinstance(value, list) and all(isinstance(n, int) and 0 <= n < below for n in value)
        if not valid or sorted({*value}) != value:
            raise self.error(key, f"it is a list of numbers from 0 to {below - 1}, in order")
        return tuple(value)

    def number(self, key: str) -> float:
        value = self.get(key)
        if not _is_number(value):
            raise self.error(key, "it is a number")
        return float(value)

    def positive(self, key: str) -> float:
        value = self.get(key)
        if not _is_number(value) or value <= 0:
            raise self.error(key, "it is a positive number")
        return float(value)

    def triple(self, key: str) -> tuple[float, float, float]:
        """A value for each channel: red, green, blue."""
        value = self.get(key)
        if not isinstance(value, list) or len(value) != 3 or not all(map(_is_number, value)):
            raise self.error(key, "it is a list of three numbers")
        return float(value[0]), float(value[1]), float(value[2])

    def require(self, wanted: Mapping[str, Any]) -> None:
        """Raises `CheckpointError` for a key with another value than in `wanted`. A missing key is accepted."""
        for key, value in wanted.items():
            if self.get(key, value) != value:
                raise self.error(key, f"only {value!r} is supported")

    def __bool__(self) -> bool:
        return bool(self._content)

    def error(self, key: str, requirement: str) -> CheckpointError:
        return CheckpointError(f"{self.path}: {key} is {self.get(key)!r}; {requirement}")


def _is_number(value: object) -> bool:
    """Whether it is one that a float holds. JSON as Python reads it has NaN and infinity, too."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def block_fields(fields: Fields) -> dict[str, Any]:
    """The sizes of blocks, as a `BlockShape` has them, from the keys that Transformers' configurations share."""
    width, heads = fields.count("hidden_size"), fields.count("num_attention_heads")
    if width % heads:
        raise fields.error("hidden_size", f"it is not a multiple of num_attention_heads, {heads}")
    return {
        "width": width,
        "depth": fields.count("num_hidden_layers"),
        "heads": heads,
        "mlp_width": fields.count("intermediate_size"),
        "eps": fields.positive("layer_norm_eps"),
    }


def why_unreadable(path: Path) -> str | None:
    """Why a file of a folder cannot be read although it seems to be there; None if nothing keeps it from being read.

    Both happen with folders that are mounted into a container.
    """
    if path.is_symlink() and not path.exists():
        return (
            f"{path} is a link to {path.readlink()}, which is not here: mount the folder that holds both (a snapshot "
            "of the hub's cache links to ../../blobs), or copy the files with cp -rL"
        )
    if path.exists() and not os.access(path, os.R_OK):
        return f"{path} may not be read by user {os.getuid()}, as whom the server runs: chmod -R a+rX {path.parent}"
    return None
