"""The choice of a linear kernel, and how it keeps weights."""

import pytest
import torch

from model.kernels.linear import Linear, LinearKernel, OneDnnKernel, PlainCpuKernel, WideningKernel, choose_linear

CPU = torch.device("cpu")


@pytest.mark.parametrize("kernel", [WideningKernel(), PlainCpuKernel()])
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


def test_bfloat16_without_hardware_is_computed_in_float32_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert isinstance(choose_linear(CPU, torch.float32), OneDnnKernel)
    assert not caplog.records
    assert isinstance(choose_linear(CPU, torch.bfloat16), WideningKernel)
    assert "only emulates torch.bfloat16" in caplog.text
