"""The last packs that ran, as sizes alone: what a page draws of them. Has no clock and keeps nothing of a picture."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

from service.metrics import ItemKind

# As many as one looks at.
KEPT_PACKS = 64
# A pack may hold thousands of texts. Of each kind this many are kept one by one, the rest as a number.
_KEPT_ITEMS = 256


class Item(Protocol):
    """What is asked of an image or a text."""

    @property
    def kind(self) -> ItemKind: ...

    @property
    def lengths(self) -> list[int]: ...

    @property
    def tokens(self) -> int: ...

    @property
    def token_cap(self) -> int: ...


@dataclass(frozen=True, slots=True)
class PackReport:
    """One pack that has run.

    images: tokens of each segment of each image. texts: tokens of each text. left_out: images and texts that are not
    among those, because there are too many. tokens: of all images and texts. computed_tokens: by the device, filler
    included. longest_tokens, cap_tokens: what padding all items of a kind to the longest of them, or each to its cap,
    would have computed. ended_s: by `time.monotonic`.
    """

    images: tuple[tuple[int, ...], ...]
    texts: tuple[int, ...]
    left_out: int
    tokens: int
    computed_tokens: int
    longest_tokens: int
    cap_tokens: int
    pack_s: float
    forward_s: float
    ended_s: float

    @classmethod
    def of(
        cls, items: Sequence[Item], *, computed_tokens: int, pack_s: float, forward_s: float, ended_s: float
    ) -> "PackReport":
        images = tuple(tuple(item.lengths) for item in islice(_of_kind(items, "image"), _KEPT_ITEMS))
        texts = tuple(item.tokens for item in islice(_of_kind(items, "text"), _KEPT_ITEMS))
        return cls(
            images,
            texts,
            left_out=len(items) - len(images) - len(texts),
            tokens=sum(item.tokens for item in items),
            computed_tokens=computed_tokens,
            longest_tokens=_padded_to_longest(items, "image") + _padded_to_longest(items, "text"),
            cap_tokens=sum(item.token_cap for item in items),
            pack_s=pack_s,
            forward_s=forward_s,
            ended_s=ended_s,
        )


def _of_kind(items: Sequence[Item], kind: ItemKind) -> Iterator[Item]:
    return (item for item in items if item.kind == kind)


def _padded_to_longest(items: Sequence[Item], kind: ItemKind) -> int:
    """Each kind has a batch of its own."""
    tokens = [item.tokens for item in _of_kind(items, kind)]
    return len(tokens) * max(tokens, default=0)


class PackLog:
    """The last `KEPT_PACKS` packs of one device. One thread adds to it; any thread may read it."""

    def __init__(self) -> None:
        # Replaced as a whole: who reads it sees all of a pack or nothing.
        self._packs: tuple[PackReport, ...] = ()

    def add(self, pack: PackReport) -> None:
        self._packs = (*self._packs[1 - KEPT_PACKS :], pack)

    @property
    def packs(self) -> tuple[PackReport, ...]:
        """The oldest first."""
        return self._packs

    @property
    def last_s(self) -> float:
        """When the newest ended; 0.0 if there is none."""
        return self._packs[-1].ended_s if self._packs else 0.0
