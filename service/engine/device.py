"""What runs packs, as the engine and offline jobs see it: a pack is submitted, and waited for.

A device that works by itself takes a second pack while it runs the first, so it need not wait for the host.
"""

import time
from collections.abc import Callable, Sequence
from typing import Protocol

from service.engine.client import Job
from service.engine.forward import JobPack, JobPackOutput, PackRunner


class PackUnderWay(Protocol):
    """A pack that has been submitted."""

    def wait(self) -> JobPackOutput:
        """Blocks until the device has run the pack, and returns its vectors. Called once.

        Raises `DeviceOutOfMemory`, `DeviceLost`, or any other exception; the packs behind this one go on, unless the
        device is lost. Packs are waited for in the order of their submission, but after a fault a part of the pack at
        fault is waited for before a pack that was submitted earlier.
        """
        ...


class Device(Protocol):
    """Runs packs one after another, in the order in which they are submitted.

    One thread at a time calls `submit`, and one thread at a time calls `wait`. They may be two threads.
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
