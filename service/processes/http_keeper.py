"""Keeps one HTTP process running, and tells it what becomes of the engines."""

import asyncio
import logging
import math
from collections.abc import Callable, Sequence

import msgspec

from service.processes.child import Child, Restarts
from service.processes.engine_keeper import CannotStart
from service.processes.messages import (
    Alive,
    EngineDown,
    EngineUp,
    FromHttp,
    Listening,
    Moved,
    Reloaded,
    ServeModel,
    StartHttp,
    Stop,
    from_http,
)

# A process that listened for less was of no use: one that dies on every request would otherwise be started without end.
USEFUL_LIFE_S = 10.0
# A process whose event loop is held ends by itself, and says where it is held: it gets so much longer.
_LAST_WORDS_S = 3.0
# A later start may take this many times as long as the first.
_PATIENCE = 10.0

_log = logging.getLogger(__name__)


class HttpKeeper:
    """One of the processes that share the port, through all its lives."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        start: Callable[[], StartHttp],
        listening_fd: int,
        *,
        hang_after_s: float,
    ) -> None:
        """start: asked once a process may begin, because it says what is served and which engines are up."""
        self._hang_after_s = hang_after_s
        self._start_patience_s = math.inf
        # How the life before ended.
        self._cause: str | None = None
        self.name, self._command, self._start, self._listening_fd = name, command, start, listening_fd
        self._child: Child[FromHttp] | None = None
        # The same process, once it has its first message.
        self._begun: Child[FromHttp] | None = None
        self._may_begin = asyncio.Event()
        self._stopping = asyncio.Event()
        # The number of the oldest model that the process uses; None while there is no process.
        self._model: int | None = None
        self._model_changed = asyncio.Event()
        # The address at which the first life listened.
        self.listening: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def keep(self) -> None:
        """Returns once the process was told to stop and has ended. Raises `CannotStart` if its first life never
        listened."""
        restarts = Restarts()
        while not self._stopping.is_set():
            listened_s, reason = await self._live()
            if self._stopping.is_set():
                return
            if not self.listening.done():
                raise CannotStart(f"{self.name} {reason} before it listened")
            delay_s = restarts.delay_s(useful=listened_s >= USEFUL_LIFE_S)
            _log.error("%s %s; starting it again %s", self.name, reason, f"in {delay_s:g} s" if delay_s else "at once")
            try:
                await asyncio.wait_for(self._stopping.wait(), delay_s)
            except TimeoutError:
                continue

    async def _live(self) -> tuple[float, str]:
        """From one start to the end that follows: the seconds that it listened, and how it ended."""
        try:
            self._child = child = await Child.spawn(self.name, self._command, from_http, [self._listening_fd])
        except OSError as error:
            return 0.0, f"cannot be started: {error.strerror or error}"
        # The first process loads its modules while the engines load the model.
        if (ended := await self._ended_before_it_may_begin(child)) is not None:
            return 0.0, f"(pid {child.pid}) died: it ended with {ended}"
        # No await between these: from here on, `tell` reaches the process with every change of an engine.
        self._begun = child
        start = self._start()
        child.tell(msgspec.structs.replace(start, replaces=self._cause))
        self._set_model(start.served.number)
        if self._stopping.is_set():
            self.stop()
        clock_s = asyncio.get_running_loop().time
        began_s, since_s, patience_s = clock_s(), None, self._start_patience_s
        while (message := await child.hear_within(patience_s)) is not None:
            match message:
                case Moved():
                    self._set_model(message.model)
                case Listening():
                    since_s, patience_s = clock_s(), self._hang_after_s + _LAST_WORDS_S
                    self._start_patience_s = max(self._hang_after_s, _PATIENCE * (since_s - began_s))
                    if not self.listening.done():
                        self.listening.set_result(message.address)
        ended = await child.ended()
        self._set_model(None)
        if child.hung and since_s is None:
            # The first start was shorter: its modules were loaded before it began.
            self._start_patience_s *= 2
        self._cause = "hung" if child.hung else "died"
        return clock_s() - (since_s or clock_s()), f"(pid {child.pid}) {self._cause}: it ended with {ended}"

    async def _ended_before_it_may_begin(self, child: Child[FromHttp]) -> str | None:
        """How the process ended; None once it may begin."""
        ending, beginning = (
            asyncio.create_task(child.ended(), name=f"end of {self.name}"),
            asyncio.create_task(self._may_begin.wait()),
        )
        try:
            await asyncio.wait([ending, beginning], return_when=asyncio.FIRST_COMPLETED)
            return None if beginning.done() else ending.result()
        finally:
            ending.cancel()
            beginning.cancel()

    @property
    def pid(self) -> int | None:
        """The process that runs, or ran last."""
        return self._child.pid if self._child else None

    def begin(self) -> None:
        """From now on, a process is told what to serve."""
        self._may_begin.set()

    def _set_model(self, number: int | None) -> None:
        self._model = number
        self._model_changed.set()

    async def moved(self, number: int) -> None:
        """Waits until the process uses no model before that of this number."""
        while self._model is not None and self._model < number:
            self._model_changed.clear()
            await self._model_changed.wait()

    def tell(self, message: ServeModel | EngineUp | EngineDown | Reloaded | Alive | Stop) -> None:
        if self._begun is not None:
            self._begun.tell(message)

    def stop(self) -> None:
        """The process lets nothing new in, finishes what was accepted, and ends."""
        self._stopping.set()
        self.tell(Stop())

    def kill(self) -> None:
        if self._child is not None:
            self._child.kill()

    async def end(self) -> None:
        """Kills the process, and waits until it has ended. After `keep` was cancelled."""
        if self._child is not None:
            self._child.kill()
            await self._child.ended()
