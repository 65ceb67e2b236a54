"""Images and vectors arrive in another process as they were sent."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from service.engine.client import DocumentJob, ImageJob, Job, JobResult, PackTrace, TextJob
from service.errors import DeadlineExceeded, EngineFault, ServiceError, Unavailable
from service.processes.exchange import messages
from service.processes.exchange.framed import Frames
from service.processes.exchange.messages import (
    Answers,
    Dropped,
    Embed,
    Embedded,
    EmbedDocument,
    EmbedText,
    EngineState,
    Failed,
)
from service.processes.exchange.slab import Slab, SlabView
from service.processes.exchange.wire import answer_frames, answer_of, job_frames, read_job, read_outcomes
from service.processes.messages import MalformedMessage

POOLED_WIDTH, TOKEN_WIDTH = 6, 9
STATE = EngineState(True, 1e4, 7)

grids = st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=4)
finite = st.floats(0, 1e9, allow_nan=False)


SLAB = Slab(2**20)
VIEW = SlabView(SLAB.descriptor)


def crossed(frames: Frames) -> tuple[bytes, memoryview]:
    """As a socket gives them back: other memory, read-only, all arrays in one piece."""
    head, *arrays = frames
    return bytes(head), memoryview(b"".join(arrays))


def job_of(number: int, job: Job, *, alone: bool = False) -> Job:
    head, behind = crossed(job_frames(number, job, SLAB, alone=alone))
    message = messages.request(head)
    assert isinstance(message, Embed | EmbedText | EmbedDocument)
    assert message.number == number
    return read_job(message, "http:1", behind, VIEW)


def outcomes_of(*sent: JobResult | ServiceError) -> list[tuple[int, JobResult | ServiceError | None]]:
    head, behind = crossed(answer_frames(STATE, [answer_of(number, each) for number, each in enumerate(sent)]))
    message = messages.reply(head)
    assert isinstance(message, Answers)
    assert message.state == STATE
    return read_outcomes(message.answers, behind)


@given(
    number=st.integers(0, 2**53), grids=grids, cap=st.integers(1, 4096), deadline_s=st.none() | finite,
    want_tokens=st.booleans(), alone=st.booleans(), in_slab=st.booleans(), seed=st.integers(0, 99),
)  # fmt: skip
def test_a_job_arrives_as_it_was_sent(
    number: int, grids: list[tuple[int, int]], cap: int, deadline_s: float | None, want_tokens: bool, alone: bool,
    in_slab: bool, seed: int,
) -> None:  # fmt: skip
    tokens = sum(height * width for height, width in grids)
    rows = SLAB.rows(tokens, 12) if in_slab else np.empty((tokens, 12), np.uint8)
    rows[...] = np.random.default_rng(seed).integers(0, 256, (tokens, 12), dtype=np.uint8)
    job = job_of(number, ImageJob(rows, tuple(grids), cap, deadline_s, want_tokens), alone=alone)
    assert isinstance(job, ImageJob)
    assert np.array_equal(job.rows, rows)
    assert (job.grids, job.token_cap, job.deadline_s, job.want_tokens, job.alone, job.name) == (
        tuple(grids), cap, deadline_s, want_tokens, alone, "http:1",
    )  # fmt: skip


def test_rows_that_do_not_lie_in_one_piece_arrive_whole() -> None:
    for rows in (np.arange(240, dtype=np.uint8).reshape(20, 12)[::2], SLAB.rows(20, 12)[::2]):
        job = job_of(1, ImageJob(rows, ((2, 5),), 10, None, False))
        assert isinstance(job, ImageJob)
        assert np.array_equal(job.rows, rows)


def test_rows_in_the_slab_are_not_sent_and_others_are_sent_without_a_copy() -> None:
    inside, outside = SLAB.rows(10, 12), np.arange(120, dtype=np.uint8).reshape(10, 12)
    assert len(job_frames(1, ImageJob(inside, ((2, 5),), 10, None, False), SLAB, alone=False)) == 1
    head, body = job_frames(1, ImageJob(outside, ((2, 5),), 10, None, False), SLAB, alone=False)
    assert np.shares_memory(np.frombuffer(body, np.uint8), outside)
    message = messages.request(head)
    assert isinstance(message, Embed)
    job = read_job(message, "", memoryview(body), VIEW)
    assert isinstance(job, ImageJob)
    assert np.shares_memory(job.rows, outside)


@given(
    ids=st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=77), deadline_s=st.none() | finite,
    alone=st.booleans(),
)  # fmt: skip
def test_a_text_arrives_as_it_was_sent(ids: list[int], deadline_s: float | None, alone: bool) -> None:
    job = job_of(3, TextJob(np.array(ids, np.int32), 77, deadline_s), alone=alone)
    assert isinstance(job, TextJob)
    assert job.ids.tolist() == ids
    assert (job.token_cap, job.deadline_s, job.alone, job.name) == (77, deadline_s, alone, "http:1")


@pytest.mark.parametrize("grids", [(), ((3, 6), (6, 3))])
@pytest.mark.parametrize("in_slab", [True, False])
def test_a_document_arrives_as_it_was_sent(grids: tuple[tuple[int, int], ...], in_slab: bool) -> None:
    ids = np.array([2, -1, -1, 7], np.int32)
    rows = np.arange(36 * 12, dtype=np.uint8).reshape(36, 12) if grids else np.empty((0, 0), np.uint8)
    if in_slab and grids:
        inside = SLAB.rows(36, 12)
        inside[...] = rows
        rows = inside
    sent = DocumentJob(ids, rows, grids, 2, (630,) * len(grids), 64, 5.0)
    job = job_of(8, sent, alone=True)
    assert isinstance(job, DocumentJob)
    assert job.tokens == sent.tokens
    assert np.array_equal(job.ids, ids)
    assert np.array_equal(job.rows, rows)
    assert (job.grids, job.token_caps, job.text_tokens, job.alone) == (grids, sent.token_caps, 2, True)


def test_ids_of_another_number_than_announced_are_malformed() -> None:
    head, ids = job_frames(1, TextJob(np.arange(5, dtype=np.int32), 64, None), SLAB, alone=False)
    message = messages.request(head)
    assert isinstance(message, EmbedText)
    with pytest.raises(MalformedMessage, match="EmbedText"):
        read_job(message, "", memoryview(ids)[:-4], VIEW)


def vectors(width: int) -> st.SearchStrategy[Any]:
    return st.integers(1, 4).flatmap(lambda rows: arrays.arrays(np.float32, (rows, width)))


@given(pooled=vectors(POOLED_WIDTH), tokens=st.none() | vectors(TOKEN_WIDTH), times=st.tuples(finite, finite, finite))
def test_results_arrive_with_all_their_bits(pooled, tokens, times) -> None:
    queue_s, pack_s, forward_s = times
    sent = JobResult(pooled, tokens, queue_s, pack_s, forward_s, "7-1")
    got = outcomes_of(sent, EngineFault("between"), sent)
    assert [number for number, _ in got] == [0, 1, 2]
    for result in (got[0][1], got[2][1]):
        assert isinstance(result, JobResult)
        assert result.pooled.tobytes() == pooled.tobytes()
        assert result.pooled.shape == pooled.shape
        assert (result.tokens is None) == (tokens is None)
        if result.tokens is not None:
            assert result.tokens.tobytes() == tokens.tobytes()
            assert result.tokens.shape == tokens.shape
        assert (result.queue_s, result.pack_s, result.forward_s) == times
        assert result.pack_id == "7-1"


def test_traces_and_classes_arrive_with_jobs_and_results() -> None:
    ids = np.arange(3, dtype=np.int32)
    rows = SLAB.rows(6, 12)
    for job in (
        TextJob(ids, 77, None, trace="00-a-b-01", bulk=True),
        ImageJob(rows, ((2, 3),), 6, None, False, trace="00-a-b-01", bulk=True),
        DocumentJob(ids, rows, ((2, 3),), 3, (6,), 77, None, trace="00-a-b-01", bulk=True),
    ):
        assert (job_of(1, job).trace, job_of(1, job).bulk) == ("00-a-b-01", True)
    assert not job_of(1, TextJob(ids, 77, None)).bulk
    pack_trace = PackTrace(("00-a-b-01", "00-c-d-01"), 1.0, 2.5, images=3, texts=1, tokens=70, computed_tokens=72)
    made = JobResult(np.ones((1, 2), np.float32), None, 0.1, 0.2, 0.3, "7-1", pack_trace)
    ((_, result),) = outcomes_of(made)
    assert isinstance(result, JobResult)
    assert result.pack_trace == pack_trace


@pytest.mark.parametrize("error", [DeadlineExceeded("late"), EngineFault("broken"), Unavailable("gone")])
def test_an_error_arrives_as_its_own_kind(error: ServiceError) -> None:
    ((number, result),) = outcomes_of(error)
    assert number == 0
    assert type(result) is type(error)
    assert isinstance(result, ServiceError)
    assert result.message == error.message


def test_an_error_of_an_unknown_code_is_a_fault_of_the_engine() -> None:
    ((_, outcome),) = read_outcomes([Failed(9, "new", "why")], memoryview(b""))
    assert isinstance(outcome, EngineFault)


def test_a_job_that_was_dropped_has_no_outcome() -> None:
    assert read_outcomes([Dropped(4)], memoryview(b"")) == [(4, None)]


@given(size_bytes=st.integers(0, 100).filter(lambda size_bytes: size_bytes != 18))
def test_rows_that_do_not_fit_their_grids_are_malformed(size_bytes: int) -> None:
    with pytest.raises(MalformedMessage, match="malformed Embed"):
        read_job(Embed(1, ((2, 3),), 3, None, 6, None, False, False), "", memoryview(bytes(size_bytes)), VIEW)


@pytest.mark.parametrize("start", [-1, 2**20 - 17, 2**60])
def test_rows_outside_of_the_slab_are_malformed(start: int) -> None:
    with pytest.raises(MalformedMessage, match="malformed Embed"):
        read_job(Embed(1, ((2, 3),), 3, start, 6, None, False, False), "", memoryview(b""), VIEW)


@pytest.mark.parametrize("size_bytes", [0, 7, 12])
def test_a_result_whose_arrays_do_not_fit_is_a_fault_and_so_are_those_behind_it(size_bytes: int) -> None:
    answers = [Embedded(number, [(1, 2)], 0.1, 0.2, 0.3, "7-1") for number in (1, 2)]
    whole = read_outcomes(answers, memoryview(bytes(16)))
    assert [type(outcome) for _, outcome in whole] == [JobResult, JobResult]
    cut = read_outcomes(answers, memoryview(bytes(size_bytes)))
    assert [type(outcome) for _, outcome in cut] == [JobResult if size_bytes == 12 else EngineFault, EngineFault]
