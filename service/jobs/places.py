"""The pictures under way, in the order of their source: bookkeeping without threads."""

from collections import deque
from dataclasses import dataclass, field

from service.jobs.rows import Embedded, Failed, Row
from service.jobs.window import Window


@dataclass(slots=True, eq=False)
class Place:
    """A picture on its way. held_bytes: what it has of the window. followers: others with the same bytes."""

    path: str
    held_bytes: int
    row: Row | None = None
    followers: list["Place"] = field(default_factory=list)


class Places:
    """From a picture's entry to its row. One thread at a time may call it.

    The first of several pictures with the same bytes leads. The others hold no bytes and get its row.
    """

    def __init__(self, window: Window) -> None:
        self._window = window
        self._order: deque[Place] = deque()
        self._leaders: dict[str, Place] = {}  # by content

    @property
    def empty(self) -> bool:
        return not self._order

    @property
    def head_is_ready(self) -> bool:
        """Whether the next picture has its row."""
        return bool(self._order) and self._order[0].row is not None

    def has_room(self, size_bytes: int) -> bool:
        return self._window.has_room(size_bytes)

    def enter(self, path: str, size_bytes: int) -> Place:
        """size_bytes: the most that the picture may hold from here on."""
        self._window.enter(size_bytes)
        place = Place(path, size_bytes)
        self._order.append(place)
        return place

    def shrink(self, place: Place, size_bytes: int) -> None:
        """The picture holds no more than this from here on."""
        freed = max(0, place.held_bytes - size_bytes)
        self._window.free(freed)
        place.held_bytes -= freed

    def leads(self, place: Place, sha256: str) -> bool:
        """Whether no other picture with these bytes is under way. Otherwise it has to wait for that one's row."""
        leader = self._leaders.setdefault(sha256, place)
        if leader is place:
            return True
        leader.followers.append(place)
        self.shrink(place, 0)
        return False

    def resolve(self, place: Place, row: Row) -> None:
        """Gives a picture and its followers their rows."""
        if row.sha256 and self._leaders.get(row.sha256) is place:
            del self._leaders[row.sha256]
        for each in (place, *place.followers):
            each.row = _renamed(row, each.path)
            self.shrink(each, 0)

    def take_ready(self) -> list[Row]:
        """The rows that come next, up to the first picture that has none yet."""
        ready: list[Row] = []
        while self._order and (row := self._order[0].row) is not None:
            self._order.popleft()
            self._window.leave()
            ready.append(row)
        return ready


def _renamed(row: Row, path: str) -> Row:
    """The row of another picture with the same bytes."""
    if row.path == path:
        return row
    if isinstance(row, Failed):
        return Failed(path, row.reason, row.sha256)
    return Embedded(path, row.sha256, row.plan, row.embedding, row.repaired, row.thumb)
