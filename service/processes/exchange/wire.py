"""Images, texts and vectors as frames, between HTTP processes and engines.

The head of a frame is a message; arrays follow as their own memory, in the machine's byte order. Rows that lie in the
sender's slab stay there. Knows no sockets.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.engine.client import DocumentJob, ImageJob, Job, JobResult, TextJob
from service.engine.outcomes import Outcome
from service.errors import DeadlineExceeded, EngineFault, ServiceError, Unavailable
from service.processes.exchange.framed import Frames
from service.processes.exchange.messages import (
    Answer,
    Answers,
    Embed,
    Embedded,
    EmbedDocument,
    EmbedText,
    EngineState,
    Failed,
)
from service.processes.exchange.slab import Slab, SlabError, SlabView
from service.processes.messages import MalformedMessage, encode

Head = Embed | EmbedText | EmbedDocument

_ERRORS: dict[str, type[ServiceError]] = {error.code: error for error in (DeadlineExceeded, EngineFault, Unavailable)}


def job_frames(number: int, job: Job, slab: Slab, *, alone: bool) -> Frames:
    """alone: it gets a pack of its own, whatever the job says."""
    if isinstance(job, TextJob):
        text = EmbedText(number, job.tokens, job.token_cap, job.deadline_s, alone, job.trace, job.bulk)
        return [encode(text), _bytes_of(job.ids)]
    rows_at = slab.place_of(job.rows)
    rows = [_bytes_of(job.rows)] if rows_at is None else []
    row_bytes = job.rows.shape[1]
    if isinstance(job, DocumentJob):
        caps = job.token_caps, job.text_cap
        document = EmbedDocument(
            number, len(job.ids), job.grids, row_bytes, rows_at, job.text_tokens, *caps, job.deadline_s, alone,
            job.trace, job.bulk,
        )  # fmt: skip
        return [encode(document), _bytes_of(job.ids), *rows]
    head = Embed(
        number, job.grids, row_bytes, rows_at, job.token_cap, job.deadline_s, job.want_tokens, alone, job.trace,
        job.bulk,
    )  # fmt: skip
    return [encode(head), *rows]


def read_job(head: Head, name: str, behind: memoryview, slab: SlabView) -> Job:
    """The job's arrays are views of the slab, or of what lies behind the head. Raises `MalformedMessage` if they do not
    fit the head."""
    try:
        if isinstance(head, EmbedText):
            ids = np.frombuffer(behind, np.int32).reshape(head.tokens)
            return TextJob(ids, head.token_cap, head.deadline_s, head.alone, name, head.trace, head.bulk)
        if isinstance(head, EmbedDocument):
            ids = np.frombuffer(behind[: 4 * head.ids], np.int32).reshape(head.ids)
            rows = _rows(head, behind[4 * head.ids :], slab)
            caps = head.token_caps, head.text_cap
            return DocumentJob(
                ids, rows, head.grids, head.text_tokens, *caps, head.deadline_s, head.alone, name, head.trace,
                head.bulk,
            )  # fmt: skip
        rows = _rows(head, behind, slab)
    except (ValueError, SlabError) as error:
        raise MalformedMessage(f"malformed {type(head).__name__}: {error}") from None
    return ImageJob(
        rows, head.grids, head.token_cap, head.deadline_s, head.want_tokens, head.alone, name, head.trace, head.bulk
    )


def _rows(head: Embed | EmbedDocument, behind: memoryview, slab: SlabView) -> NDArray[np.uint8]:
    tokens = sum(height * width for height, width in head.grids)
    if head.rows_at is not None:
        return slab.rows(head.rows_at, tokens, head.row_bytes)
    return np.frombuffer(behind, np.uint8).reshape(tokens, head.row_bytes)


def answer_of(number: int, outcome: Outcome) -> tuple[Answer, Frames]:
    """The message, and the arrays that follow it."""
    if isinstance(outcome, ServiceError):
        return Failed(number, outcome.code, outcome.message), []
    arrays = [outcome.pooled] if outcome.tokens is None else [outcome.pooled, outcome.tokens]
    shapes = [array.shape for array in arrays]
    times = (outcome.queue_s, outcome.pack_s, outcome.forward_s)
    head = Embedded(number, shapes, *times, outcome.pack_id, outcome.pack_trace)
    return head, [_bytes_of(array) for array in arrays]


def answer_frames(state: EngineState, answers: Sequence[tuple[Answer, Frames]]) -> Frames:
    """One frame of several answers."""
    return [encode(Answers(state, [answer for answer, _ in answers])), *(each for _, own in answers for each in own)]


def read_outcomes(answers: Sequence[Answer], behind: memoryview) -> list[tuple[int, Outcome | None]]:
    """The number of each job and what became of it: None if it was dropped. Arrays are views of `behind`.

    A result whose arrays cannot be read is an `EngineFault`, as are all that follow it.
    """
    outcomes: list[tuple[int, Outcome | None]] = []
    for answer in answers:
        outcome: Outcome | None = None
        if isinstance(answer, Failed):
            outcome = _ERRORS.get(answer.code, EngineFault)(answer.message)
        elif isinstance(answer, Embedded):
            outcome, behind = _read_result(answer, behind)
        outcomes.append((answer.number, outcome))
    return outcomes


def _read_result(answer: Embedded, behind: memoryview) -> tuple[Outcome, memoryview]:
    """And what is left."""
    arrays = []
    for shape in answer.shapes:
        size_bytes = 4 * math.prod(shape)
        try:
            arrays.append(np.frombuffer(behind[:size_bytes], np.float32).reshape(shape))
        except ValueError:
            return EngineFault("the engine's answer cannot be read; nothing was charged"), behind[:0]
        behind = behind[size_bytes:]
    times = (answer.queue_s, answer.pack_s, answer.forward_s)
    tokens = arrays[1] if len(arrays) > 1 else None
    return JobResult(arrays[0], tokens, *times, answer.pack_id, answer.pack_trace), behind


def _bytes_of(array: NDArray[Any]) -> memoryview:
    return np.ascontiguousarray(array).data.cast("B") if array.size else memoryview(b"")
