"""The emulated accelerator takes the time that it should, keeps packs apart, and its answers show what is wrong."""

import asyncio
from functools import partial

import numpy as np
import pytest
from numpy.typing import NDArray

from loadtest.bench.accelerator.device import (
    H200_BASE,
    H200_SO400M,
    EmulatedDevice,
    PackSeconds,
    Timeline,
    sampled_vectors,
    vector_of,
)
from model.pack import PackedBatch, pack
from service.engine.client import ImageJob
from service.engine.engine import Engine
from service.limits import Limits
from service.metrics import Metrics
from tests.service.engine.test_engine import FACTS

WIDE = partial(sampled_vectors, width=40)


def rows_of(tokens: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (tokens, 12), dtype=np.uint8)


def batch_of(*rows: NDArray[np.uint8]) -> PackedBatch:
    return pack(list(rows), [(len(each), 1) for each in rows])


@pytest.mark.parametrize(("seconds", "milliseconds"), [(H200_BASE, 4), (H200_SO400M, 19)])
def test_a_full_pack_takes_what_an_h200_would(seconds: PackSeconds, milliseconds: float) -> None:
    lengths = np.full(64, 256)
    batch = PackedBatch(
        np.empty((0, 0), np.uint8), np.cumsum([0, *lengths], dtype=np.int32), ((16, 16),) * 64, max_seqlen=256
    )
    assert seconds.of(batch) * 1e3 == pytest.approx(milliseconds)


def test_a_pack_is_copied_in_while_the_one_before_it_is_computed() -> None:
    timeline = Timeline()
    # 50 GB/s: a second for each.
    one = timeline.add(0.0, 3.0, in_bytes=50 * 10**9, out_bytes=0)
    two = timeline.add(1.0, 3.0, in_bytes=50 * 10**9, out_bytes=25 * 10**9)
    late = timeline.add(20.0, 3.0, in_bytes=50 * 10**9, out_bytes=0)
    assert [(turn.begins_s, turn.ends_s) for turn in (one, two, late)] == [(1, 4), (4, 7), (21, 24)]
    assert two.back_s == 7.5
    assert timeline.busy_share == 9 / 23


@pytest.mark.parametrize("change", ["missing", "doubled", "another image's", "swapped"])
def test_a_sampled_vector_shows_rows_that_are_not_the_images(change: str) -> None:
    rows = rows_of(40)
    changed = {
        "missing": np.delete(rows, 5, axis=0),
        "doubled": np.insert(rows, 5, rows[5], axis=0),
        "another image's": np.concatenate([rows[:20], rows_of(20, seed=1)]),
        "swapped": np.concatenate([rows[20:], rows[:20]]),
    }[change]
    (right,) = WIDE(batch_of(rows))
    assert right.shape == (40,)
    assert np.array_equal(WIDE(batch_of(rows_of(7, 2), rows, rows_of(9, 3)))[1], right)
    assert not np.array_equal(WIDE(batch_of(changed))[0], right)


@pytest.mark.parametrize("depth", [1, 2])
def test_every_image_gets_its_own_vector_whatever_is_under_way(depth: int) -> None:
    """Packs of very different sizes follow one another, so that memory that is used again would show."""
    device = EmulatedDevice(PackSeconds(1e-4, 1e-6, 0.0), depth=depth)
    engine = Engine(device, FACTS, Limits(16, 16, 32, 10**6), metrics=Metrics())
    images = [rows_of(1 + number * 7 % 16, seed=number) for number in range(200)]

    async def main() -> list[NDArray[np.float32]]:
        jobs = (ImageJob(rows, ((len(rows), 1),), 16, None, want_tokens=False) for rows in images)
        return [result.pooled[0] for result in await asyncio.gather(*map(engine.submit, jobs))]

    vectors = asyncio.run(main())
    assert engine.close(timeout_s=10)
    for vector, rows in zip(vectors, images, strict=True):
        assert np.array_equal(vector, vector_of(rows))
    assert device.timeline.packs > 50
