"""Images, texts and vectors as frames of bytes, between HTTP processes and engines.

The first frame is a message; each array follows as its own memory, in the machine's byte order. Knows no sockets.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.engine.client import DocumentJob, ImageJob, Job, JobResult, TextJob
from service.errors import DeadlineExceeded, EngineFault, ServiceError, Unavailable
from service.processes.messages import (
    Embed,
    Embedded,
    EmbedDocument,
    EmbedText,
    EngineState,
    Failed,
    MalformedMessage,
    encode,
)

Frames = list[bytes | memoryview]
Head = Embed | EmbedText | EmbedDocument

_ERRORS: dict[str, type[ServiceError]] = {error.code: error for error in (DeadlineExceeded, EngineFault, Unavailable)}


def job_frames(number: int, job: Job) -> Frames:
    if isinstance(job, TextJob):
        text = EmbedText(number, job.tokens, job.token_cap, job.deadline_s, job.alone, job.name)
        return [encode(text), _bytes_of(job.ids)]
    if isinstance(job, DocumentJob):
        caps = job.token_caps, job.text_cap
        document = EmbedDocument(
            number, len(job.ids), job.grids, job.text_tokens, *caps, job.deadline_s, job.alone, job.name
        )
        return [encode(document), _bytes_of(job.ids), _bytes_of(job.rows)]
    head = Embed(number, job.grids, job.token_cap, job.deadline_s, job.want_tokens, job.alone, job.name)
    return [encode(head), _bytes_of(job.rows)]


def job_tokens(head: Head) -> int:
    if isinstance(head, EmbedText):
        return head.tokens
    return _patches(head) + (head.text_tokens if isinstance(head, EmbedDocument) else 0)


def _patches(head: Embed | EmbedDocument) -> int:
    return sum(height * width for height, width in head.grids)


def read_job(head: Head, arrays: Sequence[memoryview]) -> Job:
    """The job's arrays are views of the frames. Raises `MalformedMessage` if they do not fit the head."""
    try:
        if isinstance(head, EmbedText):
            ids = np.frombuffer(arrays[0], np.int32).reshape(head.tokens)
            return TextJob(ids, head.token_cap, head.deadline_s, head.alone, head.name)
        if isinstance(head, EmbedDocument):
            return _document(head, arrays)
        rows = np.frombuffer(arrays[0], np.uint8).reshape(_patches(head), -1)
    except ValueError as error:
        raise MalformedMessage(f"malformed {type(head).__name__}: {error}") from None
    return ImageJob(rows, head.grids, head.token_cap, head.deadline_s, head.want_tokens, head.alone, head.name)


def _document(head: EmbedDocument, arrays: Sequence[memoryview]) -> DocumentJob:
    ids = np.frombuffer(arrays[0], np.int32).reshape(head.ids)
    # Without pictures there are no rows, whose width nothing tells.
    rows = np.frombuffer(arrays[1], np.uint8).reshape(_patches(head), -1) if head.grids else np.empty((0, 0), np.uint8)
    caps = head.token_caps, head.text_cap
    return DocumentJob(ids, rows, head.grids, head.text_tokens, *caps, head.deadline_s, head.alone, head.name)


def reply_frames(state: EngineState, number: int, outcome: JobResult | ServiceError) -> Frames:
    if isinstance(outcome, ServiceError):
        return [encode(Failed(state, number, outcome.code, outcome.message))]
    arrays = [outcome.pooled] if outcome.tokens is None else [outcome.pooled, outcome.tokens]
    shapes = [array.shape for array in arrays]
    times = (outcome.queue_s, outcome.pack_s, outcome.forward_s)
    head = Embedded(state, number, shapes, *times, outcome.pack_id)
    return [encode(head), *map(_bytes_of, arrays)]


def read_outcome(head: Embedded | Failed, frames: Sequence[memoryview]) -> JobResult | ServiceError:
    """The result's arrays are views of the frames. Raises `MalformedMessage` if they do not fit the head."""
    if isinstance(head, Failed):
        return _ERRORS.get(head.code, EngineFault)(head.message)
    try:
        pooled, *tokens = (
            np.frombuffer(frame, np.float32).reshape(shape) for frame, shape in zip(frames, head.shapes, strict=True)
        )
    except ValueError as error:
        raise MalformedMessage(f"malformed Embedded: {error}") from None
    times = (head.queue_s, head.pack_s, head.forward_s)
    return JobResult(pooled, tokens[0] if tokens else None, *times, head.pack_id)


def _bytes_of(array: NDArray[Any]) -> memoryview:
    return np.ascontiguousarray(array).data.cast("B") if array.size else memoryview(b"")
