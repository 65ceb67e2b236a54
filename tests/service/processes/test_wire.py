"""What crosses between processes comes out as it went in."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from service.engine.client import ImageJob, ImageResult
from service.engine.cost import CostFit
from service.errors import DeadlineExceeded, EngineFault, ServiceError, Unavailable
from service.processes.wire import (
    EMBED,
    EngineState,
    Frames,
    job_frames,
    read_job,
    read_result,
    read_state,
    result_frames,
    state_frame,
)

POOLED_WIDTH, TOKEN_WIDTH = 6, 9

grids = st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=4)
finite = st.floats(0, 1e9, allow_nan=False)


def crossed(frames: Frames) -> list[memoryview]:
    """As a socket gives them back: other memory, read-only."""
    return [memoryview(bytes(frame)) for frame in frames]


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
    kind, head, body = crossed(job_frames(number, sent))
    assert kind == EMBED
    got, job = read_job(bytes(head), body)
    assert got == number
    assert np.array_equal(job.rows, rows)
    assert (job.grids, job.token_cap, job.deadline_s, job.want_tokens, job.alone, job.name) == (
        sent.grids, cap, deadline_s, want_tokens, alone, name,
    )  # fmt: skip


def test_rows_that_do_not_lie_in_one_piece_arrive_whole() -> None:
    rows = np.arange(240, dtype=np.uint8).reshape(20, 12)[::2]
    _, head, body = crossed(job_frames(1, ImageJob(rows, ((2, 5),), 10, None, False)))
    assert np.array_equal(read_job(bytes(head), body)[1].rows, rows)


def vectors(width: int) -> st.SearchStrategy[Any]:
    return st.integers(1, 4).flatmap(lambda rows: arrays.arrays(np.float32, (rows, width)))


@given(pooled=vectors(POOLED_WIDTH), tokens=st.none() | vectors(TOKEN_WIDTH), times=st.tuples(finite, finite, finite))
def test_a_result_arrives_to_the_bit(pooled, tokens, times) -> None:
    number, result = read_result(crossed(result_frames(5, ImageResult(pooled, tokens, *times))))
    assert number == 5
    assert isinstance(result, ImageResult)
    assert result.pooled.tobytes() == pooled.tobytes()
    assert result.pooled.shape == pooled.shape
    assert (result.tokens is None) == (tokens is None)
    if result.tokens is not None:
        assert result.tokens.tobytes() == tokens.tobytes()
        assert result.tokens.shape == tokens.shape
    assert (result.queue_s, result.pack_s, result.forward_s) == times


@pytest.mark.parametrize("error", [DeadlineExceeded("late"), EngineFault("broken"), Unavailable("gone")])
def test_an_error_arrives_as_its_own_kind(error: ServiceError) -> None:
    number, result = read_result(crossed(result_frames(9, error)))
    assert number == 9
    assert type(result) is type(error)
    assert isinstance(result, ServiceError)
    assert result.message == error.message


@pytest.mark.parametrize("fit", [None, CostFit(1e-5, 2e-8, 0.003, None, 8), CostFit(1e-5, 0.0, 0.003, 0.04, 900)])
def test_what_packs_cost_arrives_with_every_reply(fit: CostFit | None) -> None:
    for state in (EngineState(False, 1e4, 7, fit), EngineState(True, None, 0, fit)):
        assert read_state(state_frame(state)) == state
