"""Patch rows in memory that one HTTP process writes and engine processes read, so that no socket carries them.

A slab is an anonymous file. Its HTTP process takes and frees places in it; engines only read. The kernel frees it with
the last process that has it, however that one ends.
"""

import fcntl
import mmap
import os
import threading
from bisect import insort
from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

_PAGE_BYTES = mmap.PAGESIZE
# An empty slab keeps so much: the next images take memory that is there already.
_KEPT_BYTES = 8 * 1024**2
# Nobody can change the size, or lift this: what lies behind the end of a file kills who reads it.
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


_Span = tuple[int, int]
"""Start and end, in bytes of a slab."""


class SlabError(Exception):
    """A file that is no slab, or a place outside of it."""


class _Place:
    """Some pages of a slab, as long as any array has them. What numpy reads from it is the array's memory."""

    __slots__ = ("__array_interface__", "_freed", "slab", "span")

    def __init__(self, slab: mmap.mmap, interface: dict[str, Any], span: _Span, freed: "deque[_Span]") -> None:
        self.__array_interface__ = interface
        self.slab, self.span, self._freed = slab, span, freed

    def __del__(self) -> None:
        # Called by any thread at any moment, perhaps one that has the slab's lock.
        self._freed.append(self.span)


class Slab:
    """The memory of one HTTP process's rows. Any thread may take rows; the memory of rows that nobody has is free."""

    def __init__(self, size_bytes: int) -> None:
        """Takes address space. Memory is taken when rows are first written to a place."""
        size_bytes = _whole_pages(size_bytes)
        self.descriptor = os.memfd_create("packlight-rows", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.descriptor, size_bytes)
        fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, _SEALS)
        self._map: mmap.mmap | None = mmap.mmap(self.descriptor, size_bytes)
        self._address = np.frombuffer(self._map, np.uint8).ctypes.data
        self._size_bytes, self._used_bytes = size_bytes, 0
        self._lock = threading.Lock()
        self._holes = [(0, size_bytes)]  # in order, with something between any two
        self._freed: deque[_Span] = deque()

    def rows(self, tokens: int, width: int) -> NDArray[np.uint8]:
        """uint8 `[tokens, width]`, uninitialised. In other memory if the slab has no room for it."""
        with self._lock:
            span, data = self._take(_whole_pages(tokens * width)), self._map
        if span is None or data is None:
            return np.empty((tokens, width), np.uint8)
        address = self._address + span[0]
        interface = {"version": 3, "typestr": "|u1", "shape": (tokens, width), "data": (address, False)}
        return np.asarray(_Place(data, interface, span, self._freed))

    def place_of(self, rows: NDArray[np.uint8]) -> int | None:
        """The byte at which the rows begin; None for an array in other memory, or in pieces, or after `close`."""
        if self._map is None:
            return None
        place = rows.base
        if isinstance(place, _Place) and place.slab is self._map:
            return place.span[0]
        offset = int(rows.ctypes.data) - self._address
        inside = offset >= 0 and offset + rows.nbytes <= self._size_bytes
        return offset if inside and rows.flags.c_contiguous else None

    def trim(self) -> None:
        """Gives the system back what an empty slab has no use for."""
        with self._lock:
            self._gather()
            if self._map and self._used_bytes > _KEPT_BYTES and self._holes == [(0, self._size_bytes)]:
                self._map.madvise(mmap.MADV_REMOVE, _KEPT_BYTES, self._used_bytes - _KEPT_BYTES)
                self._used_bytes = _KEPT_BYTES

    def close(self) -> None:
        """The memory goes with the last rows, whoever still has this object. New rows are in other memory."""
        with self._lock:
            self._map, self._holes = None, []
        os.close(self.descriptor)

    def _take(self, size_bytes: int) -> _Span | None:
        """The lowest place, so that few pages are ever written."""
        self._gather()
        for number, (start, end) in enumerate(self._holes):
            if end - start >= size_bytes:
                taken_end = start + size_bytes
                self._holes[number : number + 1] = [(taken_end, end)] if taken_end < end else []
                self._used_bytes = max(self._used_bytes, taken_end)
                return start, taken_end
        return None

    def _gather(self) -> None:
        """Puts what was freed among the holes, and joins those that touch."""
        if not self._freed or self._map is None:
            return
        while self._freed:
            insort(self._holes, self._freed.popleft())
        joined = self._holes[:1]
        for start, end in self._holes[1:]:
            if start == joined[-1][1]:
                joined[-1] = (joined[-1][0], end)
            else:
                joined.append((start, end))
        self._holes = joined


class SlabView:
    """What an engine sees of a slab. Its memory stays as long as any array of it."""

    def __init__(self, descriptor: int) -> None:
        """Leaves the descriptor open. Raises `SlabError`."""
        try:
            if fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & _SEALS != _SEALS:
                raise SlabError("a file whose size may change")
            data = mmap.mmap(descriptor, os.fstat(descriptor).st_size, prot=mmap.PROT_READ)
        except (OSError, ValueError) as error:
            raise SlabError(f"no slab: {error}") from None
        self._bytes = np.frombuffer(data, np.uint8)

    def rows(self, start: int, tokens: int, width: int) -> NDArray[np.uint8]:
        """uint8 `[tokens, width]`, read-only. Raises `SlabError` for a place that is not all inside."""
        end = start + tokens * width
        if not 0 <= start <= end <= len(self._bytes):
            raise SlabError(f"rows from byte {start} to {end} of a slab of {len(self._bytes)}")
        return self._bytes[start:end].reshape(tokens, width)


def _whole_pages(size_bytes: int) -> int:
    return -(-max(1, size_bytes) // _PAGE_BYTES) * _PAGE_BYTES
