"""The pipeline without HTTP: header → plan → decode in threads → pack → forward, with the server's own modules.

As many images are in flight as a sender would keep, as many threads decode as in the server, and packs are made in
order of arrival when the device is free. It leaves out what a server adds: sockets, requests, an event loop, admission,
metrics, answers.
"""

import itertools
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from loadtest.bench.clients.closed_loop import Answers
from loadtest.bench.clients.steady import Sample
from loadtest.bench.servers.aside import Aside
from loadtest.bench.servers.processes import threads_cpu_s
from model.images.decode import decode_patches, read_header
from model.pack import pack
from model.sizing.plan import ImagePlan, plan_image
from service.limits import Limits
from service.loading import load_runner, warm_up
from service.requests.results import image_embedding
from service.settings.settings import Settings


@dataclass(frozen=True, slots=True)
class Work:
    """bodies: files, used in turn. budgets: `max_tokens` of each, in turn. in_flight: images in work at once."""

    bodies: Sequence[bytes]
    budgets: Sequence[int]
    in_flight: int
    seconds: float
    warm_s: float


@dataclass(slots=True)
class _Stage:
    """Decoded images for the device. room: permits to start another image."""

    room: threading.Semaphore
    changed: threading.Condition = field(default_factory=threading.Condition)
    waiting: list[tuple[ImagePlan, NDArray[np.uint8]]] = field(default_factory=list)
    stopping: bool = False


class BarePipeline(Aside):
    """The pipeline in a process of its own, with a model loaded. Use as a context manager."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(_serve, settings)

    def __enter__(self) -> Self:
        super().__enter__()
        self.told()
        return self

    def run(self, work: Work) -> tuple[Answers, dict[str, float]]:
        """When each image was done, and the processor seconds of each kind of thread over the whole run."""
        answers, by_thread = self.ask(work)
        return answers, by_thread


def _serve(end: "Connection[object, object]", given: dict[str, Any]) -> None:
    settings = Settings(**given)
    runner, facts = load_runner(settings)
    limits = Limits.of(settings, facts)
    warm_up(runner, limits)
    end.send("ready")
    while True:
        work = end.recv()
        assert isinstance(work, Work)
        end.send(_run(work, runner, facts.geometry, limits, settings))


def _run(
    work: Work, runner: Any, geometry: Any, limits: Limits, settings: Settings
) -> tuple[Answers, dict[str, float]]:
    answers, stage = Answers(), _Stage(threading.Semaphore(work.in_flight))
    strategy = geometry.strategies[0]
    budgets = itertools.cycle([limits.budget(geometry, strategy, max_tokens=most) for most in work.budgets])
    turns = itertools.cycle(list(zip(work.bodies, budgets, strict=False)))

    def decode() -> None:
        while stage.room.acquire() and not stage.stopping:
            data, budget = next(turns)
            header = read_header(data, max_decode_pixels=settings.max_decode_pixels)
            plan = plan_image(header.size, geometry=geometry, budget=budget, strategy=strategy)
            done = decode_patches(data, plan, geometry=geometry, max_decode_pixels=settings.max_decode_pixels)
            with stage.changed:
                stage.waiting.append(done)
                stage.changed.notify()

    before = threads_cpu_s()
    threads = [threading.Thread(target=decode, name="decode") for _ in range(settings.decode_threads)]
    for thread in threads:
        thread.start()
    began_s = time.perf_counter()
    while (now_s := time.perf_counter()) < began_s + work.warm_s + work.seconds:
        if now_s >= began_s + work.warm_s:
            answers.samples.append(Sample(now_s, time.process_time(), 0.0))
        images = _take(stage, limits.max_batch_tokens)
        output = runner.run(
            pack([rows for _, rows in images], [segment.grid for plan, _ in images for segment in plan.segments])
        )
        ends = itertools.accumulate((len(plan.segments) for plan, _ in images), initial=0)
        for first, end in itertools.pairwise(ends):
            image_embedding(output.pooled[first:end], normalize=True)
        answers.answered_s += [time.perf_counter()] * len(images)
        stage.room.release(len(images))
    by_thread = _by_thread(before, {thread.native_id for thread in threads})
    stage.stopping = True
    stage.room.release(work.in_flight)
    for thread in threads:
        thread.join()
    return answers, by_thread


def _take(stage: _Stage, max_batch_tokens: int) -> list[tuple[ImagePlan, NDArray[np.uint8]]]:
    """Waits for an image, and takes what fits a pack, in order."""
    with stage.changed:
        stage.changed.wait_for(lambda: stage.waiting)
        tokens = itertools.accumulate(len(rows) for _, rows in stage.waiting)
        fitting = sum(1 for total in tokens if total <= max_batch_tokens)
        images, stage.waiting = stage.waiting[:fitting], stage.waiting[fitting:]
        return images


def _by_thread(before: dict[int, float], decoding: set[int | None]) -> dict[str, float]:
    spent = dict.fromkeys(("decode", "engine", "torch"), 0.0)
    for thread, seconds in threads_cpu_s().items():
        main = thread == threading.get_native_id()
        name = "decode" if thread in decoding else "engine" if main else "torch"
        spent[name] += seconds - before.get(thread, 0.0)
    return spent
