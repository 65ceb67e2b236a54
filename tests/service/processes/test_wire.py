"""Images and vectors arrive in another process as they were sent."""

import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from service.engine.client import DocumentJob, ImageJob, Job, JobResult, TextJob
from service.errors import DeadlineExceeded, EngineFault, ServiceError, Unavailable
from service.processes import messages
from service.processes.messages import Embed, Embedded, EmbedDocument, EmbedText, EngineState, Failed, MalformedMessage
from service.processes.wire import Frames, job_frames, job_tokens, read_job, read_outcome, reply_frames

POOLED_WIDTH, TOKEN_WIDTH = 6, 9
STATE = EngineState(True, 1e4, 7)

grids = st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=4)
finite = st.floats(0, 1e9, allow_nan=False)


def crossed(frames: Frames) -> list[memoryview]:
    """As a socket gives them back: other memory, read-only."""
    return [memoryview(bytes(frame)) for frame in frames]


def job_of(frames: Frames) -> tuple[int, Job]:
    head, array = crossed(frames)
    message = messages.request(head)
    assert isinstance(message, Embed | EmbedText)
    job = read_job(message, [array])
    assert job_tokens(message) == job.tokens
    return message.number, job


def image_job_of(frames: Frames) -> tuple[int, ImageJob]:
    number, job = job_of(frames)
    assert isinstance(job, ImageJob)
    return number, job


def outcome_of(frames: Frames) -> tuple[int, JobResult | ServiceError]:
    head, *arrays = crossed(frames)
    message = messages.reply(head)
    assert isinstance(message, Embedded | Failed)
    assert message.state == STATE
    return message.number, read_outcome(message, arrays)


@given(
    number=st.integers(0, 2**53), grids=grids, cap=st.integers(1, 4096), deadline_s=st.none() | finite,
    want_tokens=st.booleans(), alone=st.booleans(), name=st.text(max_size=20), seed=st.integers(0, 99),
)  # fmt: skip
def test_a_job_arrives_as_it_was_sent(
    number: int, grids: list[tuple[int, int]], cap: int, deadline_s: float | None, want_tokens: bool, alone: bool,
    name: str, seed: int,
) -> None:  # fmt: skip
    tokens = sum(height * width for height, width in grids)
    rows = np.random.default_rng(seed).integers(0, 256, (tokens, 12), dtype=np.uint8)
    sent = ImageJob(rows, tuple(grids), cap, deadline_s, want_tokens, alone, name)
    got, job = image_job_of(job_frames(number, sent))
    assert got == number
    assert np.array_equal(job.rows, rows)
    assert (job.grids, job.token_cap, job.deadline_s, job.want_tokens, job.alone, job.name) == (
        sent.grids, cap, deadline_s, want_tokens, alone, name,
    )  # fmt: skip


def test_rows_that_do_not_lie_in_one_piece_arrive_whole() -> None:
    rows = np.arange(240, dtype=np.uint8).reshape(20, 12)[::2]
    _, job = image_job_of(job_frames(1, ImageJob(rows, ((2, 5),), 10, None, False)))
    assert np.array_equal(job.rows, rows)


def test_rows_are_sent_and_read_without_a_copy() -> None:
    rows = np.arange(120, dtype=np.uint8).reshape(10, 12)
    head, body = job_frames(1, ImageJob(rows, ((2, 5),), 10, None, False))
    assert np.shares_memory(np.frombuffer(body, np.uint8), rows)
    message = messages.request(head)
    assert isinstance(message, Embed)
    job = read_job(message, [memoryview(body)])
    assert isinstance(job, ImageJob)
    assert np.shares_memory(job.rows, rows)


@given(
    ids=st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=77), deadline_s=st.none() | finite,
    alone=st.booleans(), name=st.text(max_size=20),
)  # fmt: skip
def test_a_text_arrives_as_it_was_sent(ids: list[int], deadline_s: float | None, alone: bool, name: str) -> None:
    number, job = job_of(job_frames(3, TextJob(np.array(ids, np.int32), 77, deadline_s, alone, name)))
    assert isinstance(job, TextJob)
    assert number == 3
    assert job.ids.tolist() == ids
    assert (job.token_cap, job.deadline_s, job.alone, job.name) == (77, deadline_s, alone, name)


@pytest.mark.parametrize("grids", [(), ((3, 6), (6, 3))])
def test_a_document_arrives_as_it_was_sent(grids: tuple[tuple[int, int], ...]) -> None:
    ids = np.array([2, -1, -1, 7], np.int32)
    rows = np.arange(36 * 12, dtype=np.uint8).reshape(36, 12) if grids else np.empty((0, 0), np.uint8)
    sent = DocumentJob(ids, rows, grids, 2, (630,) * len(grids), 64, 5.0, True, "one")
    head, *arrays = crossed(job_frames(8, sent))
    message = messages.request(head)
    assert isinstance(message, EmbedDocument)
    job = read_job(message, arrays)
    assert isinstance(job, DocumentJob)
    assert job_tokens(message) == job.tokens == sent.tokens
    assert np.array_equal(job.ids, ids)
    assert np.array_equal(job.rows, rows)
    assert (job.grids, job.token_caps, job.text_tokens, job.name) == (grids, sent.token_caps, 2, "one")


def test_ids_of_another_number_than_announced_are_malformed() -> None:
    head, ids = job_frames(1, TextJob(np.arange(5, dtype=np.int32), 64, None))
    message = messages.request(head)
    assert isinstance(message, EmbedText)
    with pytest.raises(MalformedMessage, match="EmbedText"):
        read_job(message, [memoryview(ids)[:-4]])


def vectors(width: int) -> st.SearchStrategy[Any]:
    return st.integers(1, 4).flatmap(lambda rows: arrays.arrays(np.float32, (rows, width)))


@given(pooled=vectors(POOLED_WIDTH), tokens=st.none() | vectors(TOKEN_WIDTH), times=st.tuples(finite, finite, finite))
def test_a_result_arrives_with_all_its_bits(pooled, tokens, times) -> None:
    queue_s, pack_s, forward_s = times
    sent = JobResult(pooled, tokens, queue_s, pack_s, forward_s, "7-1")
    number, result = outcome_of(reply_frames(STATE, 5, sent))
    assert number == 5
    assert isinstance(result, JobResult)
    assert result.pooled.tobytes() == pooled.tobytes()
    assert result.pooled.shape == pooled.shape
    assert (result.tokens is None) == (tokens is None)
    if result.tokens is not None:
        assert result.tokens.tobytes() == tokens.tobytes()
        assert result.tokens.shape == tokens.shape
    assert (result.queue_s, result.pack_s, result.forward_s) == times
    assert result.pack_id == "7-1"


@pytest.mark.parametrize("error", [DeadlineExceeded("late"), EngineFault("broken"), Unavailable("gone")])
def test_an_error_arrives_as_its_own_kind(error: ServiceError) -> None:
    number, result = outcome_of(reply_frames(STATE, 9, error))
    assert number == 9
    assert type(result) is type(error)
    assert isinstance(result, ServiceError)
    assert result.message == error.message


def test_an_error_of_an_unknown_code_is_a_fault_of_the_engine() -> None:
    assert isinstance(read_outcome(Failed(STATE, 9, "new", "why"), []), EngineFault)


@given(size_bytes=st.integers(0, 100).filter(lambda size_bytes: size_bytes % 6))
def test_rows_that_do_not_fit_their_grids_are_malformed(size_bytes: int) -> None:
    with pytest.raises(MalformedMessage, match="malformed Embed"):
        read_job(Embed(1, ((2, 3),), 6, None, False, False, ""), [memoryview(bytes(size_bytes))])


@pytest.mark.parametrize("arrays", [[], [7], [8, 8], [12]])
def test_arrays_that_do_not_fit_their_shapes_are_malformed(arrays: list[int]) -> None:
    head = messages.Embedded(STATE, 1, [(1, 2)], 0.1, 0.2, 0.3, "7-1")
    assert isinstance(read_outcome(head, [memoryview(struct.pack("2f", 1, 2))]), JobResult)
    with pytest.raises(MalformedMessage, match="malformed Embedded"):
        read_outcome(head, [memoryview(bytes(size_bytes)) for size_bytes in arrays])
