"""How much of a source is held at once: pure policy. Counts bytes and pictures, and knows neither."""


class Window:
    """Room for pictures between the source and the file.

    A picture takes room for the bytes of its file and for the most rows that may come of it. What it takes only
    shrinks: as soon as its plan is known, once its file is decoded, once its pack has run. So `held_bytes` is at most
    `max_bytes`, whatever the order in which pictures get ahead; a picture that is larger than that has the window to
    itself. A picture counts until its row is written, since rows leave in order.
    """

    def __init__(self, *, max_bytes: int, max_pictures: int) -> None:
        self._max_bytes, self._max_pictures = max_bytes, max_pictures
        self.held_bytes = self.pictures = 0

    def has_room(self, size_bytes: int) -> bool:
        """Whether a picture of this size may enter now. Any may enter if no bytes are held."""
        fits = self.held_bytes + size_bytes <= self._max_bytes or not self.held_bytes
        return fits and self.pictures < self._max_pictures

    def enter(self, size_bytes: int) -> None:
        self.held_bytes += size_bytes
        self.pictures += 1

    def free(self, size_bytes: int) -> None:
        """So many bytes of a picture in here are no longer held."""
        self.held_bytes -= size_bytes
        assert self.held_bytes >= 0

    def leave(self) -> None:
        """A picture that holds no bytes any more is written."""
        self.pictures -= 1
        assert self.pictures >= 0
