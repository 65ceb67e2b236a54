"""What an HTTP process hears of its parent."""

import asyncio
import time
from collections.abc import Callable
from typing import Any, cast

from service.processes.http_process import _Parent
from service.processes.messages import Alive, ToHttp


class Line:
    """A channel on which a test speaks."""

    def listen(self, heard: Callable[[ToHttp], object]) -> None:
        self.hear = heard


def test_a_parent_may_speak_after_the_loop_of_a_process_has_closed() -> None:
    line, loop = Line(), asyncio.new_event_loop()
    nobody = cast("Any", None)
    _Parent(cast("Any", line), nobody, nobody, nobody, 10.0).listen(loop)
    loop.close()
    line.hear(Alive(time.monotonic()))
