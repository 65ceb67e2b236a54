"""One engine process as an HTTP process sees it: the connection, what the engine last said, what was sent to it."""

import logging
import math
import socket
from collections.abc import Callable
from functools import partial

import msgspec

from service.engine.client import Job
from service.engine.pack_log import PackLog
from service.processes.exchange.framed import FramedSocket, framed_head
from service.processes.exchange.messages import Cancel, EngineState, Hello, Reply, TellPacks, reply
from service.processes.exchange.slab import Slab
from service.processes.exchange.wire import job_frames
from service.processes.messages import encode
from service.watching import tasks

_log = logging.getLogger(__name__)

Heard = Callable[["EngineLink", Reply, memoryview], None]


class EngineLink:
    """outstanding_tokens: of jobs that were sent and are not answered. outstanding_bulk_tokens: of the bulk ones.
    abandoned_tokens: of those that nobody waits for. log: the packs that it told of. cut_off: the connection has ended.
    An engine that has died is declared down soon; one that lives has forgotten what it was sent. untrue: as in
    `EngineStatus`. silent_looks: how often it was looked at since it last sent anything."""

    def __init__(self, slab: Slab, *, backing_off: bool, untrue: str | None = None) -> None:
        self._slab = slab
        self._socket: FramedSocket | None = None
        # The engine may read their rows until it has answered.
        self._jobs: dict[int, Job] = {}
        self.state = EngineState(ready=True, tokens_per_s=None, others_tokens=0, others_bulk_tokens=0)
        self.backing_off, self.untrue = backing_off, untrue
        self.outstanding_tokens = self.outstanding_bulk_tokens = self.abandoned_tokens = 0
        self._abandoned: set[int] = set()
        self.cut_off = False
        self.silent_looks = 0
        self.log = PackLog()

    @property
    def up(self) -> bool:
        return self._socket is not None

    @property
    def ready(self) -> bool:
        return self.up and self.state.ready

    @property
    def load_tokens(self) -> int:
        """What the engine has to do, as far as is known here."""
        return self.outstanding_tokens + self.state.others_tokens

    @property
    def interactive_tokens(self) -> int:
        """The part of `load_tokens` that goes ahead of bulk."""
        return self.load_tokens - self.outstanding_bulk_tokens - self.state.others_bulk_tokens

    @property
    def tokens_per_s(self) -> float:
        """This process's part of the engine's rate: an equal one at least, which it gets once it has as much queued as
        the others. By what it has queued alone, its first request after a rest was refused: it would take minutes."""
        mine, others = self.outstanding_tokens, self.state.others_tokens
        share = max(mine / (mine + others) if mine + others else 1.0, 1 / max(1, self.state.processes))
        return (self.state.tokens_per_s or 0.0) * share

    def connect(self, address: str, hello: Hello, heard: Heard, on_cut: Callable[[], None]) -> None:
        """address: an abstract socket's. heard: called with every message of the engine. on_cut: called when the
        connection has ended. Stays as it is if the engine has died meanwhile; whoever watches it will tell."""

        def cut() -> None:
            self.cut_off = True
            on_cut()

        end = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            end.connect(f"\0{address}")
            socket.send_fds(end, [framed_head(encode(hello))], [self._slab.descriptor])
        except OSError as error:
            _log.warning("an engine that was said to be up is not: %s", error)
            end.close()
            return
        self.disconnect()
        self._socket, self.silent_looks = FramedSocket(end, partial(self._hear, heard), on_end=cut), 0
        # What it will say of itself comes soon: until then nothing that it computes is known to be right.
        self.state = msgspec.structs.replace(
            self.state, ready=True, others_tokens=0, others_bulk_tokens=0, proven_s=-math.inf
        )

    def _hear(self, heard: Heard, frames: list[tuple[memoryview, memoryview]]) -> None:
        self.silent_looks = 0
        for head, behind in frames:
            try:
                heard(self, reply(head), behind)
            except Exception:
                # Whoever waits for what it held would wait for ever.
                _log.exception("a reply of an engine cannot be read")
                tasks.report("a reply of an engine cannot be read")

    def send(self, number: int, job: Job, *, alone: bool) -> None:
        """Never waits, because admission bounds what is waited for, and `RemoteEngine.accepts_jobs` what is not."""
        assert self._socket is not None, "an engine that is down was sent something"
        self._jobs[number] = job
        self.outstanding_tokens += job.tokens
        self.outstanding_bulk_tokens += job.tokens * job.bulk
        self._socket.send(job_frames(number, job, self._slab, alone=alone))

    def cancel(self, number: int) -> None:
        """The engine will answer all the same, and may read the rows until it does."""
        if self._socket is not None and number in self._jobs:
            self._socket.send([encode(Cancel(number))])

    def abandon(self, number: int) -> None:
        """Nobody waits for it any more."""
        if number in self._jobs and number not in self._abandoned:
            self._abandoned.add(number)
            self.abandoned_tokens += self._jobs[number].tokens
            self.cancel(number)

    def answered(self, number: int) -> None:
        job = self._jobs.pop(number, None)
        if job is not None:
            self.outstanding_tokens -= job.tokens
            self.outstanding_bulk_tokens -= job.tokens * job.bulk
            if number in self._abandoned:
                self._abandoned.remove(number)
                self.abandoned_tokens -= job.tokens

    def ask_packs(self) -> None:
        if self._socket is not None:
            self._socket.send([encode(TellPacks(self.log.last_s))])

    def disconnect(self, *, backing_off: bool = False, untrue: str | None = None) -> None:
        if self._socket is not None:
            self._socket.close()
        self._socket = None
        self._jobs.clear()
        self._abandoned.clear()
        self.outstanding_tokens = self.outstanding_bulk_tokens = self.abandoned_tokens = 0
        self.cut_off, self.backing_off, self.untrue = False, backing_off, untrue
