"""Texts that hypothesis draws: words that the vocabularies know, beside any character of Unicode."""

from functools import cache
from unicodedata import category

from hypothesis import strategies as st

CONTROL = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "</s>", "<|startoftext|>", "<|endoftext|>"]
_WORDS = st.sampled_from(
    ["a photo", "The", "packs", "It's", "we'LL", "ΣΑΣ", "İI", "e\u0301", "“quoted”", "<table>", "snake_case", "3.14",
     "语彙", "😀", "\n", "\n\n\n", "  ", "\t", "\u3000", "▁", "&amp;", "ﬁne", "Ｗｉｄｅ", "\0", "'s", "x" * 70]
)  # fmt: skip
# A surrogate alone is not text.
CHARACTERS = st.characters(exclude_categories=["Cs"])
# Those that Python's version of Unicode has. Libraries of a later one know more letters.
ASSIGNED = st.characters(exclude_categories=["Cs", "Cn"])


def texts(characters: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Without control tokens."""
    parts = _WORDS | st.text(characters, max_size=8) | st.just(" ")
    joined = st.lists(parts, max_size=24).map("".join)
    return joined.filter(lambda text: not any(token in text for token in CONTROL))


TEXTS = texts(CHARACTERS)


@cache
def every_plane() -> list[str]:
    """Texts that together hold every character that Unicode names, and the first and last places of each plane."""
    edges = {plane + edge for plane in range(0, 0x110000, 0x10000) for edge in (0, 0xFFFF)}
    named = (code for code in range(0x110000) if code in edges or category(chr(code)) not in ("Cn", "Co", "Cs"))
    characters = "".join(map(chr, named))
    return [characters[start : start + 512] for start in range(0, len(characters), 512)]
