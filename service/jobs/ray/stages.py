"""What Ray runs: a task that decodes some pictures, and an actor that holds a runner."""

import os
from dataclasses import dataclass
from functools import lru_cache
from typing import Self

import numpy as np
import pyarrow as pa
import ray
from numpy.typing import NDArray

from model.images.reader import ImageReader
from service.engine.device import device_of
from service.jobs.decoding import PictureDecoder, Recipe, digest
from service.jobs.packs import PackCount, Packs
from service.jobs.ray import messages
from service.jobs.ray.messages import Known
from service.jobs.rows import Decoded, Embedded, Failed, Picture, Row
from service.limits import Limits, ModelFacts
from service.loading import load_runner
from service.settings.names import SettingsError
from service.settings.settings import Settings


@dataclass(frozen=True, slots=True)
class Digests:
    """The contents whose vectors are kept: SHA-256, sorted, uint8 `[N, 32]`. All tasks of a node share one array."""

    sorted: NDArray[np.uint8]

    @classmethod
    def of(cls, digests: bytes) -> Self:
        """digests: sorted, one behind another."""
        return cls(np.frombuffer(digests, np.uint8).reshape(-1, 32))

    def __contains__(self, sha256: str) -> bool:
        wanted, low, high = bytes.fromhex(sha256), 0, len(self.sorted)
        while low < high:
            middle = (low + high) // 2
            if self.sorted[middle].tobytes() < wanted:
                low = middle + 1
            else:
                high = middle
        return low < len(self.sorted) and self.sorted[low].tobytes() == wanted


class Decode:
    """Decodes the pictures of one block. A plain value, which goes to each task."""

    def __init__(self, recipe: Recipe, *, max_decode_pixels: int, known: "ray.ObjectRef[Digests]") -> None:
        self._recipe, self._max_decode_pixels, self._known = recipe, max_decode_pixels, known

    def __call__(self, table: pa.Table) -> pa.Table:
        decoder, known = _decoder(self._recipe, self._max_decode_pixels), ray.get(self._known)
        return messages.decoded_table(
            [(place, _decoded(decoder, known, picture)) for place, picture in messages.read_rows(table)]
        )


def _decoded(decoder: PictureDecoder, known: Digests, picture: Picture) -> Decoded | Failed | Known:
    if picture.error:
        return Failed(picture.path, picture.error)
    assert isinstance(picture.data, bytes)
    sha256 = digest(picture.data)
    if sha256 in known:
        return Known(picture.path, sha256)
    return decoder.decode(picture.path, picture.data, sha256=sha256)


@lru_cache(maxsize=1)
def _decoder(recipe: Recipe, max_decode_pixels: int) -> PictureDecoder:
    """One for all tasks of a process. Its worker process ends with this one."""
    return PictureDecoder(recipe, ImageReader(processes=1, max_decode_pixels=max_decode_pixels))


def facts_of(settings: Settings) -> ModelFacts:
    """What a runner of these settings is on the machine that this runs on."""
    return load_runner(settings)[1]


class Embed:
    """One runner, for one block after another."""

    def __init__(self, settings: Settings, limits: Limits, recipe: Recipe, threads: int | None) -> None:
        """Raises `SettingsError` on a machine whose vectors would be others."""
        if threads:
            # Read when torch is loaded. Ray has set it to the whole processors that it counts for this actor.
            os.environ["OMP_NUM_THREADS"] = str(threads)
        runner, model = load_runner(settings)
        if model.fingerprint_of(recipe.decode) != recipe.fingerprint:
            raise SettingsError(
                f"the vectors of this cluster's machines differ: one computes in {model.dtype} on {model.device}. "
                "Set the same dtype for all, or take machines of one kind"
            )
        self._packs, self._row_bytes = Packs(device_of(runner), limits, normalize=recipe.normalize), recipe.row_bytes

    def __call__(self, table: pa.Table) -> pa.Table:
        """Rows in the order of the pictures. The block is what the scheduler chooses packs from."""
        given = list(messages.decoded_rows(table, row_bytes=self._row_bytes))
        self._packs.count = PackCount()
        # The same bytes are embedded once.
        unlike = {row.sha256: row for _, row in given if isinstance(row, Decoded)}
        made = {row.sha256: row for row in self._packs.embed(unlike.values())}
        return messages.embedded_table(
            [(place, _named(made[row.sha256], row) if isinstance(row, Decoded) else row) for place, row in given],
            self._packs.count,
        )


def _named(row: Row, picture: Decoded) -> Row:
    if isinstance(row, Failed):
        return Failed(picture.path, row.reason, row.sha256)
    return Embedded(picture.path, row.sha256, row.plan, row.embedding, row.repaired)
