"""What every kind of file does with rows, and how one appears whole."""

import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Self

from service.jobs.rows import Row, TextVector


class Sink(ABC):
    """A file that rows are written to, in their order. Every method may raise `OSError`.

    As a context it puts the file in its place when it is left without an error, and leaves nothing behind otherwise.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        # What a killed job has left of it is overwritten.
        self.partial = path.with_name(f".{path.name}.partial")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        try:
            if kind is None:
                self.finish()
                self._replace()
            else:
                self.abandon()
        finally:
            self._clear()

    @abstractmethod
    def add(self, row: Row) -> None: ...

    def add_text(self, text: TextVector) -> None:
        """Texts come after all rows."""
        raise NotImplementedError("tables hold pictures")

    @abstractmethod
    def finish(self) -> None:
        """Writes what is left to the partial file, and closes it."""

    @abstractmethod
    def abandon(self) -> None:
        """Closes the partial file."""

    def _replace(self) -> None:
        # A machine that loses power must not be left with the name and no content: the ledger is removed next.
        with self.partial.open("rb") as file:
            os.fsync(file.fileno())
        self.partial.replace(self.path)

    def _clear(self) -> None:
        self.partial.unlink(missing_ok=True)
