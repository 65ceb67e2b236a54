"""Turns texts into token ids in a thread, off the event loop."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import TYPE_CHECKING, Self

from model.errors import TextError
from model.texts.tokens import TextTokens
from model.threads import ThreadPool
from service.limits import ModelFacts
from service.loading import tokenizer_of
from service.settings.settings import Settings

if TYPE_CHECKING:
    from model.texts.tokenizer import TextTokenizer

# A step of the thread takes at most so many texts, and ends once it has so many characters or ids. A request of
# thousands leaves room for others between steps.
_TEXTS_A_STEP = 64
_CHARACTERS_A_STEP = 65_536


class TextReader:
    """Reads the texts of requests, one step after another."""

    def __init__(self, tokenizer: "TextTokenizer") -> None:
        self._tokenizer = tokenizer
        self._thread = ThreadPool(1, "text")
        self._bulk = asyncio.Semaphore()

    @classmethod
    def of(cls, settings: Settings, model: ModelFacts) -> Self | None:
        """None for a model without text. Raises `CheckpointError`."""
        return None if model.text is None else cls(tokenizer_of(settings, model.text))

    async def read(
        self, texts: Sequence[str | list[int]], *, truncate: bool, prompt: str = ""
    ) -> list[TextTokens | TextError]:
        """The tokens of each text, or of its ids, in order; or why there are none. truncate: cut what is too long.

        prompt: stands before each text, but not before ids.
        """
        if prompt:
            texts = [prompt + text if isinstance(text, str) else text for text in texts]
        loop = asyncio.get_running_loop()
        read: list[TextTokens | TextError] = []
        for step in _steps(texts):
            read += await loop.run_in_executor(self._thread, self._read, step, truncate)
        return read

    async def read_parts(
        self, texts: Sequence[str], *, beside: int, truncate: bool
    ) -> tuple[list[list[int]], bool] | TextError:
        """As `TextTokenizer.encode_parts`, or why there are none."""

        def read() -> tuple[list[list[int]], bool] | TextError:
            try:
                return self._tokenizer.encode_parts(texts, beside=beside, truncate=truncate)
            except TextError as error:
                return error

        return await asyncio.get_running_loop().run_in_executor(self._thread, read)

    @property
    def context(self) -> int:
        """Most ids of a text."""
        return self._tokenizer.context

    def turn(self, *, bulk: bool) -> AbstractAsyncContextManager[None]:
        """Within which a request may ask for the ids of its texts: one of bulk at a time, so that an interactive one
        waits for a step of one request."""
        return self._bulk if bulk else nullcontext()

    async def pieces(self, ids: Sequence[int]) -> list[str]:
        """The vocabulary's word for each id. Raises `TextError` for an id that it lacks."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._tokenizer.pieces, ids)

    async def text(self, ids: Sequence[int]) -> str:
        """The text that has these ids. Raises `TextError` for an id that the vocabulary lacks."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._tokenizer.decode, ids)

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _read(self, texts: Sequence[str | list[int]], truncate: bool) -> list[TextTokens | TextError]:
        read: list[TextTokens | TextError] = []
        for text in texts:
            try:
                encode = self._tokenizer.encode if isinstance(text, str) else self._tokenizer.encode_ids
                read.append(encode(text, truncate=truncate))  # type: ignore[arg-type]
            except TextError as error:
                read.append(error)
        return read


def _steps(texts: Sequence[str | list[int]]) -> Iterator[Sequence[str | list[int]]]:
    start = characters = 0
    for end, text in enumerate(texts, start=1):
        characters += len(text)
        if end - start == _TEXTS_A_STEP or characters >= _CHARACTERS_A_STEP or end == len(texts):
            yield texts[start:end]
            start, characters = end, 0
