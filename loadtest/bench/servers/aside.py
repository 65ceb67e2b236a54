"""A child process of the bench that answers questions over a pipe."""

import multiprocessing
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self


class Aside:
    """Use as a context manager: entering starts the process, leaving kills it."""

    def __init__(self, serve: Callable[..., None], *arguments: object) -> None:
        """serve: a module's function, called in the child with its end of the pipe and `arguments`."""
        self._serve, self._arguments = serve, arguments

    def __enter__(self) -> Self:
        # A fork would copy locks that torch's threads hold, without the threads.
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
        """The next answer. Raises `EOFError` if the process has ended."""
        return self._end.recv()

    def ask(self, question: object) -> Any:
        self._end.send(question)
        return self.told()
