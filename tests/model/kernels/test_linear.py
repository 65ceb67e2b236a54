"""The choice of a linear kernel, and how it keeps weights."""

import pytest
import torch

from model.kernels.linear import Linear, OneDnnKernel, PlainCpuKernel, choose_linear

CPU = torch.device("cpu")


def test_weights_of_an_emulated_dtype_are_converted_once() -> None:
    layer = Linear(32, 16, kernel=PlainCpuKernel(), activation="gelu_tanh").to(torch.bfloat16)
    layer.weight.normal_()
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
    assert isinstance(choose_linear(CPU, torch.bfloat16), PlainCpuKernel)
    assert "only emulates torch.bfloat16" in caplog.text
