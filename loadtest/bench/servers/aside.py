"""A process of the bench's own beside it, which is asked and answers over a pipe."""

import multiprocessing
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self


class Aside:
    """Use as a context manager: it starts with that, and is killed with its end."""

    def __init__(self, serve: Callable[..., None], *arguments: object) -> None:
        """serve: a function of a module, called there with its end of the pipe and `arguments`."""
        self._serve, self._arguments = serve, arguments

    def __enter__(self) -> Self:
        # Not a fork: threads of torch and locks that they hold would not be in it.
        context = multiprocessing.get_context("spawn")
        self._end, theirs = context.Pipe()
        self._process = context.Process(target=self._serve, args=(theirs, *self._arguments), daemon=True)
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.join()

    def told(self) -> Any:
        """What it says next. Raises `EOFError` where it has ended."""
        return self._end.recv()

    def ask(self, question: object) -> Any:
        self._end.send(question)
        return self.told()
