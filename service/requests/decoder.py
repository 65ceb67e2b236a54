"""Reads headers and decodes images off the event loop: in threads, and in processes that the threads wait for.

Headers have threads of their own: an image's cost must be known while others are still being decoded.
"""

import asyncio
import logging
import sys
from collections import deque
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from copy import copy
from functools import partial
from typing import Any, Generic, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from model.images.decode import DecodeMode, ImageHeader
from model.images.reader import MOST_BYTES_A_PIXEL, ImageReader, decode_bytes
from model.kernels.hardware import usable_memory_bytes
from model.memory import MemoryReturns
from model.sizing.geometry import Geometry
from model.sizing.plan import ImagePlan
from model.threads import CallThreads
from service.errors import Unavailable
from service.settings.names import SettingsError
from service.settings.settings import Settings

T = TypeVar("T")

# What pictures that are being decoded may have of the server's memory. Models, bodies and all else have the rest.
_SHARE_OF_MEMORY = 0.5

_log = logging.getLogger(__name__)

NewRows = Callable[[int, int], NDArray[np.uint8]]
"""Makes uint8 `[tokens, width]`, uninitialised."""


def _new_rows(tokens: int, width: int) -> NDArray[np.uint8]:
    return np.empty((tokens, width), np.uint8)


class Decoder:
    """Decodes at most `threads` images at once, and no more than there is room for in `room_bytes`."""

    def __init__(
        self,
        *,
        threads: int,
        max_decode_pixels: int,
        geometry: Geometry,
        rows: NewRows = _new_rows,
        room_bytes: int | None = None,
    ) -> None:
        """rows: makes the arrays that rows are written to. room_bytes: the most memory of images that are being
        decoded; None for as much as `threads` of the largest take. Raises `SettingsError` if the system has no room for
        the threads."""
        self._geometry, self._rows = geometry, rows
        self._memory = MemoryReturns()
        self._bulk = asyncio.Semaphore(threads)
        self._room = DecodeRoom(sys.maxsize if room_bytes is None else room_bytes)
        try:
            self._headers, self._pixels = (CallThreads(threads, name) for name in ("header", "decode"))
            self._reader = ImageReader(processes=threads, max_decode_pixels=max_decode_pixels)
        except RuntimeError as error:
            raise SettingsError(f"decode_threads={threads} is more than the system allows: {error}") from None

    @classmethod
    def of(cls, settings: Settings, geometry: Geometry, *, rows: NewRows = _new_rows) -> Self:
        """With half of the memory that the server may use as the room."""
        pixels = settings.max_decode_pixels
        room_bytes = int(usable_memory_bytes() * _SHARE_OF_MEMORY) // settings.http_workers
        if room_bytes < (largest := pixels * MOST_BYTES_A_PIXEL):
            _log.warning(
                "max_decode_pixels allows pictures that take %.1f GB to decode, and there are %.1f GB for all: lower "
                "it, or give the server more memory",
                largest / 1e9,
                room_bytes / 1e9,
            )
        return cls(
            threads=settings.decode_threads, max_decode_pixels=pixels, geometry=geometry, rows=rows,
            room_bytes=room_bytes,
        )  # fmt: skip

    def of_model(self, geometry: Geometry, *, rows: NewRows = _new_rows) -> Self:
        """One for another model, with the threads, processes and room of this one, which goes on meanwhile. One of both
        is closed.

        The allocator keeps for a thread what its largest pictures took, and gives none of that back when it ends."""
        other = copy(self)
        other._geometry, other._rows = geometry, rows
        return other

    def plain_header(self, data: bytes) -> ImageHeader | None:
        """The header, read where it is, if that takes but a few microseconds: a thread would cost more."""
        return self._reader.plain_header(data)

    async def header(self, data: bytes) -> ImageHeader:
        """Raises `ImageError`, and `Unavailable` if a process is needed and none can be started. Decodes no pixel."""
        if (plain := self.plain_header(data)) is not None:
            return plain
        return await _run(self._headers, partial(self._reader.read_header, data))

    def turn(self, *, bulk: bool) -> AbstractAsyncContextManager[None]:
        """Within which a request may ask for `patches`. As many images of bulk as there are threads have one, so that
        an interactive image waits for no more of them."""
        return self._bulk if bulk else nullcontext()

    async def patches(self, data: bytes, plan: ImagePlan, decode: DecodeMode) -> tuple[ImagePlan, NDArray[np.uint8]]:
        """The plan, turned if the picture is, and uint8 rows `[N, 3*P*P]`. Raises as `header`.

        A call that is cancelled before its thread begins decodes nothing.
        """
        taken = await self._room.take(decode_bytes(data, plan.size))
        work = partial(self._decode, data, plan, decode)
        return await _run(self._pixels, work, at_end=partial(self._room.give, taken))

    def _decode(self, data: bytes, plan: ImagePlan, decode: DecodeMode) -> tuple[ImagePlan, NDArray[np.uint8]]:
        rows = self._rows(plan.tokens, 3 * self._geometry.patch_size**2)
        decoded = self._reader.decode_patches(data, plan, geometry=self._geometry, decode=decode, rows=rows)
        self._memory.work_done()
        return decoded

    def close(self) -> None:
        """Leaves no process behind. Threads end with the image that they are decoding."""
        for threads in (self._headers, self._pixels):
            threads.close()
        self._reader.close()


class DecodeRoom:
    """Lets pictures be decoded while there is room for them, in the order in which they come.

    A picture that is larger than all of the room is decoded alone. For one event loop.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = self._free_bytes = max(1, most_bytes)
        self._queue: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def take(self, size: int) -> int:
        """Waits until there is room for `size` bytes. Returns what is to be given back."""
        size = min(size, self._most_bytes)
        if not self._queue and size <= self._free_bytes:
            self._free_bytes -= size
            return size
        turn = asyncio.get_running_loop().create_future()
        self._queue.append((size, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._grant()
            else:
                self.give(size)
            raise
        return size

    def give(self, size: int) -> None:
        self._free_bytes += size
        self._grant()

    def _grant(self) -> None:
        while self._queue:
            size, turn = self._queue[0]
            if not turn.done():
                if size > self._free_bytes:
                    return
                self._free_bytes -= size
                turn.set_result(None)
            self._queue.popleft()


async def _run(threads: CallThreads, work: Callable[[], T], *, at_end: Callable[[], None] = lambda: None) -> T:
    """The result of `work` in a thread.

    at_end: called on the loop once no thread is at work any more, which may be after the caller has gone.
    """
    future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
    threads.call(_Call(work, future, at_end))
    try:
        return await future
    except OSError as error:
        _log.error("an image that needs a process cannot be decoded now: %s", error)
        raise Unavailable("this image needs a process of its own, and the system has no room for one") from None
    finally:
        # The future has the error, whose frames have this one.
        del future


class _Call(Generic[T]):
    """Work for a thread, unless its caller has given up, and the future that is told the outcome."""

    def __init__(self, work: Callable[[], T], future: "asyncio.Future[T]", at_end: Callable[[], None]) -> None:
        self._work, self._future, self._at_end = work, future, at_end

    def __call__(self) -> None:
        try:
            # What nobody waits for is not done.
            self._tell(self._future.set_result, None if self._future.cancelled() else self._work())
        except BaseException as error:
            self._tell(self._future.set_exception, error)
        finally:
            # The frames of an error have this object, which would hold the image.
            del self._work, self._future, self._at_end

    def _tell(self, settle: Callable[[Any], None], outcome: object) -> None:
        # Nobody waits on a loop that has closed.
        with suppress(RuntimeError):
            self._future.get_loop().call_soon_threadsafe(_settle, self._future, settle, outcome, self._at_end)


def _settle(
    future: "asyncio.Future[Any]", settle: Callable[[Any], None], outcome: object, at_end: Callable[[], None]
) -> None:
    at_end()
    if not future.done():
        settle(outcome)
