"""The file of recorded vectors: one for each fingerprint and each set of pictures, with a checksum.

What is in it is checked whenever it is read: a file that is cut, changed, or of another model counts as none, and is
recorded again.
"""

import hashlib
import os
import secrets
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

_MOST_BYTES = 64 * 1024**2
_CHECKSUM_BYTES = 32
# A person can delete the folder at any time.
_FOLDER = "packlight-canary"


def canary_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """Where vectors are kept: beside the checkpoints that come from a hub, which containers keep in a volume; else in
    the user's cache; or in a temporary folder of this user, if nothing can be written there."""
    users = environment.get("XDG_CACHE_HOME") or f"{environment.get('HOME', '/nonexistent')}/.cache"
    for place in (environment.get("HF_HOME"), users):
        if place and _is_ours(folder := Path(place) / _FOLDER, may_be_shared=True):
            return folder
    temporary = Path(tempfile.gettempdir()) / f"{_FOLDER}-{os.getuid()}"
    # Anybody may make a folder there, and whoever made it may put vectors into it.
    return temporary if _is_ours(temporary) else Path(tempfile.mkdtemp(prefix=_FOLDER))


def _is_ours(folder: Path, *, may_be_shared: bool = False) -> bool:
    """Whether it is there, made if need be, and can be written to. may_be_shared: it may belong to another user."""
    try:
        folder.mkdir(mode=0o755 if may_be_shared else 0o700, parents=True, exist_ok=True)
        return os.access(folder, os.W_OK) and (may_be_shared or folder.lstat().st_uid == os.getuid())
    except OSError:
        return False


@dataclass(frozen=True, slots=True)
class Subject:
    """What vectors are recorded of. fingerprint, text_fingerprint: as in `ModelFacts`; the second is empty without a
    text tower. drawn: of the pictures, see `digest_of`."""

    fingerprint: str
    text_fingerprint: str
    drawn: str

    @property
    def file_name(self) -> str:
        what = hashlib.sha256(repr((self.text_fingerprint, self.drawn)).encode()).hexdigest()[:12]
        return f"{self.fingerprint}-{what}.canary"


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """vectors: float32 `[S, E]` by name. measured: see `allowed_distance`. ids: int32 `[N]` of the texts, by name.
    fingerprint: of what was loaded to record them; empty if it was read from a file."""

    vectors: dict[str, NDArray[np.float32]]
    measured: float
    ids: dict[str, NDArray[np.int32]]
    fingerprint: str = ""


class _Array(msgspec.Struct, array_like=True):
    shape: tuple[int, ...]
    data: bytes


class _File(msgspec.Struct):
    """made_by: the version of Packlight, for a person who looks."""

    packlight: Literal["canary 1"]
    made_by: str
    fingerprint: str
    text_fingerprint: str
    drawn: str
    measured: float
    vectors: dict[str, _Array]
    ids: dict[str, _Array]


_decoder = msgspec.msgpack.Decoder(_File)


def read_recording(folder: Path, subject: Subject) -> Recording | None:
    """None for a file that is not there, cannot be read, is broken, or is of something else."""
    try:
        with (folder / subject.file_name).open("rb") as file:
            content = file.read(_MOST_BYTES)
        checksum, body = content[:_CHECKSUM_BYTES], content[_CHECKSUM_BYTES:]
        if hashlib.sha256(body).digest() != checksum:
            return None
        stored = _decoder.decode(body)
        vectors = {name: _array(each, "<f4").astype(np.float32, copy=False) for name, each in stored.vectors.items()}
        ids = {name: _array(each, "<i4").astype(np.int32, copy=False) for name, each in stored.ids.items()}
    except (OSError, ValueError, msgspec.MsgspecError):
        return None
    of = Subject(stored.fingerprint, stored.text_fingerprint, stored.drawn)
    right = of == subject and 0 <= stored.measured < np.inf and set(ids) <= set(vectors)
    return Recording(vectors, stored.measured, ids) if right and all(map(_is_vector, vectors.values())) else None


def write_recording(folder: Path, subject: Subject, recording: Recording, *, made_by: str) -> None:
    """Whole or not at all. Raises `OSError`."""
    stored = _File(
        "canary 1", made_by, subject.fingerprint, subject.text_fingerprint, subject.drawn, recording.measured,
        {name: _Array(each.shape, each.astype("<f4").tobytes()) for name, each in recording.vectors.items()},
        {name: _Array(each.shape, each.astype("<i4").tobytes()) for name, each in recording.ids.items()},
    )  # fmt: skip
    body = msgspec.msgpack.encode(stored)
    temporary = folder / f".{subject.file_name}.{secrets.token_hex(4)}"
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        with os.fdopen(descriptor, "wb") as file:
            file.write(hashlib.sha256(body).digest() + body)
        temporary.replace(folder / subject.file_name)
    except OSError:
        with suppress(OSError):
            temporary.unlink()
        raise


def _array(stored: _Array, dtype: str) -> NDArray[Any]:
    """Raises `ValueError`."""
    return np.frombuffer(stored.data, dtype).reshape(stored.shape)


def _is_vector(array: NDArray[np.float32]) -> bool:
    return array.ndim == 2 and array.size > 0 and bool(np.isfinite(array).all())
