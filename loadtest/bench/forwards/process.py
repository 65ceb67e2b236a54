"""A contender as its parent sees it: a process that repeats one kind of forward on request.

The other end is `answer_rounds` in `rounds`.
"""

import json
import statistics
import subprocess
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


class ContenderEnded(RuntimeError):
    """What it wrote on standard error says why."""


class Contender:
    """A process that runs one kind of forward on request."""

    def __init__(self, process: "subprocess.Popen[str]", answer: Path) -> None:
        self._process = process
        self._answer = answer
        self.seconds: list[float] = []
        # Contenders of older checkouts do not say it.
        self.computed_rows = int(self._line().get("computed_rows", 0))

    def run(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        self.seconds.append(self._read("seconds"))

    def finish(self) -> float:
        """Ends the process. Returns the bytes by which forwards raised its memory."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        return self._read("peak_bytes")

    @property
    def pooled(self) -> NDArray[np.float32]:
        pooled: NDArray[np.float32] = np.load(self._answer)
        return pooled

    @property
    def median_s(self) -> float:
        return statistics.median(self.seconds)

    def _read(self, key: str) -> float:
        return float(self._line()[key])

    def _line(self) -> dict[str, float]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            # Other makers' libraries write there too.
            if line.startswith("{"):
                said: dict[str, float] = json.loads(line)
                return said
        raise ContenderEnded("a contender ended before it answered")


@contextmanager
def started(command: Sequence[str], environment: Mapping[str, str], answer: Path) -> Iterator[Contender]:
    """answer: the file to which the contender writes the vectors of its first forward. It ends with the block.

    Raises `ContenderEnded` if it cannot start."""
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment) as process:
        try:
            yield Contender(process, answer)
        finally:
            process.kill()


def in_turn(contenders: Collection[Contender], number: int) -> Sequence[Contender]:
    """In alternating order, so that none always runs first."""
    listed = list(contenders)
    return listed[::-1] if number % 2 else listed


def least_cosine(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> float:
    norms = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    return float(((ours * theirs).sum(axis=1) / norms).min())
