import pytest

from service.watching import tasks


@pytest.fixture(autouse=True)
def own_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tests end loops that have kept tasks, and what became of those is no matter here."""
    monkeypatch.setattr(tasks, "_kept", set())
    monkeypatch.setattr(tasks, "_lost", [])
