"""Whether the client of a request is still there, as the server's protocol tells it to the application.

ASGI tells it to a task that waits in `receive`. A task for each request, which nearly always waits in vain, is a
twenty-fifth of what a request takes of the event loop.
"""

import asyncio
from collections.abc import Callable

from starlette.types import Scope

# Where the scope of a request has its `Departure`, among what ASGI calls extensions.
_NAME = "packlight.departure"


class Departure:
    """Of one request. listen: has the connection read what its client sends, and so notice its end."""

    __slots__ = ("_call", "_gone", "_listen")

    def __init__(self, listen: Callable[[], object]) -> None:
        self._listen, self._gone = listen, False
        self._call: Callable[[], object] | None = None

    @staticmethod
    def of(scope: Scope) -> "Departure | None":
        """None under a server that is not ours."""
        found: Departure | None = (scope.get("extensions") or {}).get(_NAME)
        return found

    def put(self, scope: Scope) -> None:
        scope["extensions"] = {_NAME: self}

    def watch(self, call: Callable[[], object]) -> None:
        """Calls it when the client leaves; if it has left, in the next turn of the event loop."""
        self._call = call
        if self._gone:
            asyncio.get_running_loop().call_soon(self.tell)
        else:
            self._listen()

    def unwatch(self) -> None:
        self._call = None

    def tell(self) -> None:
        """The client has left."""
        self._gone = True
        if self._call is not None:
            self._call()
