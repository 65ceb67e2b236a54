"""Texts become ids in one thread, a step at a time, so that requests take turns."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from model.errors import TextTooLong
from model.texts.read import read_tokenizer
from model.texts.tokens import TextTokens
from service.requests.text_reader import TextReader
from tests.vocabularies import write_gemma


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TextReader]:
    folder: Path = write_gemma(tmp_path_factory.mktemp("gemma"))
    made = TextReader(read_tokenizer(folder, family="siglip2", context=64, vocabulary=10_000, max_chars=5000))
    yield made
    made.close()


@pytest.mark.parametrize("text", ["ab" * 2500, [3] * 5000])
def test_a_short_text_overtakes_long_texts_of_another_request(reader: TextReader, text: str | list[int]) -> None:
    async def main() -> list[str]:
        ended: list[str] = []

        async def read(name: str, texts: list[str | list[int]]) -> None:
            await reader.read(texts, truncate=True)
            ended.append(name)

        await asyncio.gather(read("long", [text] * 64), read("short", ["a cat"]))
        return ended

    assert asyncio.run(main()) == ["short", "long"]


@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 200])
def test_every_text_is_read_once_and_in_order(reader: TextReader, count: int) -> None:
    texts = [f"{number} cats" * (1 + number % 7) for number in range(count)]
    texts[count // 2 : count // 2 + 1] = ["a" * 5001] * bool(count)
    alone = [asyncio.run(reader.read([text], truncate=True))[0] for text in texts]
    together = asyncio.run(reader.read(texts, truncate=True))
    assert [shown(each) for each in together] == [shown(each) for each in alone]


def shown(read: TextTokens | Exception) -> object:
    return read.ids.tolist() if isinstance(read, TextTokens) else isinstance(read, TextTooLong)
