"""What each family does to a text before and after its vocabulary: as the weights were trained.

A rule's name goes into the fingerprint of vectors. Change the name when the same text gets other ids.
"""

import html
import string
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from tokenizers import Regex, normalizers, pre_tokenizers
from tokenizers.normalizers import Normalizer
from tokenizers.pre_tokenizers import PreTokenizer

Cleaning = Literal["transformers", "openai"]
# Contractions, words, single digits, and runs of the rest. Transformers' own also keeps control tokens whole; here a
# control token that someone typed is split like any other text.
_CLIP_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
# open_clip ignores case: its `'s` also matches a long s, and nothing matches U+0345, which is lost.
_OPENAI_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}\x{345}]+"
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True, slots=True)
class TextRule:
    """How a family makes ids of a text.

    clean: runs on the whole text, before it is cut. normalizer, pre_tokenizer: the parts of `tokenizers` that replace
    those of the file; the normalizer gets the file's own. start, end: control tokens put around the pieces. padding: id
    that fills the row on the right up to the context, None where a row ends with its text.
    """

    name: str
    clean: Callable[[str], str]
    normalizer: Callable[[Normalizer | None], Normalizer | None]
    pre_tokenizer: Callable[[], PreTokenizer | None]
    start: str | None
    end: str | None
    padding: int | None


def canonicalize(text: str) -> str:
    """SigLIP 1's: lower case, no ASCII punctuation, single spaces; `SiglipTokenizer.canonicalize_text` of Transformers.

    `_` between two words joins them. A typed U+2581, which the vocabulary has for a space, is a space.
    """
    return " ".join(text.replace("▁", " ").lower().translate(_NO_PUNCTUATION).split())


def _gemma_normalizer(_: Normalizer | None) -> Normalizer:
    return normalizers.Sequence([normalizers.Lowercase(), normalizers.Replace(" ", "▁")])


def _sentencepiece_normalizer(stored: Normalizer | None) -> Normalizer:
    """The file's table of characters, if it has one, then what SentencePiece does to spaces."""
    parts = [stored[i] for i in range(len(stored))] if isinstance(stored, normalizers.Sequence) else [stored]
    table = [part for part in parts if isinstance(part, normalizers.Precompiled)]
    return normalizers.Sequence([*table, normalizers.Replace(Regex(" +"), " "), normalizers.Strip()])


def _clip_normalizer(_: Normalizer | None) -> Normalizer:
    return normalizers.Sequence([normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()])


def _bytes_of_words(words: str) -> PreTokenizer:
    split = pre_tokenizers.Split(Regex(words), behavior="removed", invert=True)
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


SIGLIP2 = TextRule(
    name="siglip2: lower case, eos, padded with 0; 1",
    clean=str,
    normalizer=_gemma_normalizer,
    pre_tokenizer=lambda: None,
    start=None,
    end="<eos>",
    padding=0,
)
SIGLIP1 = TextRule(
    name="siglip: canonicalized, </s>, padded with 1; 1",
    clean=canonicalize,
    normalizer=_sentencepiece_normalizer,
    pre_tokenizer=lambda: pre_tokenizers.Metaspace(prepend_scheme="always"),
    start=None,
    end="</s>",
    padding=1,
)
GEMMA = TextRule(
    name="embedding_gemma2: as its tokenizer; 1",
    clean=str,
    normalizer=lambda _: normalizers.Replace(" ", "▁"),
    pre_tokenizer=lambda: None,
    start="<bos>",
    end="<eos>",
    padding=None,
)
CLIP = TextRule(
    name="clip: NFC, spaces, lower case; 1",
    clean=str,
    normalizer=_clip_normalizer,
    pre_tokenizer=lambda: _bytes_of_words(_CLIP_WORDS),
    start="<|startoftext|>",
    end="<|endoftext|>",
    padding=None,
)


def clip_cleaned_as_openai() -> TextRule:
    """CLIP with the cleaning of OpenAI's own code and open_clip."""
    # Imported late: no other rule needs it.
    import ftfy

    def clean(text: str) -> str:
        unescaped = html.unescape(html.unescape(ftfy.fix_text(text)))
        return " ".join(unescaped.split()).lower()

    return TextRule(
        name="clip: ftfy, html, lower case; 1",
        clean=clean,
        normalizer=lambda _: None,
        pre_tokenizer=lambda: _bytes_of_words(_OPENAI_WORDS),
        start=CLIP.start,
        end=CLIP.end,
        padding=None,
    )
