"""The last packs that ran, as sizes alone: what a page draws of them. Has no clock and keeps nothing of a picture."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

from service.metrics import PackItem

# As many as one looks at.
KEPT_PACKS = 64
# A pack may hold thousands of texts. This many of each kind are kept one by one, the rest as a number.
_KEPT_ITEMS = 256


@dataclass(frozen=True, slots=True)
class PackReport:
    """One pack that has run.

    images: tokens of each segment of each image. texts: tokens of each text. left_out: images and texts that are not
    among those, because there are too many. tokens: of all images and texts. computed_tokens: by the device, filler
    included. longest_tokens, cap_tokens: what padding all items of a kind to the longest of them, or each to its cap,
    would have computed. ended_s: by `time.monotonic`. id: no other pack of the server has it.
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
    id: str

    @classmethod
    def of(
        cls,
        items: Sequence[PackItem],
        lengths: Iterable[Sequence[int]],
        *,
        id: str,
        computed_tokens: int,
        pack_s: float,
        forward_s: float,
        ended_s: float,
    ) -> "PackReport":
        """lengths: tokens of each segment, for each of the images among the items. Only the first of them are read."""
        images = [item.tokens for item in items if item.kind == "image"]
        texts = [item.tokens for item in items if item.kind == "text"]
        kept_images = tuple(tuple(own) for own in islice(lengths, min(len(images), _KEPT_ITEMS)))
        kept_texts = tuple(texts[:_KEPT_ITEMS])
        return cls(
            kept_images,
            kept_texts,
            left_out=len(items) - len(kept_images) - len(kept_texts),
            tokens=sum(images) + sum(texts),
            computed_tokens=computed_tokens,
            # Each kind has a batch of its own.
            longest_tokens=sum(len(kind) * max(kind, default=0) for kind in (images, texts)),
            cap_tokens=sum([item.token_cap for item in items]),
            pack_s=pack_s,
            forward_s=forward_s,
            ended_s=ended_s,
            id=id,
        )


class PackLog:
    """The last `KEPT_PACKS` packs of one device. One thread adds to it; any thread may read it."""

    def __init__(self) -> None:
        # Replaced as a whole: a reader sees all of a pack or nothing.
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
