"""`packlight embed`: files in, vectors out, through the same packs as the server's but without one.

Files are decoded in threads ahead of the device and packed in the order given. A file that cannot be embedded is
reported and the others go on.
"""

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate, islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from model.errors import ModelError
from model.images.decode import DecodeMode, decode_patches, read_header
from model.pack import pack
from model.sizing.budget import Budget
from model.sizing.geometry import Geometry, Strategy
from model.sizing.plan import ImagePlan, plan_image
from service.requests.results import image_embedding

if TYPE_CHECKING:
    from model.running.runner import Runner


@dataclass(frozen=True, slots=True, eq=False)
class Embedded:
    """One file's vector: float32 `[D]`, of length 1 unless asked for as it is."""

    path: Path
    plan: ImagePlan
    embedding: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Failed:
    """Why a file has no vector."""

    path: Path
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class _Decoded:
    path: Path
    plan: ImagePlan
    rows: NDArray[np.uint8]


@dataclass(slots=True)
class PackCount:
    """What the device has done so far."""

    packs: int = 0
    image_tokens: int = 0
    computed_tokens: int = 0

    @property
    def padding_waste(self) -> float:
        """Padding over everything computed, from 0 to 1."""
        return 1 - self.image_tokens / self.computed_tokens if self.computed_tokens else 0.0


class FileEmbedder:
    """Embeds files with one runner, one budget and one strategy for all."""

    def __init__(
        self,
        runner: "Runner",
        *,
        geometry: Geometry,
        budget: Budget,
        strategy: Strategy,
        max_batch_tokens: int,
        max_decode_pixels: int,
        decode_threads: int,
        decode: DecodeMode = "exact",
        normalize: bool = True,
    ) -> None:
        self._runner = runner
        self._geometry, self._budget, self._strategy = geometry, budget, strategy
        self._max_batch_tokens, self._max_decode_pixels = max_batch_tokens, max_decode_pixels
        self._decode_threads, self._decode_mode, self._normalize = decode_threads, decode, normalize
        self.count = PackCount()

    def embed(self, paths: Iterable[Path]) -> Iterator[Embedded | Failed]:
        """One result a file: failures as they are met, vectors a pack at a time, both in the order of the files."""
        waiting: list[_Decoded] = []
        tokens = 0
        for item in self._decode_ahead(paths):
            if isinstance(item, Failed):
                yield item
                continue
            if tokens + item.plan.tokens > self._max_batch_tokens:
                yield from self._run(waiting)
                waiting, tokens = [], 0
            waiting.append(item)
            tokens += item.plan.tokens
        yield from self._run(waiting)

    def _decode_ahead(self, paths: Iterable[Path]) -> Iterator[_Decoded | Failed]:
        """Decoded files in order, with only so many more of them under way or in memory."""
        remaining = iter(paths)
        with ThreadPoolExecutor(self._decode_threads, thread_name_prefix="decode") as pool:
            ahead: list[Future[_Decoded | Failed]] = [
                pool.submit(self._decode, path) for path in islice(remaining, 4 * self._decode_threads)
            ]
            while ahead:
                result = ahead.pop(0).result()
                ahead += [pool.submit(self._decode, path) for path in islice(remaining, 1)]
                yield result

    def _decode(self, path: Path) -> _Decoded | Failed:
        try:
            data = path.read_bytes()
            header = read_header(data, max_decode_pixels=self._max_decode_pixels)
            plan = plan_image(header.size, geometry=self._geometry, budget=self._budget, strategy=self._strategy)
            plan, rows = decode_patches(
                data,
                plan,
                geometry=self._geometry,
                max_decode_pixels=self._max_decode_pixels,
                decode=self._decode_mode,
            )
        except OSError as error:
            return Failed(path, error.strerror or type(error).__name__)
        except ModelError as error:
            return Failed(path, str(error))
        return _Decoded(path, plan, rows)

    def _run(self, images: list[_Decoded]) -> Iterator[Embedded | Failed]:
        if not images:
            return
        grids = [segment.grid for image in images for segment in image.plan.segments]
        output = self._runner.run(pack([image.rows for image in images], grids))
        self.count.packs += 1
        self.count.image_tokens += sum(image.plan.tokens for image in images)
        self.count.computed_tokens += output.computed_tokens
        ends = accumulate((len(image.plan.segments) for image in images), initial=0)
        for image, (start, end) in zip(images, pairwise(ends), strict=True):
            vector = image_embedding(output.pooled[start:end], normalize=self._normalize)
            if np.isfinite(vector).all():
                yield Embedded(image.path, image.plan, vector)
            else:
                yield Failed(image.path, "its vector is not of finite numbers in this dtype; try --dtype float32")
