"""Turns texts into token ids in a thread, off the event loop."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Self

from model.errors import TextError
from model.texts.tokenizer import TextTokenizer, TextTokens
from service.limits import ModelFacts
from service.loading import tokenizer_of
from service.settings import Settings

# Texts of one step of a thread, so that a request of thousands leaves room for others between steps.
_TEXTS_A_STEP = 64


class TextReader:
    """Reads the texts of requests, one step after another."""

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self._tokenizer = tokenizer
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="text")

    @classmethod
    def of(cls, settings: Settings, model: ModelFacts) -> Self | None:
        """None for a model without text. Raises `CheckpointError`."""
        return None if model.text is None else cls(tokenizer_of(settings, model.text))

    async def read(self, texts: Sequence[str | list[int]], *, truncate: bool) -> list[TextTokens | TextError]:
        """The tokens of each text, or of its ids, in order; or why there are none. truncate: cut what is too long."""
        loop = asyncio.get_running_loop()
        read: list[TextTokens | TextError] = []
        for start in range(0, len(texts), _TEXTS_A_STEP):
            step = texts[start : start + _TEXTS_A_STEP]
            read += await loop.run_in_executor(self._thread, self._read, step, truncate)
        return read

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
