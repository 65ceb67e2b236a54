"""What the embedding routes share: how an answer is written."""

import asyncio
import threading
import time
from typing import cast

import numpy as np
import pytest
from starlette.requests import Request

from service.engine.client import JobResult
from service.http.answers import Answer
from service.http.bodies.receive import BodyLimits
from service.http.context import RequestContext
from service.http.routes.embedding import EmbeddingRoute
from service.limits import ModelFacts
from service.requests.admission.hold import Hold
from service.requests.embedder import Embedder
from service.requests.results import EmbeddedImage, Outcome
from tests.service.requests.admission.test_admission import admission
from tests.service.running import no_urls, plan_of


@pytest.mark.parametrize(("images", "in_a_thread"), [(1, False), (64, True)])
def test_a_large_answer_is_written_off_the_event_loop(png: bytes, images: int, in_a_thread: bool) -> None:
    result = JobResult(np.zeros((1, 1152), np.float32), None, 0.0, 0.0, 0.0)
    outcomes: list[Outcome] = [EmbeddedImage(plan_of(png, 16), result, 0.0)] * images
    route = EmbeddingRoute(
        cast(Embedder, None), cast(ModelFacts, None), url_images=no_urls(), body_limits=BodyLimits(1, 1, 1, 1, 1.0),
        default_timeout_s=1.0, default_decode="exact",
    )  # fmt: skip
    threads = []

    def write() -> Answer:
        threads.append(threading.current_thread())
        return Answer([b"{}"], {})

    async def main() -> None:
        request = Request({"type": "http", "headers": []})
        with Hold(admission()) as hold:
            RequestContext("id", time.monotonic(), hold, "/embed").put(request.scope)
            await route.respond(request, outcomes, write, "json")

    asyncio.run(main())
    assert [thread is not threading.main_thread() for thread in threads] == [in_a_thread]
