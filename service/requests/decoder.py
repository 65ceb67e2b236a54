"""Headers read and images decoded off the event loop, in threads.

Headers have threads of their own: what an image will cost must be known while others are still being decoded.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from model.images.decode import DecodeMode, ImageHeader, decode_patches, read_header
from model.sizing.geometry import Geometry
from model.sizing.plan import ImagePlan


class Decoder:
    """At most `threads` images of `max_decode_pixels` are decoded at once, and that is all the memory they take."""

    def __init__(self, *, threads: int, max_decode_pixels: int, geometry: Geometry) -> None:
        self._max_decode_pixels, self._geometry = max_decode_pixels, geometry
        self._headers = ThreadPoolExecutor(threads, thread_name_prefix="header")
        self._pixels = ThreadPoolExecutor(threads, thread_name_prefix="decode")

    async def header(self, data: bytes) -> ImageHeader:
        """Raises `ImageError`. No pixel is decoded."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._headers, self._read_header, data)

    async def patches(self, data: bytes, plan: ImagePlan, decode: DecodeMode) -> tuple[ImagePlan, NDArray[np.uint8]]:
        """The plan (turned, where the picture turned out to be) and uint8 rows `[N, 3*P*P]`. Raises `ImageError`.

        Cancelling the call before its thread has begun costs no decode.
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
