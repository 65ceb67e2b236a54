"""What a tokenizer does with a text of any length: pads, cuts, refuses, and shares itself between threads."""

import sys
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import AutoTokenizer, CLIPTokenizer

from model.errors import TextTooLong, UnreadableText
from model.texts.read import Family, read_tokenizer
from model.texts.tokenizer import TextTokenizer, _whole_words
from tests.examples import PART, many
from tests.model.texts.drawn import CHARACTERS, TEXTS
from tests.vocabularies import write_clip, write_gemma, write_unigram

CONTEXT: dict[Family, int] = {"siglip2": 64, "siglip": 64, "clip": 77}
FAMILIES = sorted(CONTEXT)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[Family, Path]:
    folder = tmp_path_factory.mktemp("families")
    return {
        "siglip2": write_gemma(folder / "siglip2"),
        "siglip": write_unigram(folder / "siglip"),
        "clip": write_clip(folder / "clip"),
    }


@pytest.fixture(scope="module")
def tokenizers(folders) -> dict[Family, TextTokenizer]:
    return {family: read(folders[family], family) for family in FAMILIES}


@pytest.fixture(scope="module")
def wide(folders) -> dict[Family, TextTokenizer]:
    """With room for the whole of any text here."""
    return {family: read(folders[family], family, context=61_000) for family in FAMILIES}


def read(folder: Path, family: Family, *, context: int = 0, max_chars: int = 100_000) -> TextTokenizer:
    context = context or CONTEXT[family]
    return read_tokenizer(folder, family=family, context=context, vocabulary=10_000, max_chars=max_chars)


@pytest.mark.parametrize("text", ["", "A Red bicycle.", "the packs of a batch " * 40])
def test_rows_of_siglip_2_are_those_of_transformers_padded_to_64(folders, tokenizers, text):
    reference = AutoTokenizer.from_pretrained(folders["siglip2"])
    expected = reference(text, padding="max_length", truncation=True, max_length=64)["input_ids"]
    row = tokenizers["siglip2"].encode(text).ids
    assert row.dtype == np.int32
    assert row.tolist() == expected


@pytest.mark.parametrize("text", ["", "A Red bicycle.", "the packs of a batch " * 40])
def test_rows_of_clip_are_those_of_transformers_without_padding(folders, tokenizers, text):
    reference = CLIPTokenizer.from_pretrained(folders["clip"])
    row = tokenizers["clip"].encode(text).ids
    assert row.dtype == np.int32
    assert row.tolist() == reference(text, truncation=True, max_length=77)["input_ids"]


@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_count_what_is_not_padding_and_the_end_stays_when_a_text_is_cut(tokenizers, family):
    tokenizer = tokenizers[family]
    whole, cut = tokenizer.encode("packs"), tokenizer.encode("packs of tokens " * 100)
    assert not whole.truncated
    assert whole.tokens < 12
    assert cut.truncated
    assert cut.tokens == len(cut.ids) == tokenizer.context
    assert cut.ids[-1] == whole.ids[whole.tokens - 1]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_text_that_just_fits_is_not_cut(folders, family):
    whole = read(folders[family], family, context=1000).encode("packs of tokens " * 8)
    exact = read(folders[family], family, context=whole.tokens).encode("packs of tokens " * 8, truncate=False)
    assert not exact.truncated
    assert exact.ids.tolist() == whole.ids[: whole.tokens].tolist()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_text_that_may_not_be_cut_is_refused_with_its_tokens_and_the_limit(folders, tokenizers, family):
    text = "packs of tokens " * 100
    tokens = read(folders[family], family, context=10_000).encode(text).tokens
    with pytest.raises(TextTooLong, match=f"the text has {tokens} tokens; this model takes {CONTEXT[family]}"):
        tokenizers[family].encode(text, truncate=False)


LONG_TEXTS = st.lists(TEXTS | st.text(CHARACTERS) | st.sampled_from([" ", "▁", "'"]), min_size=1).map("".join)


@pytest.mark.parametrize("family", FAMILIES)
@many(200)
@given(text=LONG_TEXTS, end=st.integers(1, 400))
@example(text="the packs of tokens▁ of the packs", end=21)
@example(text="the packs of tokens▁▁  of the packs", end=23)
@example(text="the packs of tokens", end=16)
@example(text="e \u0301 e\u0301", end=6)
@example(text="ΑΣ ' s 's", end=5)
def test_words_have_the_same_ids_whatever_follows_them(tokenizers, family, text, end):
    tokenizer = tokenizers[family]
    cleaned = tokenizer._clean(text)
    first = tokenizer._pieces(_whole_words(cleaned, end))
    assert tokenizer._pieces(cleaned)[: len(first)] == first


@pytest.mark.parametrize("family", FAMILIES)
@many(50)
@given(text=LONG_TEXTS, repeat=st.integers(1, 99))
@example(text="x" * 3000, repeat=1)
@example(text="▁ ", repeat=900)
@example(text="x" * 900 + " the packs" + " " * 500, repeat=3)
def test_a_cut_text_has_the_first_ids_of_the_whole(wide, tokenizers, family, text, repeat):
    text = (text * repeat)[:20_000]
    whole = wide[family].encode(text)
    cut = tokenizers[family].encode(text)
    assert cut.truncated == (whole.tokens > CONTEXT[family])
    kept = cut.tokens - 1
    assert cut.ids[:kept].tolist() == whole.ids[:kept].tolist()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("text", ["", "A photo.", "packs of tokens " * 50])
def test_ids_that_a_caller_sends_give_the_row_of_their_text_with_and_without_control_tokens(
    folders, tokenizers, family, text
):
    expected = tokenizers[family].encode(text)
    wide = read(folders[family], family, context=1000).encode(text)
    whole = [int(id) for id in wide.ids[: wide.tokens]]
    start = 1 if family == "clip" else 0
    for ids in (whole, whole[start:-1], [int(id) for id in wide.ids]):
        tokens = tokenizers[family].encode_ids(ids)
        assert tokens.ids.tolist() == expected.ids.tolist()
        assert (tokens.tokens, tokens.truncated) == (expected.tokens, expected.truncated)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("unknown", [-1, 10_000])
def test_an_id_that_the_vocabulary_lacks_is_refused_and_named(tokenizers, family, unknown):
    with pytest.raises(UnreadableText, match=f"no token {unknown}; ids are from 0 to 9999"):
        tokenizers[family].encode_ids([5, unknown])


class Counting:
    """A tokenizer that notes how much it is given."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.characters = 0

    def encode(self, text: str, add_special_tokens: bool) -> object:
        self.characters += len(text)
        return self._tokenizer.encode(text, add_special_tokens=add_special_tokens)


@pytest.mark.parametrize("family", FAMILIES)
def test_of_a_long_text_only_the_first_words_are_read(folders, family):
    tokenizer = read(folders[family], family)
    counting = tokenizer._tokenizer = Counting(tokenizer._tokenizer)  # type: ignore[assignment]
    tokenizer.encode("packs of tokens " * 6000)
    assert counting.characters < 1300


@pytest.mark.parametrize("family", FAMILIES)
def test_more_characters_than_the_limit_are_refused(folders, family):
    tokenizer = read(folders[family], family, max_chars=100)
    assert tokenizer.encode("é" * 100)
    with pytest.raises(TextTooLong, match=r"101 characters; the limit is 100 \(max_text_chars\)"):
        tokenizer.encode("é" * 101)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("half", [0xD83D, 0xDC00])
def test_half_a_surrogate_pair_is_refused_and_named(tokenizers, family, half):
    with pytest.raises(UnreadableText, match=f"character 5 of the text is U\\+{half:04X}"):
        tokenizers[family].encode(f"a cat{chr(half)} b")


@pytest.mark.parametrize("family", FAMILIES)
@given(text=st.text(CHARACTERS))
def test_any_text_has_a_row_of_known_ids(tokenizers, family, text):
    tokens = tokenizers[family].encode(text)
    assert 0 < tokens.tokens <= len(tokens.ids) <= CONTEXT[family]
    assert 0 <= tokens.ids.min() <= tokens.ids.max() < 10_000


@pytest.mark.parametrize("family", FAMILIES)
def test_sixteen_threads_get_the_ids_that_one_gets(folders, family):
    texts = [f"{number} packs of {'tokens ' * (number % 90)}" for number in range(400 // PART)]
    alone = read(folders[family], family)
    expected = [(tokens.ids.tolist(), tokens.truncated) for tokens in map(alone.encode, texts)]
    shared = read(folders[family], family)
    start = threading.Barrier(16)
    equal: Counter[bool] = Counter()

    def encode(turn: int) -> None:
        start.wait()
        for at in range(len(texts)):
            own = (at + 25 * turn) % len(texts)
            text, ids = texts[own], expected[own]
            tokens = shared.encode(text)
            equal[(tokens.ids.tolist(), tokens.truncated) == ids] += 1

    threads = [threading.Thread(target=encode, args=(turn,)) for turn in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert equal == {True: 16 * len(texts)}


@pytest.mark.parametrize("family", FAMILIES)
def test_other_threads_go_on_while_a_long_text_is_tokenized(tokenizers, family):
    turns, over, interval_s = [0], threading.Event(), sys.getswitchinterval()
    text = "".join(chr(0x4E00 + number) for number in range(20_000))

    def count() -> None:
        while not over.is_set():
            turns[0] += 1
            time.sleep(0)

    # From here on a thread runs only when another lets the interpreter's lock go.
    sys.setswitchinterval(60)
    thread = threading.Thread(target=count)
    thread.start()
    try:
        before, left = turns[0], 20
        while turns[0] == before and left:
            tokenizers[family].encode(text)
            left -= 1
    finally:
        sys.setswitchinterval(interval_s)
        over.set()
        thread.join()
    assert left
