"""What every source of pictures is."""

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Protocol

from service.jobs.rows import Picture


class Source(Protocol):
    """Pictures in an order that stays the same while nothing is changed.

    A picture that is known to be there and cannot be read is among them, with its `error`.
    """

    @property
    def total(self) -> int | None:
        """How many there are, if that is known before the last one."""
        ...

    def __iter__(self) -> Iterator[Picture]: ...


class Joined:
    """Several sources, one after another."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self.sources = sources

    @property
    def total(self) -> int | None:
        totals = [source.total for source in self.sources]
        return None if None in totals else sum(total for total in totals if total is not None)

    def __iter__(self) -> Iterator[Picture]:
        return chain.from_iterable(self.sources)
