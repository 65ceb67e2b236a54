"""The vectors of a folder's pictures, kept in one file beside the folder and brought up to date by content.

A file that was renamed, moved or copied keeps its vector; one that was changed gets a new one. A file whose size and
time of change are as they were is not read again. Knows no model.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError

from model.fingerprint import least_cosine, today

_PIECE_BYTES = 1024**2


@dataclass(frozen=True, slots=True)
class FileState:
    """What a file was when its vector was made. digest: SHA-256 of its bytes, in hexadecimal."""

    size: int
    changed_ns: int
    digest: str

    def is_of(self, file: Path) -> bool:
        """Whether the file is still as it was, by its size and time of change."""
        try:
            stat = file.stat()
        except OSError:
            return False
        return (self.size, self.changed_ns) == (stat.st_size, stat.st_mtime_ns)


class FolderIndex:
    """Vectors by the content of files.

    fingerprint: of the vectors that are added. meaning: what else vectors depend on; those of another meaning are
    dropped. Vectors of another variant of the fingerprint are kept if there is a bound for how far apart they are.
    others: the fingerprints of the vectors that the file held, but for this one. dropped: whether for being of others,
    they were dropped.
    """

    def __init__(
        self, folder: Path, meaning: Mapping[str, str], *, fingerprint: str, old_forms: Mapping[str, str] | None = None
    ) -> None:
        """Takes what an earlier run has kept. old_forms: as in `model.fingerprint`. Raises `OSError` if that file
        cannot be read."""
        resolved = folder.resolve()
        self.path = resolved.parent / f"{resolved.name}.packlight-index"
        self._folder, self._meaning = folder, dict(meaning)
        self._fingerprint, self._old_forms = fingerprint, old_forms or {}
        self.others: list[str] = []
        self.dropped = False
        # States by the path within the folder, and vectors by digest.
        self._files: dict[str, FileState] = {}
        self._vectors: dict[str, NDArray[np.float32]] = {}
        # The digests and states that the file holds.
        self._saved: tuple[list[str], dict[str, FileState]] | None = None
        self._read()

    def missing(self, files: Iterable[Path]) -> list[Path]:
        """Looks at the files, and returns those whose content has no vector yet: each content once.

        From here on the index has these files and no others. A file that cannot be read is missing.
        """
        states: dict[str, FileState] = {}
        missing: dict[str, Path] = {}
        for file in files:
            name = self._name(file)
            state = self._state(file, name)
            if state is None:
                missing[name] = file
                continue
            states[name] = state
            if state.digest not in self._vectors:
                missing.setdefault(state.digest, file)
        self._files = states
        return list(missing.values())

    def add(self, file: Path, vector: NDArray[np.float32]) -> None:
        """vector: float32 `[E]` of length 1. The file is one of those that `missing` returned.

        One that was changed since stays missing, because the vector may be of other content.
        """
        state = self._files.get(name := self._name(file))
        if state and not state.is_of(file):
            del self._files[name]
        elif state:
            self._vectors[state.digest] = vector

    def vectors(self) -> tuple[list[Path], NDArray[np.float32]]:
        """The files that have a vector, and float32 `[B, E]`."""
        files = [(name, state.digest) for name, state in self._files.items() if state.digest in self._vectors]
        if not files:
            return [], np.zeros((0, 0), np.float32)
        return [self._folder / name for name, _ in files], np.stack([self._vectors[digest] for _, digest in files])

    def save(self) -> None:
        """Writes the file whole or not at all, and not if it holds the same already. Raises `OSError`."""
        digests = sorted({state.digest for state in self._files.values()} & self._vectors.keys())
        if (digests, self._files) == self._saved:
            return
        embeddings = (
            np.stack([self._vectors[digest] for digest in digests]) if digests else np.zeros((0, 0), np.float32)
        )
        files = {name: [state.size, state.changed_ns, state.digest] for name, state in self._files.items()}
        metadata = {"meaning": json.dumps(self._meaning | {"fingerprint": " ".join(self._fingerprints)})}
        # A header takes 100 MB at most, which the names of half a million files are.
        tensors: dict[str, NDArray[Any]] = {
            "embeddings": embeddings,
            "digests": _tensor(json.dumps(digests)),
            "files": _tensor(json.dumps(files)),
        }
        partial = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            partial.write_bytes(safetensors.numpy.save(tensors, metadata))
            partial.replace(self.path)
            self._saved = digests, dict(self._files)
        finally:
            partial.unlink(missing_ok=True)

    def _read(self) -> None:
        """Takes what the file holds. One that is no index, cannot be read, or has another meaning counts as empty."""
        if not self.path.exists():
            return
        try:
            with safetensors.safe_open(self.path, framework="numpy") as file:
                metadata = file.metadata() or {}
                if not self._may_take(json.loads(metadata.get("meaning", "null"))):
                    return
                embeddings = file.get_tensor("embeddings")
                # An earlier version kept both in the header.
                digests, files = (
                    json.loads(metadata[name] if name in metadata else file.get_tensor(name).tobytes())
                    for name in ("digests", "files")
                )
            self._vectors = dict(zip(digests, embeddings, strict=True))
            self._files = {name: FileState(*state) for name, state in files.items()}
            self._saved = sorted(self._vectors), dict(self._files)
        except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError):
            self._vectors, self._files = {}, {}

    def _may_take(self, meaning: dict[str, str]) -> bool:
        before = [today(each, self._old_forms) for each in meaning.pop("fingerprint").split()]
        if meaning != self._meaning:
            return False
        self.others = [each for each in before if each != self._fingerprint]
        self.dropped = any(least_cosine(each, self._fingerprint) is None for each in self.others)
        return not self.dropped

    @property
    def _fingerprints(self) -> list[str]:
        """The fingerprints of all vectors that it has."""
        return [self._fingerprint, *([] if self.dropped else self.others)]

    def _name(self, file: Path) -> str:
        return str(file.relative_to(self._folder))

    def _state(self, file: Path, name: str) -> FileState | None:
        """None for a file that cannot be read."""
        try:
            stat = file.stat()
            known = self._files.get(name)
            if known and (known.size, known.changed_ns) == (stat.st_size, stat.st_mtime_ns):
                return known
            return FileState(stat.st_size, stat.st_mtime_ns, _digest(file))
        except OSError:
            return None


def _tensor(text: str) -> NDArray[np.uint8]:
    return np.frombuffer(text.encode(), np.uint8)


def _digest(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        while piece := opened.read(_PIECE_BYTES):
            digest.update(piece)
    return digest.hexdigest()
