"""Reads headers and decodes images: most in the calling thread, some in a worker process.

A worker process decodes the formats whose decoders only the limits of a process confine, and pictures so large that
Pillow would hold the interpreter's lock for long. `model.images.container` and `model.images.metered` bound the rest.
"""

import numpy as np
from numpy.typing import NDArray

from model.images import container
from model.images.confined import ConfinedDecoder
from model.images.decode import MAX_DECODE_SIDE, DecodeMode, ImageHeader, decode_patches, read_header
from model.images.formats import jpeg_head
from model.sizing.geometry import Geometry
from model.sizing.plan import ImagePlan

# The header of these formats does not tell what decoding takes. A JPEG 2000 of 700 bytes can make OpenJPEG allocate
# gigabytes; an AV1 or HEVC stream can be larger than the boxes around it say; libtiff reads whole tiles and tags of any
# size. Pillow also holds the lock for all of a JPEG 2000.
_CONFINED = {"AVIF", "JPEG 2000", "TIFF", "HEIC"}

# Pillow holds the lock for 1.1 ms a megapixel when it frees a picture, and for 2.2 when it copies a WebP's: 28 ms at
# this size. Photos of 12 megapixels, which are common, need no process.
MAX_THREAD_PIXELS = 12_582_912
# Pillow holds the lock for up to 1.6 ms a megabyte when it gathers EXIF. It reads 16 MiB of a PNG's metadata at most,
# and large ones hold pixels.
MAX_THREAD_BYTES = 16 * 1024**2

# Pillow warns of more, and warnings may be errors.
_MAX_PLAIN_PIXELS = 2**26

# What decoding takes for each pixel, measured (docs/operating.md, Sizing). Other formats take up to the most.
_BYTES_A_PIXEL = {"JPEG": 8, "PNG": 12, "WebP": 16}
MOST_BYTES_A_PIXEL = 33


class ImageReader:
    """Many threads may call it at once. At most `processes` pictures are decoded in workers; further ones wait.

    Its methods also raise `OSError` if the system has no room for a process.
    """

    def __init__(self, *, processes: int, max_decode_pixels: int) -> None:
        self._max_decode_pixels = max_decode_pixels
        self._confined = ConfinedDecoder(processes=processes, max_decode_pixels=max_decode_pixels)

    def read_header(self, data: bytes) -> ImageHeader:
        """As `decode.read_header`."""
        if _is_confined(data):
            return self._confined.read_header(data)
        return read_header(data, max_decode_pixels=self._max_decode_pixels)

    def plain_header(self, data: bytes) -> ImageHeader | None:
        """The same in a few microseconds, for most JPEGs; None for any other file. May be called on an event loop."""
        size = jpeg_head.plain_size(data) if len(data) <= MAX_THREAD_BYTES else None
        if size is None or size[0] * size[1] > min(self._max_decode_pixels, _MAX_PLAIN_PIXELS):
            return None
        return ImageHeader("JPEG", size) if max(size) <= MAX_DECODE_SIDE else None

    def decode_patches(
        self,
        data: bytes,
        plan: ImagePlan,
        *,
        geometry: Geometry,
        decode: DecodeMode = "exact",
        rows: NDArray[np.uint8] | None = None,
    ) -> tuple[ImagePlan, NDArray[np.uint8]]:
        """As `decode.decode_patches`."""
        if _is_confined(data) or plan.size[0] * plan.size[1] > MAX_THREAD_PIXELS:
            plan, made = self._confined.decode_patches(data, plan, geometry=geometry, decode=decode)
            if rows is None:
                return plan, made
            rows[...] = made
            return plan, rows
        return decode_patches(
            data, plan, geometry=geometry, max_decode_pixels=self._max_decode_pixels, decode=decode, rows=rows
        )

    def close(self) -> None:
        """Ends the processes, and with them the calls under way."""
        self._confined.close()


def decode_bytes(data: bytes, size: tuple[int, int]) -> int:
    """How much memory decoding a picture of `size` pixels, (height, width), takes."""
    return size[0] * size[1] * _BYTES_A_PIXEL.get(container.sniff(data) or "", MOST_BYTES_A_PIXEL)


def _is_confined(data: bytes) -> bool:
    format = container.sniff(data)
    return format in _CONFINED or (len(data) > MAX_THREAD_BYTES and format != "PNG")
