"""The bytes of an image as the file that Pillow reads: how much of it may be read.

Pillow parses metadata itself, block by block, so a hostile file can keep it busy before any pixel is found.
"""

from io import BytesIO

from model.errors import ImageTooLarge

MAX_METADATA_BYTES = 16 * 1024 * 1024
"""Bytes read in search of the pixels. Phones put megabytes there: profiles, depth maps, previews."""

# Reads in search of the pixels. A JPEG takes four a segment.
_READS = 16_384
# Beyond `_READS`, one read for so many bytes of the file. A PNG takes three reads a chunk of pixels, usually of 8 kB.
_BYTES_A_READ = 256
_BYTES_LIMITED = {"JPEG", "PNG", "GIF"}  # metadata of the other formats are read at once, which costs nothing
_UNLIMITED = 2**63


class MeteredFile(BytesIO):
    """A file with a bound on what is read. Reading more raises `ImageTooLarge`."""

    def __init__(self, data: bytes, format: str) -> None:
        super().__init__(data)
        self._format = format
        self._reads_left = _READS + len(data) // _BYTES_A_READ
        self._bytes_left = MAX_METADATA_BYTES if format in _BYTES_LIMITED else _UNLIMITED

    def found_pixels(self) -> None:
        """Lifts the limit on bytes: from now on pixels are read."""
        self._bytes_left = _UNLIMITED

    def read(self, size: int | None = -1, /) -> bytes:
        chunk = super().read(size)
        self._spend(len(chunk))
        return chunk

    def _spend(self, size: int) -> None:
        """Counts one read of `size` bytes."""
        self._reads_left -= 1
        self._bytes_left -= size
        if self._reads_left < 0:
            raise ImageTooLarge(
                f"this {self._format} has too many blocks of metadata; the pixels must be found within {_READS:,} "
                f"reads and one more for every {_BYTES_A_READ} bytes of the file"
            )
        if self._bytes_left < 0:
            raise ImageTooLarge(
                f"this {self._format} has too much metadata; {MAX_METADATA_BYTES:,} bytes are read before the pixels"
            )
