"""A job with a device that answers at once and whose vectors can be checked."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field

import numpy as np

from loadtest.bench.accelerator.device import EmulatedRunner, PackSeconds, vector_of
from model.errors import DeviceOutOfMemory
from model.images.decode import decode_patches, read_header
from model.images.reader import ImageReader
from model.pack import PackedBatch
from model.running.output import RunnerOutput
from model.sizing.budget import Budget
from model.sizing.geometry import Geometry
from model.sizing.plan import plan_image
from service.engine import device as driver
from service.engine.device import HostDevice
from service.engine.forward import PackRunner
from service.jobs.decoding import PictureDecoder, Recipe
from service.jobs.packs import Packs
from service.jobs.pipeline import Known, Pipeline
from service.jobs.rows import Picture, Row
from service.limits import Limits
from service.requests.results import normalized
from tests import pictures

GEOMETRY = Geometry.for_naflex(16, 64)
RECIPE = Recipe(GEOMETRY, Budget.of_tokens(16, 16), "naflex", "exact", "0123456789abcdef")
INSTANT = PackSeconds(0, 0, 0)


def png(number: int) -> bytes:
    """A picture that is like no other, of one of several shapes."""
    return pictures.save(pictures.picture(32 + 8 * (number % 5), 40, seed=number), "PNG")


def expected(data: bytes) -> "np.ndarray[tuple[int], np.dtype[np.float32]]":
    """The picture's vector by a device of these tests."""
    header = read_header(data, max_decode_pixels=10**6)
    plan = plan_image(header.size, geometry=GEOMETRY, budget=RECIPE.budget, strategy="naflex")
    _, rows = decode_patches(data, plan, geometry=GEOMETRY, max_decode_pixels=10**6)
    vector: np.ndarray[tuple[int], np.dtype[np.float32]] = normalized(vector_of(rows)[None])[0]
    return vector


@dataclass
class Device(EmulatedRunner):
    """bad: vectors whose segments it fails on. most_tokens: of a pack that it has memory for. segments: all it ran."""

    bad: Sequence[bytes] = ()
    most_tokens: int | None = None
    segments: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(INSTANT)

    def run(self, batch: PackedBatch, *, tokens: bool = False) -> RunnerOutput:
        if self.most_tokens and batch.tokens > self.most_tokens:
            raise DeviceOutOfMemory("no memory for this pack")
        output = super().run(batch, tokens=tokens)
        made = [vector.tobytes() for vector in output.pooled]
        if any(vector in self.bad for vector in made):
            raise RuntimeError("a kernel failed")
        self.segments += made
        return output


@contextmanager
def pipeline(
    device: EmulatedRunner | None = None,
    *,
    ahead_bytes: int = 2**20,
    max_batch_tokens: int = 64,
    driven: Callable[[PackRunner], driver.Device] = HostDevice,
) -> Iterator[Pipeline]:
    """driven: how the runner is made a device."""
    limits = Limits(16, 16, max_batch_tokens, 8 * max_batch_tokens)
    with closing(ImageReader(processes=1, max_decode_pixels=10**6)) as images:
        yield Pipeline(
            Packs(driven(device or Device()), limits),
            PictureDecoder(RECIPE, images),
            decode_threads=2,
            ahead_bytes=ahead_bytes,
        )


def rows_of(given: Iterable[Picture], device: EmulatedRunner | None = None, known: Known | None = None) -> list[Row]:
    with pipeline(device) as job:
        return list(job.rows(given, known))
