"""SigLIP 1's ids against those of Transformers' SiglipTokenizer, which runs on sentencepiece."""

import io
from pathlib import Path

import pytest
from hypothesis import example, given
from transformers import SiglipTokenizer, T5Tokenizer

from model.texts.read import read_tokenizer
from model.texts.rules import canonicalize
from model.texts.tokenizer import TextTokenizer
from tests.examples import many
from tests.model.texts.drawn import TEXTS
from tests.vocabularies import corpus

sentencepiece = pytest.importorskip("sentencepiece")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A vocabulary of SentencePiece, with the tokenizer.json that our error message tells a user to make."""
    folder: Path = tmp_path_factory.mktemp("siglip1")
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus()),
        model_writer=model,
        vocab_size=600,
        normalization_rule_name="nmt_nfkc",
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    (folder / "spiece.model").write_bytes(model.getvalue())
    (folder / "config.json").write_text('{"model_type": "siglip"}')
    T5Tokenizer.from_pretrained(folder, extra_ids=0).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def ours(folder) -> TextTokenizer:
    return read_tokenizer(folder, family="siglip", context=10_000, vocabulary=600)


@pytest.fixture(scope="module")
def reference(folder) -> SiglipTokenizer:
    return SiglipTokenizer(str(folder / "spiece.model"))


@many(200)
@given(text=TEXTS)
@example(text="")
@example(text=" \t ")
@example(text="A photo, of: “two” cats! snake_case 3.14")
@example(text="´")
def test_ids_are_those_of_transformers(ours, reference, text):
    tokens = ours.encode(text)
    assert tokens.ids[: tokens.tokens].tolist() == reference(text)["input_ids"]


@many(100)
@given(text=TEXTS)
def test_a_text_is_canonicalized_as_transformers_does(reference, text):
    assert canonicalize(text) == reference.canonicalize_text(text.replace("▁", " "))


def test_rows_are_padded_with_the_end_token_and_keep_it_when_cut(folder, reference):
    tokenizer = read_tokenizer(folder, family="siglip", context=64, vocabulary=600)
    for text in ("a photo", "a photo " * 60):
        expected = reference(text, padding="max_length", truncation=True, max_length=64)["input_ids"]
        assert tokenizer.encode(text).ids.tolist() == expected


def test_a_control_token_that_someone_typed_is_text(ours):
    assert ours.encode("a </s> photo").ids.tolist() == ours.encode("a s photo").ids.tolist()
