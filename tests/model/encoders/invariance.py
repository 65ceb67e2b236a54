"""An image has the same bits alone and in any pack, whatever the number of threads."""

from collections.abc import Sequence

import numpy as np
import torch

from model.pack import PackedBatch, pack
from model.running.devices import DtypeName
from model.running.output import RunnerOutput
from model.running.runner import Runner

THREADS = (1, 2, 3, 7)
DTYPES: tuple[DtypeName, ...] = ("float32", "bfloat16")


def assert_same_bits_in_any_pack(runner: Runner, images: Sequence[PackedBatch], *, packs: int) -> None:
    """images: of one segment each. With as many packs each is in one, with up to four random others."""
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(THREADS[1])
        alone = [runner.run(image, tokens=True) for image in images]
        random = np.random.default_rng(1)
        for number in range(packs):
            # After a round of all images each is run by another number of threads.
            torch.set_num_threads(THREADS[(number + number // len(images)) % len(THREADS)])
            chosen = random.permutation([number % len(images), *random.integers(0, len(images), random.integers(0, 5))])
            together = runner.run(joined([images[i] for i in chosen]), tokens=True)
            assert np.array_equal(together.pooled, np.concatenate([alone[i].pooled for i in chosen]))
            assert np.array_equal(tokens_of(together), np.concatenate([tokens_of(alone[i]) for i in chosen]))
    finally:
        torch.set_num_threads(threads)


def joined(images: Sequence[PackedBatch]) -> PackedBatch:
    return pack([image.rows for image in images], [image.grids[0] for image in images])


def tokens_of(output: RunnerOutput) -> np.typing.NDArray[np.float32]:
    assert output.tokens is not None
    return output.tokens
