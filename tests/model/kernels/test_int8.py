"""Products of 8-bit integers are exact, and a row has the same bits beside any others."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.kernels.activations import Activation
from model.kernels.hardware import has_vnni
from model.kernels.int8 import Int8Weight, int8_product, int8_rows
from model.kernels.linear import Int8Kernel, Linear, OneDnnKernel, choose_linear, pad_rows
from tests.examples import many

pytestmark = pytest.mark.skipif(not has_vnni(), reason="8-bit products need a CPU with VNNI")

CPU = torch.device("cpu")
SEEDS = st.integers(0, 2**32)


@pytest.fixture(autouse=True)
def _restore_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@many(60)
@given(rows=st.integers(1, 70), into=st.integers(1, 200), out=st.integers(1, 70), seed=SEEDS)
def test_sums_are_exact_at_the_extremes_too(rows: int, into: int, out: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    x = torch.from_numpy(random.choice(np.array([-127, -126, 0, 1, 126, 127], np.float32), (rows, into)))
    weight = torch.from_numpy(random.choice(np.array([-127, 127], np.float32), (out, into)))
    x[:, 0], bias = 127, torch.zeros(out)  # So that a step is 1.
    assert torch.equal(int8_product(x, Int8Weight.of(weight), bias).long(), x.long() @ weight.long().T)


def test_sums_do_not_saturate_over_the_widest_layers() -> None:
    x, weight = torch.full((3, 16_384), 127.0), torch.full((2, 16_384), 127.0)
    assert set(int8_product(x, Int8Weight.of(weight), None).flatten().tolist()) == {16_384 * 127 * 127}


@many(60)
@given(
    rows=st.integers(1, 100),
    into=st.sampled_from([1, 16, 72, 100, 192]),
    out=st.sampled_from([1, 8, 72, 100, 1074]),
    activation=st.sampled_from(["none", "gelu_tanh", "gelu", "silu"]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    threads=st.sampled_from([1, 2, 3, 7]),
    seed=SEEDS,
)
def test_a_row_has_the_same_bits_alone_and_beside_any_others(
    rows: int, into: int, out: int, activation: Activation, dtype: torch.dtype, threads: int, seed: int
) -> None:
    layer = Linear(into, out, kernel=Int8Kernel(), activation=activation)
    layer.weight.copy_(normal(seed, out, into))
    assert layer.bias is not None
    # Vectorised and scalar code differ in the tail of the tanh form, below 0.
    layer.bias.copy_(normal(seed + 1, out) - 2)
    layer = layer.to(dtype)
    layer.prepare()
    # Neighbours are up to a thousand times as large, which one scale for all rows would not leave without a trace.
    x = (normal(seed + 2, rows, into) * 10.0 ** normal(seed + 3, rows, 1)).to(dtype)
    torch.set_num_threads(threads)
    together = layer(pad_rows(x, 16))
    torch.set_num_threads(1)
    for row in {0, rows // 2, rows - 1}:
        assert torch.equal(layer(pad_rows(x[row : row + 1], 16))[0], together[row])


@given(seed=SEEDS, scale=st.floats(1e-6, 1e6))
def test_a_layer_is_as_near_to_float32_as_its_steps_are_small(seed: int, scale: float) -> None:
    x, weight, bias = normal(seed, 9, 64) * scale, normal(seed + 1, 24, 64), normal(seed + 2, 24) * scale
    found = int8_product(x, Int8Weight.of(weight), bias)
    x_step, w_step = x.abs().amax(1, keepdim=True) / 127, weight.abs().amax(1) / 127
    # Each number is off by at most half a step.
    bound = 0.5 * (x_step * weight.abs().sum(1) + w_step * x.abs().sum(1, keepdim=True)) + 16 * x_step * w_step
    assert bool(((found - (x @ weight.T + bias)).abs() <= bound * 1.001 + 1e-5 * scale).all())


def test_a_row_of_zeros_gives_the_bias_and_one_that_is_not_finite_spoils_itself_alone() -> None:
    x = normal(0, 6, 32)
    x[1], x[3, 7], x[4, 0] = 0, torch.inf, torch.nan
    found = int8_product(x, Int8Weight.of(normal(1, 16, 32)), normal(2, 16))
    assert torch.equal(found[1], normal(2, 16))
    assert found.isfinite().all(1).tolist() == [True, True, True, False, False, True]
    assert torch.equal(found[0], int8_product(x[:1], Int8Weight.of(normal(1, 16, 32)), normal(2, 16))[0])


def test_the_greatest_number_of_a_row_is_kept_and_ties_go_to_even() -> None:
    rows, scales = int8_rows(torch.tensor([[127.0, -127.0, 0.5, 1.5, -2.5], [0.0, 0.0, 0.0, 0.0, 0.0]]))
    assert (rows.int() - 128).tolist() == [[127, -127, 0, 2, -2], [0] * 5]
    assert scales[0].item() == 1


def test_a_prepared_layer_holds_integers_alone() -> None:
    layer = Linear(64, 32, kernel=choose_linear(CPU, torch.bfloat16, int8=True).in_blocks)
    layer.weight.copy_(normal(0, 32, 64))
    layer.prepare()
    assert [name for name, _ in layer.named_parameters()] == ["bias"]


def test_only_blocks_multiply_integers() -> None:
    kernel = choose_linear(CPU, torch.float32, int8=True)
    assert isinstance(kernel, OneDnnKernel)
    assert isinstance(kernel.in_blocks, Int8Kernel)
    assert kernel.in_blocks.row_multiple == kernel.row_multiple
