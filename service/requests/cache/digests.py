"""What a picture is known by: SHA-256 of its bytes, computed while they come.

Processors have instructions for SHA-256, which make it twice as fast as BLAKE2b: 1.7 GB/s on one core.
"""

import asyncio
import hashlib
from io import BytesIO
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Buffer

# So many take 150 µs, and are hashed where they are.
_MOST_INLINE = 256 * 1024


class HashedBytes(BytesIO):
    """Bytes that are written once from start to end, and their digest so far."""

    def __init__(self) -> None:
        super().__init__()
        self._hash = hashlib.sha256()

    def write(self, data: "Buffer", /) -> int:
        self._hash.update(data)
        return super().write(data)

    def digest(self) -> bytes:
        """32 bytes."""
        return self._hash.digest()


async def digest_of(data: bytes) -> bytes:
    """The digest of a picture that did not come as a stream. A thread hashes a large one, without the interpreter's
    lock."""
    if len(data) <= _MOST_INLINE:
        return _digest(data)
    return await asyncio.to_thread(_digest, data)


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()
