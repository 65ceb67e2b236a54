"""Where the stages of a request pass by its trace: stages that are measured anyway, and the client of the engine.

They stand in the place of what they wrap only if tracing is on. Loads nothing of OpenTelemetry.
"""

import time
from collections.abc import Coroutine
from typing import Any

from prometheus_client import Histogram

from service.engine.client import Job, JobClient, JobResult
from service.engine.cost.fit import CostFit
from service.limits import ModelFacts
from service.tracing import current

# Told as soon as they have ended. The others end elsewhere, or are a part of what `TracedClient` sees.
_END_WHEN_OBSERVED = frozenset(("fetch", "tokenize"))


class TracedStage:
    """The histogram of a stage. If the request is traced, its trace shows in it, and gets a span of the stage."""

    def __init__(self, name: str, histogram: Histogram) -> None:
        self._name, self._histogram = name, histogram

    def observe(self, amount: float) -> None:
        trace = current.recorded.get()
        if trace is None:
            self._histogram.observe(amount)
            return
        self._histogram.observe(amount, trace.exemplar)
        ended_s = time.monotonic()
        if self._name == "decode":
            # It belongs to the image that is submitted next.
            current.decoded.set((ended_s - amount, ended_s))
        elif self._name in _END_WHEN_OBSERVED:
            trace.add(self._name, ended_s - amount, ended_s)


class TracedClient:
    """A client whose images and texts get spans, if their request is traced."""

    def __init__(self, client: JobClient) -> None:
        self._client = client

    @property
    def model(self) -> ModelFacts:
        return self._client.model

    @property
    def cost(self) -> CostFit | None:
        return self._client.cost

    def submit(self, job: Job) -> Coroutine[Any, Any, JobResult]:
        """As the client that it stands for."""
        trace = current.recorded.get()
        return self._client.submit(job) if trace is None else trace.submit(job, self._client.submit)
