"""A run from corpus to result, with real sender processes: both ends' counts, every form, several senders."""

import asyncio

import numpy as np
import pytest

from loadtest.errors import TargetError, UsageError
from loadtest.runs.run import Runner, RunResult, Timing, notes
from loadtest.sending.fleet import Fleet, senders_for
from loadtest.sending.target import prepare
from loadtest.traffic.bodies import Adapter
from loadtest.traffic.corpus import Corpus, from_mix
from loadtest.traffic.mix import load, parse
from tests.loadtest.fakes import TOKENS, FakePacklight

ODD = parse(
    {
        "classes": [
            {"name": "one", "content": "photo", "megapixels": 0.01, "share": 3, "params": {"max_tokens": 64}},
            {"name": "three", "content": "photo", "megapixels": 0.01, "images": 3},
        ]
    },
    source="odd.json",
)


@pytest.fixture(scope="module")
def requests() -> Corpus:
    return from_mix(ODD, count=8, seed=1)


def measured(server: FakePacklight, requests: Corpus, adapter: Adapter | None = None, senders: int = 1) -> RunResult:
    target = prepare(server.url, adapter or Adapter(), requests, timeout_s=60)
    info = asyncio.run(target.try_out(requests))
    timing = Timing(rate=60, concurrency=None, duration_s=0.5)
    with Fleet([(target.url, target.wires)], senders=senders) as fleet:
        return Runner(target, requests, fleet, slo_ms=None, info=info).run(timing)


def test_both_ends_count_the_same_images_and_tokens(requests):
    with FakePacklight() as server:
        result = measured(server, requests, senders=2)
    assert result.checks
    assert all(check.agrees for check in result.checks)
    # Each pass over the corpus sends six requests of one image and two of three.
    passes, rest = divmod(30, 8)
    assert 12 * passes <= result.summary.images <= 12 * passes + 3 * rest
    assert result.summary.tokens == TOKENS * result.summary.images
    assert sorted(result.records.request) == list(range(30))
    assert result.info == {"model": "fake"}
    assert result.server
    assert set(result.server.wastes) == {"packed", "pad_to_longest", "pad_to_cap"}
    assert not any("DISAGREE" in note for note in notes(result))


def test_counts_that_differ_are_reported(requests):
    with FakePacklight() as server:
        server.forget_images = True
        result = measured(server, requests)
    wrong = [check for check in result.checks if not check.agrees]
    assert [(check.name, check.client, check.server) for check in wrong] == [
        ("images answered", result.summary.images, 0)
    ]
    assert any(note.startswith("COUNTS DISAGREE: images answered") for note in notes(result))


@pytest.mark.parametrize(
    "adapter",
    [
        Adapter(form="raw", answer="npy"),
        Adapter(form="json", answer="base64"),
        Adapter(form="openai", model="m", extra={"modality": "image"}),
    ],
    ids=lambda adapter: adapter.form,
)
def test_every_form_is_counted_right(requests, adapter):
    with FakePacklight() as server:
        result = measured(server, requests, adapter)
    assert result.summary.answered == 30
    assert all(check.agrees for check in result.checks)
    assert result.summary.tokens == TOKENS * result.summary.images


def test_a_server_without_metrics_is_measured_all_the_same(requests):
    with FakePacklight(metrics=False) as server:
        result = measured(server, requests)
    assert result.server is None
    assert result.summary.answered == 30
    assert any("no Packlight metrics" in note for note in notes(result))


def test_a_refused_request_names_the_class_and_the_servers_reason(requests):
    with FakePacklight(refuse=lambda number: 422 if number == 1 else 0) as server:
        target = prepare(server.url, Adapter(), requests, timeout_s=10)
        with pytest.raises(TargetError, match='422 .* class "(one|three)": the queue is full'):
            asyncio.run(target.try_out(requests))


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://x", "http://", "http://x/?a=1"])
def test_anything_but_a_url_is_refused(requests, url):
    with pytest.raises(UsageError, match="not a URL"):
        prepare(url, Adapter(), requests, timeout_s=1)


def test_large_bodies_arrive_whole():
    big = parse({"classes": [{"name": "big", "content": "photo", "megapixels": 3, "quality": 98}]}, source="x.json")
    requests = from_mix(big, count=1, seed=1)
    assert requests.picture_bytes > 1 << 20
    with FakePacklight() as server:
        result = measured(server, requests)
    assert result.summary.answered == 30
    assert result.summary.sent_bytes == 30 * len(Adapter().wire(requests.requests[0]).body)


def test_a_higher_rate_takes_more_senders():
    assert senders_for(10, 0) == 1
    assert senders_for(1e6, 0) >= senders_for(501, 0) >= 1


def test_the_window_begins_after_ramp_and_warm_up():
    frame = Timing(rate=1, concurrency=None, duration_s=30, ramp_s=5, warmup_s=2).frame(("a",), None)
    assert (frame.window_start_s, frame.window_end_s) == (7, 30)
    assert Timing(rate=1, concurrency=None, duration_s=30, ramp_s=5).frame(("a",), None, 3.0).window_start_s == 0


def test_two_servers_are_sent_the_same_requests_in_rounds():
    timing = Timing(rate=50, concurrency=None, duration_s=4)
    load_ = timing.load(from_mix(load("thumbnails"), count=5, seed=1))
    rounds = load_.rounds(8)
    assert sum(len(each.requests) for each in rounds) == 200
    joined = [due_s + n * 0.5 for n, each in enumerate(rounds) if (due_s := each.due_s) is not None]
    assert load_.due_s is not None
    assert np.allclose(np.concatenate(joined), load_.due_s)
    assert [t for each in rounds for t in each.templates] == list(load_.templates)
