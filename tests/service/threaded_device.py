"""A device that works by itself: a runner on a thread of its own."""

import queue
import threading
from collections.abc import Sequence
from concurrent.futures import Future

from service.engine.client import Job
from service.engine.device import HostDevice, PackUnderWay
from service.engine.forward import JobPackOutput, PackRunner


class _Pack:
    def __init__(self, arranged: PackUnderWay) -> None:
        self.arranged = arranged
        self.output: Future[JobPackOutput] = Future()

    def wait(self) -> JobPackOutput:
        return self.output.result()


class ThreadedDevice:
    """Runs packs in order, whether or not anybody waits for them. submitted: how many packs it was given."""

    depth = 2

    def __init__(self, runner: PackRunner) -> None:
        self._host = HostDevice(runner)
        self._packs: queue.SimpleQueue[_Pack] = queue.SimpleQueue()
        self.submitted = 0
        threading.Thread(target=self._main, name="device", daemon=True).start()

    def submit(self, jobs: Sequence[Job]) -> PackUnderWay:
        pack = _Pack(self._host.submit(jobs))
        self.submitted += 1
        self._packs.put(pack)
        return pack

    def _main(self) -> None:
        while True:
            pack = self._packs.get()
            try:
                pack.output.set_result(pack.arranged.wait())
            except BaseException as error:
                pack.output.set_exception(error)
            del pack
