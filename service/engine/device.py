"""What runs packs, as the engine and offline jobs see it: a pack is submitted, and waited for.

A device that works by itself takes a second pack while it runs the first, so it need not wait for the host.
"""

import itertools
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from model.pack import PackedBatch, PackedDocuments, PackedTexts
from service.engine.client import Job
from service.engine.forward import JobPack, JobPackOutput, PackRunner

if TYPE_CHECKING:
    from model.running.runner import Runner
    from model.running.staging import Staging
    from model.running.streams import Begun


class PackUnderWay(Protocol):
    """A pack that has been submitted."""

    def wait(self) -> JobPackOutput:
        """Blocks until the device has run the pack, and returns its vectors. Called once.

        Raises `DeviceOutOfMemory`, `DeviceLost`, or any other exception; the packs behind this one go on, unless the
        device is lost.
        """
        ...


class Device(Protocol):
    """Runs packs one after another, in the order in which they are submitted.

    One thread at a time calls `submit`. Each pack is waited for by one thread, and several may wait at once.
    """

    @property
    def depth(self) -> int:
        """The most packs under way. 1: it computes in the thread that calls `wait`. 2: it works by itself, and begins
        the second pack the moment that the first is done."""
        ...

    def submit(self, jobs: Sequence[Job]) -> PackUnderWay:
        """Begins a pack: gathers its rows and hands them over. Does not wait for the device.

        Raises as `PackUnderWay.wait`; the packs that are under way already go on, unless the device is lost.
        """
        ...


class HostDevice:
    """A runner that computes in the thread that waits: a CPU, or any device driven without streams."""

    depth = 1

    def __init__(self, runner: PackRunner, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._runner, self._clock = runner, clock

    def submit(self, jobs: Sequence[Job]) -> PackUnderWay:
        return _OnHost(JobPack(jobs), self._runner, self._clock)


class StreamRunner(Protocol):
    """What is asked of a `model.running.runner.Runner` on a CUDA device. All methods raise as those of `PackRunner`."""

    def begin(self, batch: PackedBatch, *, tokens: bool = False) -> "Begun": ...

    def begin_texts(self, texts: PackedTexts) -> "Begun": ...

    def begin_documents(self, documents: PackedDocuments) -> "Begun": ...

    def staging(self) -> "Staging": ...


class StreamDevice:
    """A CUDA device. Rows are gathered in pinned memory. Each pack under way has its own."""

    depth = 2

    def __init__(self, runner: StreamRunner) -> None:
        self._runner = runner
        self._staging = itertools.cycle([runner.staging() for _ in range(self.depth)])

    def submit(self, jobs: Sequence[Job]) -> PackUnderWay:
        staging = next(self._staging)
        staging.reuse()
        pack = JobPack(jobs, memory=staging.rows)
        images = texts = documents = None
        if pack.images is not None:
            images = self._runner.begin(pack.images, tokens=pack.want_tokens)
            staging.read_by(images)
        if pack.texts is not None:
            texts = self._runner.begin_texts(pack.texts)
        if pack.documents is not None:
            documents = self._runner.begin_documents(pack.documents)
            staging.read_by(documents)
        return _InStreams(pack, images, texts, documents)


class _InStreams:
    """A pack that the device has been given. Its rows stay where they are until the device has copied them."""

    def __init__(self, pack: JobPack, images: "Begun | None", texts: "Begun | None", documents: "Begun | None") -> None:
        self._pack: JobPack | None = pack
        self._begun: tuple[Begun | None, ...] = (images, texts, documents)

    def wait(self) -> JobPackOutput:
        assert self._pack is not None, "a pack was waited for twice"
        jobs, begun = self._pack.jobs, self._begun
        # The exception of a failed pack keeps this object. It must not keep memory of the device.
        self._pack, self._begun = None, ()
        images, texts, documents = (None if one is None else one.result() for one in begun)
        return JobPackOutput(jobs, images, texts, documents, busy_s=sum(one.busy_s for one in begun if one))


class _OnHost:
    """An arranged pack, which runs once it is waited for."""

    def __init__(self, pack: JobPack, runner: PackRunner, clock: Callable[[], float]) -> None:
        self._pack, self._runner, self._clock = pack, runner, clock

    def wait(self) -> JobPackOutput:
        began_s = self._clock()
        images = texts = documents = None
        if self._pack.images is not None:
            images = self._runner.run(self._pack.images, tokens=self._pack.want_tokens)
        if self._pack.texts is not None:
            texts = self._runner.run_texts(self._pack.texts)
        if self._pack.documents is not None:
            documents = self._runner.run_documents(self._pack.documents)
        return JobPackOutput(self._pack.jobs, images, texts, documents, busy_s=self._clock() - began_s)


def device_of(runner: "Runner") -> Device:
    """The device that a runner computes on, as it is best used."""
    return StreamDevice(runner) if runner.device.type == "cuda" else HostDevice(runner)
