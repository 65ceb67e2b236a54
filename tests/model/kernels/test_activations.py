"""Activations: an element has the same bits at any place, beside any others and for any number of threads."""

from collections.abc import Iterator
from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from model.kernels.activations import Activation, activate, activate_, pieces

SHARE = 2**15  # ATen/TensorIterator.h, GRAIN_SIZE
NAMES: list[Activation] = [name for name in get_args(Activation) if name != "none"]


@pytest.fixture(autouse=True)
def _restore_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@given(elements=st.integers(0, 2**25), threads=st.integers(1, 200))
def test_every_share_of_a_thread_is_whole_vectors(elements: int, threads: int) -> None:
    """The shares are those that PyTorch gives: as even as they can be, and none below `SHARE`."""
    elements -= elements % 32
    sizes = list(pieces(elements, threads))
    assert sum(sizes) == elements
    for size in sizes:
        sharing = min(threads, -(-size // SHARE))
        share = -(-size // sharing)
        assert share % 32 == 0
        assert (size - share * (sharing - 1)) % 32 == 0
    # No piece is larger than it is for the caches, and few are small.
    assert max(sizes, default=0) <= 2 * SHARE * threads
    assert len(sizes) <= elements // (2 * SHARE * threads) + 3


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("elements", [1, 15, 33, 16 * 1074, SHARE + 16, 7 * SHARE + 208, 500_003])
def test_an_element_has_the_same_bits_wherever_it_stands(name: Activation, elements: int) -> None:
    x = torch.randn(elements, generator=torch.Generator().manual_seed(elements)) * 3
    torch.set_num_threads(1)
    # As far from any end as an element can be.
    expected = activate_(torch.cat([x, x.new_zeros(-elements % 64 + 64)]), name)[:elements]
    for threads in (1, 2, 3, 7):
        torch.set_num_threads(threads)
        assert torch.equal(activate_(x.clone(), name), expected), threads
        for start in (1, 5, elements // 2):
            assert torch.equal(activate_(x[start:].clone(), name), expected[start:]), (threads, start)


@pytest.mark.parametrize("name", NAMES)
def test_values_equal_the_formula_in_float64(name: Activation) -> None:
    x = torch.cat([torch.linspace(-30, 30, 100_001), torch.tensor([0.0, -0.0, 1e-30, -1e-30, 3e38, -3e38])])
    found, expected = activate_(x.clone(), name).double(), _formula(x.double(), name)
    # A float32 next to 0 has an error of about 1e-7 of x, whatever the result.
    assert bool(((found - expected).abs() <= 4e-7 * x.abs().double().clamp(max=8) + 2e-7 * expected.abs()).all())


def _formula(x: Tensor, name: Activation) -> Tensor:
    return F.silu(x) if name == "silu" else F.gelu(x, approximate="tanh" if name == "gelu_tanh" else "none")


@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_finite_spoils_itself_alone(name: Activation) -> None:
    x = torch.ones(100)
    x[3], x[40], x[99] = torch.nan, torch.inf, torch.nan
    found = activate_(x.clone(), name)
    assert found.isnan().nonzero().flatten().tolist() == [3, 99]
    assert found[40] == torch.inf
    assert bool((found[:3] == found[0]).all())


def test_shape_and_dtype_stay_as_they_are() -> None:
    x = torch.randn(5, 3).bfloat16()
    assert torch.equal(activate(x, "silu"), activate_(x.float(), "silu").bfloat16())
    assert activate(x, "none") is x
    assert activate_(x.float(), "gelu").shape == (5, 3)
