"""What is left of a pack while it is filled, by how the pack will be laid out: pure integers."""

from typing import Protocol

from model.pack import LayoutName


class Image(Protocol):
    """tokens: of all its segments; longest: of the longest of them. alone: it takes all there is."""

    @property
    def tokens(self) -> int: ...
    @property
    def segments(self) -> int: ...
    @property
    def longest(self) -> int: ...
    @property
    def alone(self) -> bool: ...


class Room(Protocol):
    """Room for tokens, padding among them. Whatever fits beside some images fits beside fewer of them, and any image
    fits where there is none.

    taken: tokens that the device would go through. full: not one token more fits.
    """

    @property
    def taken(self) -> int: ...

    @property
    def full(self) -> bool: ...

    def take(self, image: Image) -> bool:
        """Takes the image in, if it fits."""
        ...


class PackedRoom:
    """Each image takes its tokens."""

    def __init__(self, most: int, *, most_images: int | None = None) -> None:
        """most_images: None for as many as there are tokens for."""
        self._most = most
        self._most_images = most_images
        self._taken = self._images = 0

    @property
    def taken(self) -> int:
        return self._taken

    @property
    def full(self) -> bool:
        return self._taken >= self._most or self._images == self._most_images

    def take(self, image: Image) -> bool:
        taken = self._most if image.alone else image.tokens
        fits = not self._taken or not (self.full or self._taken + taken > self._most)
        self._taken += taken if fits else 0
        self._images += fits
        return fits


class PaddedRoom:
    """Segments are padded to the longest: an image may make those longer that are there already."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._segments = self._longest = 0
        self._closed = False

    @property
    def taken(self) -> int:
        return self._segments * self._longest

    @property
    def full(self) -> bool:
        return self._closed or (self._segments + 1) * self._longest > self._most

    def take(self, image: Image) -> bool:
        segments, longest = self._segments + image.segments, max(self._longest, image.longest)
        fits = not self._segments or not (self._closed or image.alone or segments * longest > self._most)
        if fits:
            self._segments, self._longest, self._closed = segments, longest, image.alone
        return fits


def room(most: int, layout: LayoutName, *, most_images: int | None = None) -> Room:
    """An empty pack. most_images: of a packed one."""
    return PaddedRoom(most) if layout == "padded" else PackedRoom(most, most_images=most_images)
