"""A few places beyond `max_connections`, for those who ask whether the server is alive and ready.

A kubelet or a balancer opens a connection for each probe. While clients hold all connections, a further one gets a
place here until the head of its request is there, or for a moment. A probe is answered, and its connection closed;
anything else is told that there is no room. Pure: knows no socket and no clock.
"""

from collections.abc import Collection
from typing import Generic, TypeVar

from service.errors import ServiceError

PLACES = 8
"""As many more connections there may be. Each is there for a moment."""
WAIT_S = 1.0
"""How long the head of a request may take here."""

ConnectionT = TypeVar("ConnectionT")


class Reserve(Generic[ConnectionT]):
    """Those of one process."""

    def __init__(self, max_connections: int, probe_paths: Collection[str]) -> None:
        """max_connections: without those here."""
        self.max_connections = max_connections
        self._paths = frozenset(path.encode() for path in probe_paths)
        # Those that have not asked yet, the oldest first, and what they are told if they ask for something else.
        self._waiting: dict[ConnectionT, ServiceError] = {}
        self._answered: set[ConnectionT] = set()

    def __len__(self) -> int:
        return len(self._waiting) + len(self._answered)

    def __contains__(self, connection: object) -> bool:
        return connection in self._waiting or connection in self._answered

    def has_room(self, connection: ConnectionT, connections: int) -> bool:
        """Whether a connection may be one of the usual ones. connections: of all there are."""
        return connections - len(self) + (connection in self) <= self.max_connections

    def enter(self, connection: ConnectionT, refusal: ServiceError) -> list[tuple[ConnectionT, ServiceError]]:
        """Gives a place to a connection for which there is no room, as `refusal` says. Returns who has to leave for it:
        the one that has waited the longest, or itself if none waits."""
        leaves: list[tuple[ConnectionT, ServiceError]] = []
        if len(self) >= PLACES:
            oldest = next(iter(self._waiting), None)
            if oldest is None:
                return [(connection, refusal)]
            leaves.append((oldest, self._waiting.pop(oldest)))
        self._waiting[connection] = refusal
        return leaves

    def refusal(self, connection: ConnectionT) -> ServiceError | None:
        """What a connection is told that waits here; None if it does not."""
        return self._waiting.get(connection)

    def answers(self, connection: ConnectionT, target: bytes) -> bool:
        """Whether it asks for a probe's path. It then keeps its place until it leaves."""
        if target.partition(b"?")[0] not in self._paths:
            return False
        del self._waiting[connection]
        self._answered.add(connection)
        return True

    def leave(self, connection: ConnectionT) -> None:
        """It is closed, or one of the usual connections by now. Does nothing to one that is not here."""
        self._waiting.pop(connection, None)
        self._answered.discard(connection)
