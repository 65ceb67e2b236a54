"""The bytes of an image as the file that Pillow reads: how much it may read, and what of a PNG it sees.

Pillow parses metadata itself, block by block, so a hostile file can keep it busy before any pixel is found.
"""

import zlib
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

_PNG_SIGNATURE_BYTES = 8
_PNG_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_RAW_EXIF = b"Raw profile type exif"
# Texts that may hold an orientation: keyword, and the key of `Image.info` from which Pillow reads it.
_PNG_ORIENTATION_TEXTS = {b"exif": "exif", _RAW_EXIF: "exif", b"XML:com.adobe.xmp": "xmp"}
_MAX_PNG_TEXTS = 4  # with an orientation; a file should have one, and each may inflate to `MAX_METADATA_BYTES`


class MeteredFile(BytesIO):
    """A file of which only so much may be read. Reading more raises `ImageTooLarge`.

    texts: those read so far that may turn the picture, by their key in `Image.info`.
    """

    def __init__(self, data: bytes, format: str) -> None:
        super().__init__(data)
        self.texts: dict[str, bytes] = {}
        self._format = format
        # The run lengths of a BMP are read one by one; `container` limits them.
        self._reads_left = _UNLIMITED if format == "BMP" else _READS + len(data) // _BYTES_A_READ
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


class PngFile(MeteredFile):
    """A PNG without its colour profiles and texts. Pillow reads on behind them as if they were not there.

    Embedding needs none of them, and Pillow refuses a valid file over them: it inflates at most 1 MiB of each, and it
    takes a text with the keyword `interlace`, `transparency` or `bbox` for what the header says. `texts` holds those
    that may turn the picture.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__(data, "PNG")
        self._data = data
        self._next_chunk = _PNG_SIGNATURE_BYTES
        self._texts_left = _MAX_PNG_TEXTS

    def read(self, size: int | None = -1, /) -> bytes:
        # Pillow reads chunk by chunk. A read that begins where a chunk begins is that of its length and type.
        while self.tell() == self._next_chunk:
            self._enter_chunk()
        return super().read(size)

    def _enter_chunk(self) -> None:
        """Notes where the chunk at the file's position ends, and goes there if Pillow is not to see it."""
        start = self._next_chunk
        kind = self._data[start + 4 : start + 8]
        self._next_chunk = end = start + 12 + int.from_bytes(self._data[start : start + 4])
        # Pillow is to see, and refuse, a chunk that is cut off.
        if end > len(self._data) or (kind != b"iCCP" and kind not in _PNG_TEXTS):
            return
        if kind in _PNG_TEXTS:
            self._keep_text(kind, start + 8, end - 4)
        self._spend(end - start)
        self.seek(end)

    def _keep_text(self, kind: bytes, start: int, end: int) -> None:
        keyword, _, _ = self._data[start : min(end, start + 80)].partition(b"\0")
        key = _PNG_ORIENTATION_TEXTS.get(keyword)
        if key is None:
            return
        self._texts_left -= 1
        if self._texts_left < 0:
            raise ImageTooLarge(f"this PNG has too many texts of EXIF or XMP metadata; {_MAX_PNG_TEXTS} are read")
        text = _png_text(kind, self._data[start + len(keyword) + 1 : end])
        if keyword == _RAW_EXIF:
            text = _exif_of_digits(text)
        if text:
            self.texts[key] = text


def _png_text(kind: bytes, content: bytes) -> bytes:
    """The text of a chunk, inflated; `content` is what follows the keyword. Empty if it is broken."""
    packed = kind == b"zTXt"
    if packed:
        content = content[1:]  # the method of compression
    elif kind == b"iTXt":
        packed = content[:1] != b"\0"
        content = content[2:].split(b"\0", 2)[-1]  # behind the method, the language and the translated keyword
    if packed:
        inflater = zlib.decompressobj()
        try:
            content = inflater.decompress(content, MAX_METADATA_BYTES + 1)
        except zlib.error:
            return b""
    if len(content) > MAX_METADATA_BYTES:
        raise ImageTooLarge(
            f"this PNG has too much text of EXIF or XMP metadata; {MAX_METADATA_BYTES:,} bytes are read"
        )
    return content


def _exif_of_digits(text: bytes) -> bytes:
    """The EXIF block that ImageMagick writes as hexadecimal digits behind three lines. Empty if it is broken."""
    try:
        return bytes.fromhex(text.split(b"\n", 3)[3].decode("ascii"))
    except (IndexError, ValueError):
        return b""
