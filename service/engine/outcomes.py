"""What becomes of the items of a pack: vectors, or the error that an item gets in their place."""

import logging
from collections.abc import Sequence
from dataclasses import replace

from model.errors import DeviceOutOfMemory
from service.engine.client import Job, JobResult, PackTrace
from service.engine.forward import Forward, JobVectors
from service.engine.under_way import ExecutorItem
from service.errors import EngineFault, ServiceError
from service.metrics import ItemKind

Outcome = JobResult | ServiceError


class NoVector(EngineFault):
    """The pack ran, and the device gave no vector for the item."""


_log = logging.getLogger(__name__)


def outcomes_of(items: Sequence[ExecutorItem], forward: Forward, pack_id: str) -> list[Outcome]:
    """An item gets an error if a vector of it is no vector: NaN and zeros must not reach an index.

    Raises `ValueError` if the device gave fewer vectors than the items have segments.
    """
    outcomes: list[Outcome] = []
    pooled_is_sound = forward.output.pooled_have_directions
    runs_s = forward.began_s + forward.ahead_s
    times = (forward.pack_s, forward.forward_s)
    for item, vectors in zip(items, forward.output.vectors(), strict=True):
        if (pooled_is_sound and vectors.tokens is None) or vectors.have_directions:
            outcomes.append(JobResult(vectors.pooled, vectors.tokens, runs_s - item.arrived_s, *times, pack_id))
        else:
            outcomes.append(_no_vector(item.job.kind, vectors))
    return outcomes


def with_pack_trace(items: Sequence[ExecutorItem], outcomes: list[Outcome], forward: Forward) -> list[Outcome]:
    """The outcomes, the first result of a traced item with the trace of the pack. Unchanged if nothing is traced."""
    traces = tuple([item.job.trace for item in items if item.job.trace])
    if not traces:
        return outcomes
    for index, (item, outcome) in enumerate(zip(items, outcomes, strict=True)):
        if item.job.trace and isinstance(outcome, JobResult):
            outcomes[index] = replace(outcome, pack_trace=_pack_trace(traces, items, forward))
            break
    return outcomes


def _pack_trace(traces: tuple[str, ...], items: Sequence[ExecutorItem], forward: Forward) -> PackTrace:
    counted = [counted for item in items for counted in item.job.items]
    images = sum(each.kind == "image" for each in counted)
    return PackTrace(
        traces,
        forward.began_s,
        forward.ended_s,
        images=images,
        texts=sum(each.kind == "text" for each in counted),
        tokens=sum(each.tokens for each in counted),
        computed_tokens=forward.output.computed_tokens,
    )


def _no_vector(kind: ItemKind, vectors: JobVectors) -> NoVector:
    message = f"the model's output for this {kind} is no vector: {vectors.fault}"
    _log.error("%s", message)
    return NoVector(message)


def fault_of(job: Job, error: Exception) -> EngineFault:
    """What the only item of a pack gets that failed with `error`."""
    if isinstance(error, DeviceOutOfMemory):
        if job.kind == "text":
            return EngineFault("the device has no memory for a single text")
        what = "an image" if len(job.items) == 1 else "an input"
        return EngineFault(f"the device has no memory for {what} of {job.tokens} tokens; ask for fewer (max_tokens)")
    return EngineFault(f"the forward of this {job.kind} failed; nothing was charged")
