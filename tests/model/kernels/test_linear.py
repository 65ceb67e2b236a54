"""The choice of a linear kernel, and how it keeps weights."""

import pytest
import torch

from model.kernels.linear import (
    Linear,
    LinearKernel,
    MklKernel,
    OneDnnKernel,
    PlainCpuKernel,
    WideningKernel,
    choose_linear,
)

CPU = torch.device("cpu")


@pytest.mark.parametrize("kernel", [WideningKernel(OneDnnKernel()), WideningKernel(PlainCpuKernel())])
def test_weights_of_an_emulated_dtype_are_converted_once(kernel: LinearKernel) -> None:
    layer = Linear(32, 16, kernel=kernel, activation="gelu_tanh").to(torch.bfloat16)
    # `Linear` leaves its parameters uninitialised, and a NaN there does not equal itself.
    assert layer.bias is not None
    layer.weight.normal_()
    layer.bias.normal_()
    x = torch.randn(16, 32).bfloat16()
    before = layer(x)
    layer.prepare()
    assert layer.weight.dtype == torch.float32
    assert layer(x).dtype == torch.bfloat16
    assert torch.equal(layer(x), before)


@pytest.mark.parametrize("out", [24, 64])
@pytest.mark.parametrize("bias", [False, True])
def test_mkl_gives_what_onednn_gives_and_leaves_it_ragged_layers(out: int, bias: bool) -> None:
    """The same bits where oneDNN multiplies."""
    torch.manual_seed(0)
    layers = [Linear(96, out, kernel=kernel, activation="gelu", bias=bias) for kernel in (MklKernel(), OneDnnKernel())]
    weight, bias_values, x = torch.randn(out, 96) / 10, torch.randn(out), torch.randn(48, 96)
    for layer in layers:
        layer.weight.copy_(weight)
        if layer.bias is not None:
            layer.bias.copy_(bias_values)
        layer.prepare()
    ours, theirs = (layer(x) for layer in layers)
    assert torch.allclose(ours, theirs, atol=2e-6, rtol=0)
    assert torch.equal(ours, theirs) or out == 64


@pytest.mark.parametrize(("wide", "kernel"), [(False, MklKernel), (True, OneDnnKernel)])
def test_mkl_multiplies_float32_where_there_is_no_avx_512(
    monkeypatch: pytest.MonkeyPatch, wide: bool, kernel: type[LinearKernel]
) -> None:
    monkeypatch.setattr("model.kernels.linear.has_avx512", lambda: wide)
    monkeypatch.setattr("model.kernels.linear._has_mkl", lambda: True)
    assert isinstance(choose_linear(CPU, torch.float32), kernel)


def test_onednn_multiplies_where_there_is_no_mkl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model.kernels.linear._has_mkl", lambda: False)
    assert isinstance(choose_linear(CPU, torch.float32), OneDnnKernel)


def test_bfloat16_without_hardware_is_computed_in_float32_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert not isinstance(choose_linear(CPU, torch.float32), WideningKernel)
    assert not caplog.records
    assert isinstance(choose_linear(CPU, torch.bfloat16), WideningKernel)
    assert "only emulates torch.bfloat16" in caplog.text
