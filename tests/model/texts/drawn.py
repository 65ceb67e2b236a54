"""Random texts: words that the vocabularies know, beside any character of Unicode."""

from collections.abc import Collection, Iterator
from functools import cache
from random import Random
from typing import Literal
from unicodedata import category

from hypothesis import strategies as st

# Ends of ASCII, of what two bytes of UTF-8 hold, of symbols, of the first plane and of all.
_BLOCKS = (0x80, 0x800, 0x3000, 0x10000, 0x110000)
CONTROL = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "</s>", "<|startoftext|>", "<|endoftext|>"]
_WORDS = (
    ["a photo", "The", "packs", "It's", "we'LL", "ΣΑΣ", "İI", "e\u0301", "“quoted”", "<table>", "snake_case", "3.14",
     "语彙", "😀", "\n", "\n\n\n", "  ", "\t", "\u3000", "▁", "&amp;", "ﬁne", "Ｗｉｄｅ", "\0", "'s", "x" * 70]
)  # fmt: skip
# A surrogate alone is not text.
NO_TEXT: tuple[Literal["Cs"], ...] = ("Cs",)
CHARACTERS = st.characters(exclude_categories=NO_TEXT)
# Those that Python's version of Unicode lacks. Libraries of a later one know more letters.
UNASSIGNED: tuple[Literal["Cs", "Cn"], ...] = ("Cs", "Cn")
ASSIGNED = st.characters(exclude_categories=UNASSIGNED)


def texts(characters: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Without control tokens."""
    parts = st.sampled_from(_WORDS) | st.text(characters, max_size=8) | st.just(" ")
    joined = st.lists(parts, max_size=24).map("".join)
    return joined.filter(lambda text: not _has_control(text))


def _has_control(text: str) -> bool:
    return any(token in text for token in CONTROL)


def thousands_of_texts(count: int, *, without: Collection[str]) -> Iterator[str]:
    """As `texts`, for tests of thousands: hypothesis takes longer to draw one than it takes to encode it.

    without: categories of characters.
    """
    random = Random(0)

    def character() -> str:
        while category(found := chr(random.randrange(random.choice(_BLOCKS)))) in without:
            pass
        return found

    def part() -> str:
        some = "".join(character() for _ in range(random.randint(0, 8)))
        return random.choice((random.choice(_WORDS), some, " "))

    for _ in range(count):
        text = "".join(part() for _ in range(random.randint(0, 24)))
        if not _has_control(text):
            yield text


TEXTS = texts(CHARACTERS)


@cache
def every_plane() -> list[str]:
    """Texts that together hold every character that Unicode names, and the first and last places of each plane."""
    edges = {plane + edge for plane in range(0, 0x110000, 0x10000) for edge in (0, 0xFFFF)}
    named = (code for code in range(0x110000) if code in edges or category(chr(code)) not in ("Cn", "Co", "Cs"))
    characters = "".join(map(chr, named))
    return [characters[start : start + 512] for start in range(0, len(characters), 512)]
