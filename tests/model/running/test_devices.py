"""How many threads forwards use in a container with a CPU quota."""

from collections.abc import Iterator

import pytest
import torch

from model.running.devices import limit_threads


@pytest.fixture(autouse=True)
def four_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    threads = torch.get_num_threads()
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize(("cores", "threads"), [(2, 2), (4, 4), (8, 4)])
def test_a_quota_lowers_the_threads_and_never_raises_them(
    monkeypatch: pytest.MonkeyPatch, cores: int, threads: int
) -> None:
    monkeypatch.setattr("model.running.devices.usable_cores", lambda: cores)
    limit_threads()
    assert torch.get_num_threads() == threads


def test_omp_num_threads_goes_before_the_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model.running.devices.usable_cores", lambda: 2)
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    limit_threads()
    assert torch.get_num_threads() == 4
