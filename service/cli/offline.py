"""`packlight embed`: files in, vectors out, in packs that the server's scheduler chooses.

Files are decoded in threads ahead of the device. A file that cannot be embedded is reported, and the others go on.
"""

from collections import deque
from collections.abc import Container, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import accumulate, islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from model.errors import ModelError
from model.images.decode import DecodeMode
from model.images.patches import picture_of
from model.images.reader import ImageReader
from model.pack import pack
from model.sizing.budget import Budget
from model.sizing.geometry import Geometry, Strategy
from model.sizing.plan import ImagePlan, plan_image
from service.cli.report.thumbs import webp_thumb
from service.engine.forward import have_directions
from service.engine.scheduler import QueuedItem, Scheduler
from service.limits import Limits
from service.requests.results import image_embedding

if TYPE_CHECKING:
    from model.running.runner import Runner

# With so many packs queued, the scheduler finds images that fill the next one.
_QUEUED_PACKS = 2


@dataclass(frozen=True, slots=True, eq=False)
class Embedded:
    """One file's vector: float32 `[E]`, of length 1 unless that was not wanted.

    repaired: as in `ImageHeader`. thumb: a WebP of what the model saw; empty unless the reader was told to keep it.
    """

    path: Path
    plan: ImagePlan
    embedding: NDArray[np.float32]
    repaired: bool = False
    thumb: bytes = b""


@dataclass(frozen=True, slots=True)
class Failed:
    """Why a file has no vector."""

    path: Path
    reason: str


@dataclass(slots=True, eq=False)
class _DecodedFile(QueuedItem):
    """rows: uint8 `[N, 3*P*P]`. result: None until its pack has run."""

    path: Path
    plan: ImagePlan
    rows: NDArray[np.uint8]
    repaired: bool
    thumb: bytes
    result: Embedded | Failed | None = field(default=None, init=False)


@dataclass(slots=True)
class PackCount:
    """What the device has done so far, and what it would have computed if it had padded the images of each pack to the
    longest of them, or to their caps."""

    packs: int = 0
    image_tokens: int = 0
    computed_tokens: int = 0
    longest_tokens: int = 0
    cap_tokens: int = 0

    def add(self, plans: Sequence[ImagePlan], computed_tokens: int) -> None:
        """Counts one pack."""
        tokens = [plan.tokens for plan in plans]
        self.packs += 1
        self.image_tokens += sum(tokens)
        self.computed_tokens += computed_tokens
        self.longest_tokens += len(tokens) * max(tokens)
        self.cap_tokens += sum(plan.token_cap for plan in plans)

    @property
    def padding_waste(self) -> float:
        """Padding over everything computed, from 0 to 1."""
        return 1 - self.image_tokens / self.computed_tokens if self.computed_tokens else 0.0


@dataclass(frozen=True, slots=True)
class FileReader:
    """Decodes image files under one budget and one strategy. Several threads may use it at once.

    shown: the files whose thumbnails are kept.
    """

    geometry: Geometry
    budget: Budget
    strategy: Strategy
    images: ImageReader
    decode: DecodeMode = "exact"
    shown: Container[Path] = ()

    def read(self, path: Path) -> _DecodedFile | Failed:
        try:
            data = path.read_bytes()
            header = self.images.read_header(data)
            plan = plan_image(header.size, geometry=self.geometry, budget=self.budget, strategy=self.strategy)
            plan, rows = self.images.decode_patches(data, plan, geometry=self.geometry, decode=self.decode)
        except OSError as error:
            return Failed(path, error.strerror or str(error))
        except ModelError as error:
            return Failed(path, str(error))
        thumb = webp_thumb(picture_of(rows, plan, self.geometry)) if path in self.shown else b""
        return _DecodedFile(
            plan.tokens, arrived_s=0.0, deadline_s=None, path=path, plan=plan, rows=rows, repaired=header.repaired,
            thumb=thumb,
        )  # fmt: skip


class FileEmbedder:
    """Embeds files with one runner."""

    def __init__(
        self, runner: "Runner", reader: FileReader, limits: Limits, *, decode_threads: int, normalize: bool = True
    ) -> None:
        self._runner, self._reader, self._limits = runner, reader, limits
        self._decode_threads, self._normalize = decode_threads, normalize
        self.count = PackCount()

    def embed(self, paths: Iterable[Path]) -> Iterator[Embedded | Failed]:
        """One result a file: vectors in the order of the files, and a file that cannot be read as soon as it is met."""
        scheduler = Scheduler[_DecodedFile](
            max_batch_tokens=self._limits.max_batch_tokens, max_batch_items=self._limits.max_batch_items
        )
        unfinished: deque[_DecodedFile] = deque()
        for file in self._decode_ahead(paths):
            if isinstance(file, Failed):
                yield file
                continue
            scheduler.add(file)
            unfinished.append(file)
            if scheduler.queue_tokens >= _QUEUED_PACKS * self._limits.max_batch_tokens:
                self._run(scheduler.next_pack(0.0).pack)
                yield from _finished(unfinished)
        while files := scheduler.next_pack(0.0).pack:
            self._run(files)
            yield from _finished(unfinished)

    def _decode_ahead(self, paths: Iterable[Path]) -> Iterator[_DecodedFile | Failed]:
        """Decoded files in order, with a bounded number of further ones under way or in memory."""
        remaining = iter(paths)
        with ThreadPoolExecutor(self._decode_threads, thread_name_prefix="decode") as pool:
            ahead: deque[Future[_DecodedFile | Failed]] = deque(
                pool.submit(self._reader.read, path) for path in islice(remaining, 4 * self._decode_threads)
            )
            while ahead:
                result = ahead.popleft().result()
                ahead.extend(pool.submit(self._reader.read, path) for path in islice(remaining, 1))
                yield result

    def _run(self, files: Sequence[_DecodedFile]) -> None:
        """Runs one pack, and gives each file its result."""
        grids = [segment.grid for file in files for segment in file.plan.segments]
        output = self._runner.run(pack([file.rows for file in files], grids))
        self.count.add([file.plan for file in files], output.computed_tokens)
        ends = accumulate((len(file.plan.segments) for file in files), initial=0)
        for file, (start, end) in zip(files, pairwise(ends), strict=True):
            vector = image_embedding(output.pooled[start:end], normalize=self._normalize)
            if have_directions(vector[None]):
                file.result = Embedded(file.path, file.plan, vector, file.repaired, file.thumb)
            else:
                what = "zeros" if np.isfinite(vector).all() else "not finite in this dtype; try --dtype float32"
                file.result = Failed(file.path, f"its vector is {what}")


def _finished(files: deque[_DecodedFile]) -> Iterator[Embedded | Failed]:
    """Takes the results from the front, up to the first file that has none yet."""
    while files and files[0].result is not None:
        yield files[0].result
        files.popleft()
