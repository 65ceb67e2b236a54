"""What servers say they computed, and how much of it was padding."""

from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, generate_latest

from loadtest.bench.clients import requests
from loadtest.bench.clients.padding import Counts, noted, padding, read_metrics
from loadtest.bench.clients.targets import Case, prepared


def test_tokens_of_every_kind_are_told_from_padding() -> None:
    registry = CollectorRegistry()
    counter = Counter("packlight_tokens", "Tokens.", ["kind"], registry=registry)
    for kind, count in (("image", 1000), ("text", 200), ("padding", 300)):
        counter.labels(kind).inc(count)
    assert read_metrics(generate_latest(registry).decode()) == Counts(1200, 1500)
    assert read_metrics("") == Counts(0, 0)


def test_notes_of_batches_are_added_up(tmp_path: Path) -> None:
    notes = tmp_path / "counts"
    assert noted(notes) == Counts(0, 0)
    notes.write_text("500 1024\n256 256\n")
    assert noted(notes) == Counts(756, 1280)


def test_padding_is_that_of_the_time_in_between() -> None:
    assert padding(Counts(100, 100), Counts(400, 1300)) == "75.0%"
    assert padding(Counts(100, 100), Counts(100, 100)) is None
    assert padding(None, Counts(100, 100)) is None


def test_photos_take_the_budgets_in_turn() -> None:
    case = Case("mixed", "model", (64, 576), batch=16)
    sent = prepared(case, [b"one", b"two", b"three"], requests.packlight)
    assert [b"max_tokens=576" in each for each in sent] == [False, True, False]
    assert b"\r\n\r\n576\r\n" in requests.litserve(b"photo", 576)
