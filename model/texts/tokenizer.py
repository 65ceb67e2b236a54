"""A text in, the int32 ids of a text tower out. Knows no file and no family."""

from collections.abc import Sequence

import numpy as np
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel

from model.errors import TextTooLong, UnreadableText
from model.texts.rules import TextRule
from model.texts.tokens import TextTokens

# Characters that are looked at first for each id that is kept. English takes four.
_CHARACTERS_AN_ID = 16
# Longer texts are tokenized without the interpreter's lock: `encode` keeps it, for 100 ms of 32,768 Chinese characters.
# Shorter ones take about a millisecond, and letting the lock go would cost them more than it gives.
_SHORT_CHARS = 2048


class TextTokenizer:
    """The rule of a family over a vocabulary. Threads share it: nothing in it changes after it is made.

    context: most ids of a row. preprocessing: the rule's name, for fingerprints. max_chars: longer texts are refused,
    because the whole of a text without spaces is read.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        rule: TextRule,
        *,
        context: int,
        vocabulary: int,
        max_chars: int,
        words_apart: bool,
    ) -> None:
        """tokenizer: set up for the rule. vocabulary: ids are below it. words_apart: no id ever covers the end of one
        word and the start of the next, so that the words up to some space have the same ids whatever follows."""
        self.context = context
        self.max_chars = max_chars
        self._vocabulary = vocabulary
        self.preprocessing = rule.name
        self._tokenizer = tokenizer
        self._clean = rule.clean
        self._words_apart = words_apart
        self._start = [] if rule.start is None else [tokenizer.token_to_id(rule.start)]
        self._end = [] if rule.end is None else [tokenizer.token_to_id(rule.end)]
        self._padding = rule.padding

    def encode(self, text: str, *, truncate: bool = True) -> TextTokens:
        """truncate: cut a text with more than `context` ids, and keep its end token.

        Raises `UnreadableText` for half a surrogate pair, and `TextTooLong`.
        """
        self._refuse_length(text)
        _refuse_surrogates(text)
        cleaned = self._clean(text)
        return self._tokens(self._first_pieces(cleaned, self._room) if truncate else self._pieces(cleaned), truncate)

    def encode_ids(self, ids: Sequence[int], *, truncate: bool = True) -> TextTokens:
        """The same for a text whose ids the caller has, with or without the control tokens around them.

        Raises `UnreadableText` for an id that the vocabulary lacks, and `TextTooLong`.
        """
        self._refuse_unknown(ids)
        pieces = list(ids[len(self._start) :] if list(ids[: len(self._start)]) == self._start else ids)
        if self._end and self._end[0] in pieces:
            pieces = pieces[: pieces.index(self._end[0])]
        return self._tokens(pieces, truncate)

    def encode_parts(self, texts: Sequence[str], *, beside: int, truncate: bool = True) -> tuple[list[list[int]], bool]:
        """The ids of texts that stand in one row, without control tokens, and whether any was cut.

        beside: control tokens that the row has besides those of a text alone. Raises as `encode`, by the whole row.
        """
        self._refuse_length("".join(texts))
        room, cut, parts = max(0, self._room - beside), False, []
        for text in texts:
            _refuse_surrogates(text)
            pieces = self._first_pieces(self._clean(text), room + 1) if truncate else self._pieces(self._clean(text))
            parts.append(pieces[:room])
            cut |= len(pieces) > room
            room = max(0, room - len(pieces))
        if cut and not truncate:
            raise TextTooLong(f"the texts of the input have too many tokens; this model takes {self.context}")
        return parts, cut

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """The vocabulary's word for each id, empty for one that it leaves unused. Raises `UnreadableText`."""
        self._refuse_unknown(ids)
        return [self._tokenizer.id_to_token(id) or "" for id in ids]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, with control tokens by their names. Raises `UnreadableText`."""
        words = self.pieces(ids)
        if suffix := getattr(self._tokenizer.model, "end_of_word_suffix", None):
            # CLIP's vocabulary marks the end of a word, which the library leaves in the text.
            return ByteLevel().decode(words).replace(suffix, " ")
        return self._tokenizer.decode(ids, skip_special_tokens=False)

    @property
    def _room(self) -> int:
        """Ids of a text that fit between the control tokens."""
        return self.context - len(self._start) - len(self._end)

    def _tokens(self, pieces: list[int], truncate: bool) -> TextTokens:
        room = self._room
        if len(pieces) > room and not truncate:
            tokens = len(pieces) + self.context - room
            raise TextTooLong(f"the text has {tokens} tokens; this model takes {self.context}")
        ids = [*self._start, *pieces[:room], *self._end]
        padding = [] if self._padding is None else [self._padding] * (self.context - len(ids))
        return TextTokens(np.array(ids + padding, np.int32), tokens=len(ids), truncated=len(pieces) > room)

    def _refuse_unknown(self, ids: Sequence[int]) -> None:
        if unknown := [id for id in ids if not 0 <= id < self._vocabulary]:
            raise UnreadableText(f"the vocabulary has no token {unknown[0]}; ids are from 0 to {self._vocabulary - 1}")

    def _refuse_length(self, text: str) -> None:
        if len(text) > self.max_chars:
            raise TextTooLong(f"the text has {len(text)} characters; the limit is {self.max_chars} (max_text_chars)")

    def _first_pieces(self, text: str, room: int) -> list[int]:
        """Ids of the text, or of as many first words as have more than `room`: the first `room` are the same."""
        end = room * _CHARACTERS_AN_ID
        while self._words_apart and end < len(text):
            pieces = self._pieces(_whole_words(text, end))
            if len(pieces) > room:
                return pieces
            end *= 4
        return self._pieces(text)

    def _pieces(self, text: str) -> list[int]:
        if len(text) <= _SHORT_CHARS:
            return self._tokenizer.encode(text, add_special_tokens=False).ids
        return self._tokenizer.encode_batch_fast([text], add_special_tokens=False)[0].ids


def _whole_words(text: str, end: int) -> str:
    """The words of a text that end before `end` and are followed by a space; empty where that is not certain."""
    words = text[:end].rpartition(" ")[0].rstrip(" ")
    # Vocabularies write a space as U+2581: one that was typed may become one with the space after it.
    return "" if words.endswith("▁") else words


def _refuse_surrogates(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        raise UnreadableText(
            f"character {error.start} of the text is U+{code:04X}, half of a surrogate pair: "
            "the text was cut inside a character, or is not Unicode"
        ) from None
