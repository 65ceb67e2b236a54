"""An image's vectors do not depend on what it was packed with: the bits are the same alone and in any pack."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from model.checkpoint.load import Checkpoint, load_checkpoint
from model.kernels.activations import Activation
from model.kernels.attention import Segments, choose_attention, products_attention
from model.kernels.hardware import has_vnni
from model.kernels.linear import Linear, OneDnnKernel, PlainCpuKernel, WideningKernel, choose_linear
from model.pack import PackedBatch, pack
from model.running.devices import DtypeName
from model.running.runner import Runner
from tests.examples import PART, many
from tests.reference import BASE, SO400M, random_pack, save_fixed, save_tower

THREADS = (1, 2, 3, 7)
GRIDS = [(1, 1), (1, 2), (3, 1), (2, 8), (1, 17), (7, 9), (8, 16), (14, 18), (18, 32), (32, 32)]
# With widths that cost twice as much, one image is long enough for the largest parts of attention.
GRIDS_OF_SO400M = [*GRIDS[:-2], (28, 28)]
# bfloat16, the usual dtype in service, always runs; float32 runs with the slow tests.
SLOW_FLOAT32 = pytest.param("float32", marks=pytest.mark.slow)
NEEDS_VNNI = pytest.mark.skipif(not has_vnni(), reason="8-bit products need a CPU with VNNI")
SLOW_INT8 = pytest.param("int8", marks=[pytest.mark.slow, NEEDS_VNNI])


@pytest.fixture(autouse=True)
def _restore_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(
    scope="module", params=[BASE, pytest.param(SO400M, marks=pytest.mark.slow)], ids=["mlp-3072", "mlp-4304"]
)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    shape: dict[str, Any] = request.param
    folder: Path = tmp_path_factory.mktemp("tower")
    save_tower(folder, shape | {"num_hidden_layers": 1})
    return load_checkpoint(str(folder))


@pytest.mark.parametrize("dtype", [SLOW_FLOAT32, "bfloat16", SLOW_INT8])
def test_an_image_has_the_same_bits_alone_and_in_many_packs(checkpoint: Checkpoint, dtype: DtypeName) -> None:
    runner = Runner(checkpoint, dtype=dtype)
    random = np.random.default_rng(1)
    grids = GRIDS if checkpoint.config.width == BASE["hidden_size"] else GRIDS_OF_SO400M
    images = [random_pack([grid], seed=i) for i, grid in enumerate(grids)]
    torch.set_num_threads(THREADS[1])
    alone = [runner.run(image, tokens=True) for image in images]
    for number in range(4 * len(images) if PART == 1 else 12):
        # Each image is in a pack at each number of threads, with random neighbours.
        torch.set_num_threads(THREADS[number // len(images) % len(THREADS)])
        chosen = random.permutation([number % len(images), *random.integers(0, len(images), random.integers(0, 5))])
        together = runner.run(_joined([images[i] for i in chosen]), tokens=True)
        assert together.tokens is not None
        assert np.array_equal(together.pooled, np.concatenate([alone[i].pooled for i in chosen]))
        expected = np.concatenate([tokens for i in chosen if (tokens := alone[i].tokens) is not None])
        assert np.array_equal(together.tokens, expected)


@pytest.mark.parametrize("dtype", [SLOW_FLOAT32, "bfloat16", SLOW_INT8])
def test_one_of_forty_images_has_the_bits_it_has_alone(checkpoint: Checkpoint, dtype: DtypeName) -> None:
    """With forty images the pooling head also multiplies more rows than with one."""
    runner = Runner(checkpoint, dtype=dtype)
    images = [random_pack([(2, 3)], seed=i) for i in range(40)]
    alone = [runner.run(image).pooled for image in images]
    for threads in THREADS:
        torch.set_num_threads(threads)
        assert np.array_equal(runner.run(_joined(images)).pooled, np.concatenate(alone))


@NEEDS_VNNI
@many(12)
@given(
    grids=st.lists(st.tuples(st.integers(1, 24), st.integers(1, 24)), min_size=2, max_size=6),
    threads=st.sampled_from(THREADS),
)
def test_an_image_in_int8_has_the_same_bits_alone_and_in_any_pack(
    tiny: Runner, grids: list[tuple[int, int]], threads: int
) -> None:
    images = [random_pack([grid], seed=number) for number, grid in enumerate(grids)]
    torch.set_num_threads(threads)
    together = tiny.run(_joined(images)).pooled
    torch.set_num_threads(THREADS[len(grids) % len(THREADS)])
    assert np.array_equal(together, np.concatenate([tiny.run(image).pooled for image in images]))


@pytest.fixture(scope="module")
def tiny() -> Runner:
    return Runner(load_checkpoint("packlight-tiny"), dtype="int8")


def _joined(images: list[PackedBatch]) -> PackedBatch:
    return pack([image.rows for image in images], [image.grids[0] for image in images])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", SLOW_INT8])
# A projection comes after all that CLIP computes without one.
@pytest.mark.parametrize("model_type", ["siglip_vision_model", "clip_vision_model+"])
@pytest.mark.slow
def test_an_image_of_a_model_with_one_grid_has_the_same_bits_alone_and_in_any_pack(
    tmp_path: Path, model_type: str, dtype: DtypeName
) -> None:
    """An odd number of tokens after a class token, in packs with awkward numbers of rows."""
    side = 5
    save_fixed(tmp_path, model_type, BASE | {"num_hidden_layers": 1, "patch_size": 16, "image_size": 16 * side})
    runner = Runner(load_checkpoint(str(tmp_path)), dtype=dtype, feature_layer=-1)
    images = [random_pack([(side, side)], seed=i) for i in range(20)]
    torch.set_num_threads(THREADS[1])
    alone = [runner.run(image, tokens=True) for image in images]
    random = np.random.default_rng(1)
    for number in range(24):
        torch.set_num_threads(THREADS[number % len(THREADS)])
        chosen = random.integers(0, len(images), 1 + number)
        together = runner.run(_joined([images[i] for i in chosen]), tokens=True)
        assert together.tokens is not None
        assert np.array_equal(together.pooled, np.concatenate([alone[i].pooled for i in chosen]))
        expected = np.concatenate([tokens for i in chosen if (tokens := alone[i].tokens) is not None])
        assert np.array_equal(together.tokens, expected)


@pytest.mark.parametrize(("heads", "width"), [(12, 64), pytest.param(16, 72, marks=pytest.mark.slow), (3, 64)])
def test_products_give_a_segment_the_same_bits_alone_and_among_others(heads: int, width: int) -> None:
    """With few queries, odd lengths and a last part of one query, for any threads and any place in the pack."""
    if choose_attention("auto", torch.device("cpu"), torch.bfloat16, width)[1] is not products_attention:
        return  # This machine uses another backend, which the tests above cover.
    random = np.random.default_rng(0)
    generator = torch.Generator().manual_seed(0)
    for length in (1, 2, 3, 5, 16, 17, 31, 64, 99, 256, *random.integers(4, 200, 6).tolist(), 1025):
        count = 2 if length > 300 else 5
        qkv = torch.randn(count * length, 3, heads, width, generator=generator).bfloat16()
        torch.set_num_threads(THREADS[1])
        alone = [_attended(qkv[i * length : (i + 1) * length].clone(), length) for i in range(count)]
        for threads in THREADS:
            torch.set_num_threads(threads)
            assert torch.equal(_attended(qkv, length), torch.cat(alone)), (length, threads)
            assert torch.equal(_attended(qkv[length : 2 * length].clone(), length), alone[1]), (length, threads)


def _attended(qkv: Tensor, length: int) -> Tensor:
    segments = Segments.at(np.arange(0, len(qkv) + 1, length, dtype=np.int32), length, torch.device("cpu"))
    q, k, v = qkv.unbind(1)
    return products_attention(q, k, v, segments, segments)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("activation", "plain", "every_pair"),
    [
        ("gelu_tanh", False, False),
        pytest.param("gelu_tanh", False, True, marks=pytest.mark.slow),
        pytest.param("gelu", False, True, marks=pytest.mark.slow),
        pytest.param("silu", False, True, marks=pytest.mark.slow),
        # For machines without oneDNN.
        pytest.param("gelu_tanh", True, True, marks=pytest.mark.slow),
        pytest.param("gelu", True, True, marks=pytest.mark.slow),
        pytest.param("silu", True, True, marks=pytest.mark.slow),
    ],
)
def test_a_row_of_a_linear_layer_has_the_same_bits_in_any_product(
    dtype: torch.dtype, plain: bool, activation: Activation, every_pair: bool
) -> None:
    """Numbers of rows that the runner uses, each with one number of threads or with every one.

    Tries the weights as they are and prepared, and also the kernel for machines without oneDNN.
    """
    kernel = PlainCpuKernel() if plain else choose_linear(torch.device("cpu"), dtype)
    generator = torch.Generator().manual_seed(0)
    for into, out in ((768, 3072), (4304, 1152), (1152, 4304)):
        if plain and activation != "gelu_tanh":
            # Its product does not know the activation, which takes what comes out of any.
            into = 64
        layer = Linear(into, out, kernel=kernel, activation=activation)
        layer.weight.copy_(torch.randn(out, into, generator=generator) * into**-0.5)
        # Vectorised and scalar code differ in the tail of the tanh form, below 0.
        assert layer.bias is not None
        layer.bias.copy_(torch.randn(out, generator=generator) - 2)
        layer = layer.to(dtype)
        x = torch.randn(528, into, generator=generator).to(dtype)
        torch.set_num_threads(THREADS[1])
        whole = layer(x)
        layer.prepare()
        for place, rows in enumerate((16, 32, 48, 64, 80, 112, 176, 240, 256, 272, 512)):
            start = int(torch.randint(0, 528 - rows, (1,), generator=generator))
            for threads in THREADS if every_pair else [THREADS[place % len(THREADS)]]:
                torch.set_num_threads(threads)
                product = layer(x[start : start + rows].contiguous())
                assert torch.equal(product, whole[start : start + rows]), (rows, threads)


@pytest.mark.parametrize(
    ("dtype", "widening"), [(torch.float32, False), (torch.bfloat16, False), (torch.bfloat16, True)]
)
@pytest.mark.parametrize("out", [24, 72, 100])
def test_a_row_of_a_narrow_layer_has_the_same_bits_for_any_threads(
    dtype: torch.dtype, widening: bool, out: int
) -> None:
    """With MKL it has not: threads share the columns, and the last ones of a share are computed differently."""
    generator = torch.Generator().manual_seed(0)
    kernel = WideningKernel(OneDnnKernel()) if widening else choose_linear(torch.device("cpu"), dtype)
    layer = Linear(640, out, kernel=kernel).to(dtype)
    assert layer.bias is not None
    layer.weight.copy_(torch.randn(out, 640, generator=generator) * 640**-0.5)
    layer.bias.copy_(torch.randn(out, generator=generator))
    x = torch.randn(272, 640, generator=generator).to(dtype)
    torch.set_num_threads(1)
    whole = layer(x)
    layer.prepare()
    for threads in (*THREADS[1:], 4, 8):
        torch.set_num_threads(threads)
        for rows in (16, 64, 272):
            assert torch.equal(layer(x[:rows].contiguous()), whole[:rows]), (rows, threads)
