"""Keeps one HTTP process running, and passes on to it what becomes of the engines."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

from service.processes.child import Child
from service.processes.engine_keeper import CannotStart
from service.processes.restarts import Restarts

_log = logging.getLogger(__name__)


class HttpKeeper:
    """One of the processes that share the port."""

    def __init__(
        self, name: str, command: Sequence[str], config: Callable[[], dict[str, Any]], descriptor: int
    ) -> None:
        """config: asked for at every start, since it says which engines are up. descriptor: of the listening socket."""
        self._name, self._command, self._config, self._descriptor = name, command, config, descriptor
        self._child: Child | None = None
        self.listening: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.stopping = False

    async def keep(self) -> None:
        """Until it has been told to stop and has ended. Raises `CannotStart` where it never listened."""
        restarts = Restarts()
        while not self.stopping:
            useful, reason = await self._live()
            if self.stopping:
                return
            if not self.listening.done():
                raise CannotStart(f"{self._name} {reason} before it listened")
            delay_s = restarts.delay_s(was_useful=useful)
            _log.error("%s %s; starting it again", self._name, reason)
            await asyncio.sleep(delay_s)

    async def _live(self) -> tuple[bool, str]:
        """From one start to the end that follows: whether it listened, and what became of it."""
        try:
            self._child = child = await Child.spawn(self._name, self._command, [self._descriptor])
        except OSError as error:
            return False, f"cannot be started: {error.strerror or error}"
        # With no wait since it is there: what becomes of an engine from here on it is told.
        child.tell(self._config())
        if self.stopping:
            self.stop()
        useful = False
        while (message := await child.hear()) is not None:
            if "listening" in message:
                useful = True
                if not self.listening.done():
                    self.listening.set_result(message["listening"])
        return useful, f"(pid {child.pid}) died: it ended with {await child.ended()}"

    def tell(self, message: dict[str, Any]) -> None:
        if self._child is not None:
            self._child.tell(message)

    def stop(self) -> None:
        """It lets nothing new in, finishes what was accepted, and ends."""
        self.stopping = True
        self.tell({"stop": True})

    def kill(self) -> None:
        if self._child is not None:
            self._child.kill()
