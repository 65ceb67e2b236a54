"""What Pillow sees of a PNG, and the colour that is transparent in it.

Pillow parses every chunk, and keeps texts and headers in one dictionary. It also takes the transparent colour as it
stands in the file, whatever the scale of the samples that it decodes.
"""

import struct
import zlib

import numpy as np
from PIL import Image, ImageFile

from model.images.metered import MeteredFile

_SIGNATURE_BYTES = 8
_DEPTH_AT = 24


class PngFile(MeteredFile):
    """A PNG as Pillow is to see it: critical chunks, eXIf, and tRNS before the pixels, which decide the picture.

    Pillow reads on behind the others as if they were not there. It would refuse valid files over them: it inflates at
    most 1 MiB of a text or profile, and takes a text with the keyword `interlace`, `transparency` or `bbox` for what
    the header says. A chunk whose checksum is wrong is passed over too if it is not critical, as libpng does.

    depth: bits of a sample. key: the content of tRNS, once Pillow has seen it.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__(data, "PNG")
        self._data = data
        self._next_chunk = _SIGNATURE_BYTES
        self._in_front = True
        self.depth = data[_DEPTH_AT] if len(data) > _DEPTH_AT else 0
        self.key = b""

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
        self._in_front &= kind != b"IDAT"
        # Pillow is to see, and refuse, a chunk that is cut off or has an impossible type.
        if end <= len(self._data) and kind.isalpha() and not self._counts(kind, start, end):
            self._spend(end - start)
            self.seek(end)

    def _counts(self, kind: bytes, start: int, end: int) -> bool:
        """Whether Pillow is to see a chunk."""
        if kind[:1].isupper():
            return True
        if kind != b"eXIf" and not (kind == b"tRNS" and self._in_front):
            return False
        if zlib.crc32(self._data[start + 4 : end - 4]) != int.from_bytes(self._data[end - 4 : end]):
            return False
        if kind == b"tRNS":
            self.key = self._data[start + 8 : end - 4]
        return True


def decoded(image: ImageFile.ImageFile, data: bytes) -> Image.Image:
    """The picture as Pillow gives it, white wherever it has the transparent colour of 16-bit RGB."""
    key = _wide_key(image)
    image.load()
    return _whitened(image, data, key) if key else image


def _wide_key(image: ImageFile.ImageFile) -> tuple[int, ...] | None:
    """The transparent colour of 16-bit RGB. Pillow must not see it, because it compares the low byte alone.

    For any other PNG, Pillow gets the transparent gray or colour on the scale of the samples that it decodes. Bits
    above the depth mean nothing, says the specification. image: opened from a `PngFile`, and not yet loaded.
    """
    assert isinstance(image.fp, PngFile), "a PNG is opened from a PngFile"
    if image.info.get("transparency") is None or image.mode not in ("1", "L", "RGB"):
        return None
    depth, key = image.fp.depth, struct.unpack(">HHH" if image.mode == "RGB" else ">H", image.fp.key)
    if image.mode == "RGB" and depth == 16:
        del image.info["transparency"]
        return key
    top = 2**depth - 1
    scaled = tuple((sample & top) * 255 // top for sample in key)
    image.info["transparency"] = scaled if image.mode == "RGB" else scaled[0]
    return None


def _whitened(picture: Image.Image, data: bytes, key: tuple[int, ...]) -> Image.Image:
    """A decoded picture of 16-bit RGB, in mode RGB, that is white wherever it has the colour `key`."""
    low = Image.open(PngFile(data), formats=("PNG",))
    low.tile = [tile._replace(args="RGB;16L") for tile in low.tile]
    low.load()
    pixels = np.array(picture)
    is_key = np.ones(pixels.shape[:2], bool)
    for channel, sample in enumerate(key):
        is_key &= pixels[..., channel] == sample >> 8
        is_key &= np.asarray(low.getchannel(channel)) == sample & 0xFF
    pixels[is_key] = 255
    return Image.fromarray(pixels)
