"""Reads headers and decodes images in threads, off the event loop.

Headers have threads of their own: an image's cost must be known while others are still being decoded.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Self

import numpy as np
from numpy.typing import NDArray

from model.images.decode import DecodeMode, ImageHeader, decode_patches, read_header
from model.sizing.geometry import Geometry
from model.sizing.plan import ImagePlan
from service.settings import Settings


class Decoder:
    """Decodes at most `threads` images of `max_decode_pixels` at once, which bounds the memory that pixels take."""

    def __init__(self, *, threads: int, max_decode_pixels: int, geometry: Geometry) -> None:
        self._max_decode_pixels, self._geometry = max_decode_pixels, geometry
        self._headers = ThreadPoolExecutor(threads, thread_name_prefix="header")
        self._pixels = ThreadPoolExecutor(threads, thread_name_prefix="decode")

    @classmethod
    def of(cls, settings: Settings, geometry: Geometry) -> Self:
        return cls(threads=settings.decode_threads, max_decode_pixels=settings.max_decode_pixels, geometry=geometry)

    async def header(self, data: bytes) -> ImageHeader:
        """Raises `ImageError`. No pixel is decoded."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._headers, self._read_header, data)

    async def patches(self, data: bytes, plan: ImagePlan, decode: DecodeMode) -> tuple[ImagePlan, NDArray[np.uint8]]:
        """The plan, turned if the picture is, and uint8 rows `[N, 3*P*P]`. Raises `ImageError`.

        A call that is cancelled before its thread begins decodes nothing.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pixels, self._decode, data, plan, decode)

    def close(self) -> None:
        for pool in (self._headers, self._pixels):
            pool.shutdown(wait=False, cancel_futures=True)

    def _read_header(self, data: bytes) -> ImageHeader:
        return read_header(data, max_decode_pixels=self._max_decode_pixels)

    def _decode(self, data: bytes, plan: ImagePlan, decode: DecodeMode) -> tuple[ImagePlan, NDArray[np.uint8]]:
        return decode_patches(
            data, plan, geometry=self._geometry, max_decode_pixels=self._max_decode_pixels, decode=decode
        )
