"""One device and all cores: reads ahead, decodes ahead, and gives rows in the order of the source.

    source ─ feeder ─► readers ─► decoders ─► queue ─ stager ─► device ─► rows
             (window)  (files)    (cores)             (next pack)

Each arrow is a hand-over under one lock. The device's thread does nothing but forwards: the next pack is arranged while
one runs. `Window` bounds what all of it holds.
"""

import errno
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from model.memory import MemoryReturns
from model.threads import ThreadPool
from service.engine.outcomes import Outcome
from service.engine.under_way import Submitted
from service.jobs.decoding import PictureDecoder, digest
from service.jobs.packs import Packs, QueuedPicture
from service.jobs.places import Place, Places
from service.jobs.reading import PARTING_S, Readers, read_file, size_of
from service.jobs.rows import Decoded, Embedded, Failed, Picture, Row
from service.jobs.window import Window
from service.settings.names import SettingsError

AHEAD_BYTES = 256 * 1024**2
"""Bytes of files and rows that a job holds unless it is told otherwise."""
# Rows that may wait for one before them, which takes long. A vector takes some kilobytes.
_MOST_AHEAD = 8192
# Files that are read at once: enough for a disk or a network file system that answers late.
_READERS = 8
_MEMORY_RETURNS_EVERY_S = 10.0


class Known(Protocol):
    """Vectors that an earlier run of the same job has made, by content. Many threads may call `find`."""

    def find(self, sha256: str) -> Embedded | None: ...

    def add(self, rows: Sequence[Embedded]) -> None: ...


@dataclass(frozen=True, slots=True, eq=False)
class Pipeline:
    """Embeds the pictures of sources on one device.

    ahead_bytes: of files and rows that are held at once; a larger file is not read.
    """

    packs: Packs
    decoder: PictureDecoder
    decode_threads: int
    ahead_bytes: int = AHEAD_BYTES

    def rows(self, pictures: Iterable[Picture], known: Known | None = None) -> Generator[Row, None, None]:
        """One row a picture, in order. known: vectors that need not be made again, and where new ones are kept.

        Raises what the source raises, `DeviceLost`, and `SettingsError` if the system has no room for its threads.
        Whatever ends it, its threads have ended afterwards, but for those that wait for the source or for a file.
        """
        return _Flow(self, known).rows(pictures)


class _Flow:
    """One source on its way through the pipeline."""

    def __init__(self, pipeline: Pipeline, known: Known | None) -> None:
        self._packs, self._decoder, self._known = pipeline.packs, pipeline.decoder, known
        self._most_file_bytes, self._most_row_bytes = pipeline.ahead_bytes, self._decoder.recipe.most_row_bytes
        self._places = Places(Window(max_bytes=self._most_file_bytes + self._most_row_bytes, max_pictures=_MOST_AHEAD))
        self._lock = threading.Lock()
        self._room, self._queued, self._staged_changed, self._rows = (threading.Condition(self._lock) for _ in range(4))
        self._waiting: dict[int, Place] = {}  # by the id of their queued picture
        self._staged: deque[Submitted[QueuedPicture]] = deque()
        self._done: deque[list[tuple[QueuedPicture, Outcome]]] = deque()
        self._coming = 0  # pictures that are being read or decoded
        self._source_ended = self._no_room = self._closed = False
        self._failure: BaseException | None = None
        self._memory = MemoryReturns(every_s=_MEMORY_RETURNS_EVERY_S)
        # All threads are there from the start: one that found no room later would leave its picture waiting for ever.
        threads = pipeline.decode_threads
        try:
            self._decoders, self._readers = ThreadPool(threads, "decode"), Readers(_READERS)
        except RuntimeError as error:
            raise SettingsError(f"decode_threads={threads} is more than the system allows: {error}") from None

    def rows(self, pictures: Iterable[Picture]) -> Generator[Row, None, None]:
        threads = [
            threading.Thread(target=self._guarded, args=(work,), name=name, daemon=True)
            for name, work in (
                ("feeder", lambda: self._feed(pictures)), ("stager", self._stage), ("device", self._run),
            )
        ]  # fmt: skip
        try:
            for thread in threads:
                thread.start()
            while (ready := self._next_rows()) is not None:
                yield from ready
        finally:
            self._close()
            for thread in threads[1:]:
                thread.join()
            threads[0].join(PARTING_S)
            self._finish([pair for pairs in self._done for pair in pairs])

    def _close(self) -> None:
        with self._lock:
            self._closed = True
            self._notify_all()
        self._readers.close()
        self._decoders.shutdown(wait=True, cancel_futures=True)

    def _notify_all(self) -> None:
        for condition in (self._room, self._queued, self._staged_changed, self._rows):
            condition.notify_all()

    def _guarded(self, work: Callable[[], None]) -> None:
        """A thread that fails ends the job, and not only itself."""
        try:
            work()
        except BaseException as error:
            with self._lock:
                self._failure = self._failure or error
                self._notify_all()

    # The feeder's thread.

    def _feed(self, pictures: Iterable[Picture]) -> None:
        for picture in pictures:
            size = self._size(picture)
            if not self._admit(picture, size):
                return
        with self._lock:
            self._source_ended = True
            self._queued.notify()
            self._rows.notify()

    def _size(self, picture: Picture) -> int:
        """The most bytes that the picture may take at once, from here on."""
        if picture.error:
            return 0
        size = len(picture.data) if isinstance(picture.data, bytes) else size_of(picture.data)
        known = self._most_file_bytes if size is None else min(size, self._most_file_bytes)
        return known + self._most_row_bytes

    def _admit(self, picture: Picture, size: int) -> bool:
        """Waits for room, and sends the picture on its way. False if the job has ended."""
        with self._lock:
            while not (self._closed or self._places.has_room(size)):
                self._no_room = True
                self._queued.notify()
                self._room.wait()
            self._no_room = False
            if self._closed:
                return False
            place = self._places.enter(picture.path, size)
            self._coming += 1
        if isinstance(picture.data, Path) and not picture.error:
            self._readers.submit(lambda: self._guarded(lambda: self._read(place, picture)))
        else:
            self._decode_soon(place, picture)
        return True

    def _decode_soon(self, place: Place, picture: Picture) -> None:
        # After `_close` the pool takes nothing more.
        with suppress(RuntimeError):
            self._decoders.submit(self._guarded, lambda: self._decode(place, picture))

    # Threads of the two pools.

    def _read(self, place: Place, picture: Picture) -> None:
        assert isinstance(picture.data, Path)
        most_bytes = place.held_bytes - self._most_row_bytes
        try:
            picture = Picture(picture.path, read_file(picture.data, most_bytes))
        except OSError as error:
            grew = error.errno == errno.EFBIG and most_bytes < self._most_file_bytes
            reason = "the file grew before it was read" if grew else error.strerror or str(error)
            picture = Picture(picture.path, error=reason)
        self._decode_soon(place, picture)

    def _decode(self, place: Place, picture: Picture) -> None:
        assert isinstance(picture.data, bytes)
        if picture.error:
            self._settle(place, Failed(picture.path, picture.error))
            return
        sha256 = digest(picture.data)
        if not self._leads(place, sha256):
            return
        if self._known is not None and (found := self._known.find(sha256)):
            self._settle(place, found)
            return
        decoded = self._decoder.decode(picture.path, picture.data, sha256=sha256)
        if isinstance(decoded, Failed):
            self._settle(place, decoded)
        else:
            self._queue(place, decoded)

    def _leads(self, place: Place, sha256: str) -> bool:
        with self._lock:
            leads = self._places.leads(place, sha256)
            if not leads:
                self._room.notify()
                self._no_longer_coming()
            return leads

    def _queue(self, place: Place, decoded: Decoded) -> None:
        with self._lock:
            self._shrink(place, decoded.rows.nbytes)
            self._waiting[id(self._packs.add(decoded))] = place
            self._no_longer_coming()
            if self._packs.well_filled:
                self._queued.notify()

    def _settle(self, place: Place, row: Row) -> None:
        with self._lock:
            self._resolve(place, row)
            self._no_longer_coming()

    def _shrink(self, place: Place, size: int) -> None:
        self._places.shrink(place, size)
        self._room.notify()

    def _no_longer_coming(self) -> None:
        self._coming -= 1
        if not self._coming:
            self._queued.notify()

    def _resolve(self, place: Place, row: Row) -> None:
        self._places.resolve(place, row)
        self._room.notify()
        if self._places.head_is_ready:
            self._rows.notify()

    # The stager's and the device's threads.

    def _stage(self) -> None:
        while True:
            with self._lock:
                while not (self._closed or self._failure or (not self._staged and self._worth_a_pack())):
                    self._queued.wait()
                if self._closed or self._failure:
                    return
                items = self._packs.next_pack()
            pack = self._packs.submit(items)
            with self._lock:
                self._staged.append(pack)
                self._staged_changed.notify()
            del items, pack

    def _worth_a_pack(self) -> bool:
        """A pack waits until it can be filled, or until nothing more would come."""
        if self._packs.well_filled:
            return True
        nothing_comes = not self._coming and (self._source_ended or self._no_room)
        return nothing_comes and self._packs.queue_tokens > 0

    def _run(self) -> None:
        while True:
            with self._lock:
                while not (self._staged or self._closed or self._failure):
                    self._staged_changed.wait()
                if self._closed or self._failure:
                    return
                pack = self._staged.popleft()
                self._queued.notify()
            for done in self._packs.run(pack):
                with self._lock:
                    self._done.append(done)
                    for item, _ in done:
                        self._shrink(self._waiting[id(item)], 0)
                    self._rows.notify()
            del pack

    # The caller's thread.

    def _next_rows(self) -> list[Row] | None:
        """The rows that come next; None after the last. Empty if there is news, but no row yet."""
        with self._lock:
            while not (self._failure or self._done or self._places.head_is_ready or self._all_is_done()):
                self._rows.wait()
            if self._failure and not self._done:
                raise self._failure
            done, self._done = list(self._done), deque()
        self._finish([pair for pairs in done for pair in pairs])
        self._memory.work_done()
        with self._lock:
            ready = self._places.take_ready()
            if ready:
                self._room.notify()
            return ready if ready or not self._all_is_done() else None

    def _all_is_done(self) -> bool:
        return self._source_ended and self._places.empty and not self._done

    def _finish(self, done: Sequence[tuple[QueuedPicture, Outcome]]) -> None:
        """Makes rows of what the device gave, and keeps the vectors before anyone may count on them."""
        rows = [self._packs.row(item.picture, outcome) for item, outcome in done]
        if self._known is not None:
            self._known.add([row for row in rows if isinstance(row, Embedded)])
        with self._lock:
            for (item, _), row in zip(done, rows, strict=True):
                self._resolve(self._waiting.pop(id(item)), row)
