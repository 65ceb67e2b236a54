"""How far a run is: a bar on a terminal, a line now and then in a pipe or a log."""

import sys
import time
from collections.abc import Callable
from typing import Self

from tqdm import tqdm

from service.jobs.packs import PackCount
from service.jobs.rows import Embedded, Failed, Row
from service.names import one_line

LINE_EVERY_S = 30.0


class Progress:
    """Counts rows, prints each failure as it is met, and says how far the run is."""

    def __init__(
        self,
        total: int | None,
        count: PackCount,
        *,
        clock: Callable[[], float] = time.monotonic,
        line_every_s: float = LINE_EVERY_S,
    ) -> None:
        """total: pictures, None if not known. count: of packs, which somebody else keeps up to date."""
        self.rows = self.failed = self.tokens = 0
        self._total, self._count, self._clock, self._line_every_s = total, count, clock, line_every_s
        self._began_s = self._said_s = clock()
        self._bar = tqdm(total=total, unit="image", disable=not sys.stderr.isatty(), dynamic_ncols=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    @property
    def seconds(self) -> float:
        return max(self._clock() - self._began_s, 1e-9)

    def add(self, row: Row) -> None:
        self.rows += 1
        if isinstance(row, Embedded):
            self.tokens += row.plan.tokens
        else:
            self._fail(row)
        self._bar.update()
        if self._clock() - self._said_s >= self._line_every_s:
            self._said_s = self._clock()
            self._say()

    def _fail(self, row: Failed) -> None:
        self.failed += 1
        self._bar.write(f"{one_line(row.path)}: {row.reason}", file=sys.stderr)

    def _say(self) -> None:
        if self._bar.disable:
            sys.stderr.write(f"{self.line()}\n")
            sys.stderr.flush()
        else:
            self._bar.set_postfix_str(f"{self.tokens / self.seconds:,.0f} tokens/s, {self._packing()}")

    def line(self) -> str:
        """`1,200 of 20,000 images, 41.5/s, 10,300 tokens/s, packs 98% full, padding waste 0.1%, 8 min left`"""
        rate = self.rows / self.seconds
        of = "" if self._total is None else f" of {self._total:,}"
        parts = [f"{self.rows:,}{of} images", f"{rate:.1f}/s", f"{self.tokens / self.seconds:,.0f} tokens/s"]
        parts.append(self._packing())
        if self._total is not None and rate:
            parts.append(f"{_duration((self._total - self.rows) / rate)} left")
        if self.failed:
            parts.append(f"{self.failed:,} failed")
        return ", ".join(parts)

    def _packing(self) -> str:
        return f"packs {self._count.fill:.0%} full, padding waste {self._count.padding_waste:.1%}"


def _duration(seconds: float) -> str:
    """`50 s`, `8 min`, `2 h 5 min`."""
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
