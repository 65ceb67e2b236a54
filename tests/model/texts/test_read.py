"""Which rule a folder's tokenizer gets, and which folders are refused with what to do."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, models

from model.errors import CheckpointError
from model.texts.read import Family, read_tokenizer
from model.texts.rules import CLIP, SIGLIP1, SIGLIP2
from model.texts.tokenizer import TextTokenizer
from tests.vocabularies import write_clip, write_gemma, write_unigram


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("made")
    return {
        "gemma": write_gemma(folder / "gemma"),
        "unigram": write_unigram(folder / "unigram"),
        "clip": write_clip(folder / "clip"),
    }


@pytest.fixture
def gemma(made, tmp_path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(made["gemma"], tmp_path / "gemma"))


def read(folder: Path, family: Family, *, vocabulary: int = 10_000) -> TextTokenizer:
    return read_tokenizer(folder, family=family, context=64, vocabulary=vocabulary)


def change(folder: Path, changes: Callable[[dict[str, Any]], None]) -> None:
    path = folder / "tokenizer.json"
    fields = json.loads(path.read_text())
    changes(fields)
    path.write_text(json.dumps(fields))


@pytest.mark.parametrize(
    ("kind", "family", "rule"),
    [
        ("gemma", "siglip2", SIGLIP2),
        ("gemma", "siglip", SIGLIP2),
        ("unigram", "siglip", SIGLIP1),
        ("clip", "clip", CLIP),
    ],
)
def test_the_vocabulary_tells_one_siglip_from_the_other(made, kind, family, rule):
    assert read(made[kind], family).preprocessing == rule.name


@pytest.mark.parametrize(
    ("kind", "family", "message"),
    [
        ("unigram", "siglip2", "neither Gemma's tokenizer .* nor SigLIP 1's"),
        ("gemma", "clip", "not CLIP's tokenizer"),
        ("unigram", "clip", "not CLIP's tokenizer"),
        ("clip", "siglip", "has no tokenizer.json"),
    ],
)
def test_a_tokenizer_of_another_family_is_refused(made, kind, family, message):
    with pytest.raises(CheckpointError, match=message):
        read(made[kind], family)


def test_a_gemma_whose_padding_is_not_0_is_refused(gemma):
    def swap(fields: dict[str, Any]) -> None:
        ids = fields["model"]["vocab"]
        ids["<pad>"], ids["<bos>"] = ids["<bos>"], ids["<pad>"]
        fields["added_tokens"] = []

    change(gemma, swap)
    with pytest.raises(CheckpointError, match="what the weights were trained with is unknown"):
        read(gemma, "siglip")


def test_a_tokenizer_with_more_ids_than_the_tower_has_embeddings_is_refused(made):
    with pytest.raises(CheckpointError, match="but the text tower has only 500 embeddings"):
        read(made["gemma"], "siglip2", vocabulary=500)


def test_a_folder_with_spiece_model_alone_says_how_to_convert_it(tmp_path):
    (tmp_path / "spiece.model").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"spiece\.model, which is not read.*T5Tokenizer\.from_pretrained"):
        read(tmp_path, "siglip")


def test_a_folder_without_a_tokenizer_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"has no tokenizer\.json"):
        read(tmp_path, "siglip2")


@pytest.mark.parametrize(
    "content", ["", "{}", "[1]", '{"model": {"type": "BPE", "vocab": {}, "merges": [["a", "b"]]}}']
)
def test_a_broken_tokenizer_is_refused_and_named(tmp_path, content):
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is not a tokenizer that can be read"):
        read(tmp_path, "siglip2")


def test_a_clip_without_its_end_token_is_refused(tmp_path):
    Tokenizer(models.BPE({"a": 0}, [], end_of_word_suffix="</w>")).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(CheckpointError, match=r"has no <\|endoftext\|>"):
        read(tmp_path, "clip")


def test_one_file_and_two_files_of_clip_give_the_same_ids(made, tmp_path):
    from transformers import CLIPTokenizer

    CLIPTokenizer.from_pretrained(made["clip"]).save_pretrained(tmp_path)
    assert (tmp_path / "tokenizer.json").exists()
    text = "It's a PHOTO of 12 packs, <|endoftext|> é"
    assert read(tmp_path, "clip").encode(text).ids.tolist() == read(made["clip"], "clip").encode(text).ids.tolist()


def test_what_the_file_says_of_padding_cutting_and_dropout_changes_nothing(made, gemma):
    tokenizer = Tokenizer.from_file(str(gemma / "tokenizer.json"))
    tokenizer.enable_padding(length=20, pad_id=3, direction="left")
    tokenizer.enable_truncation(max_length=5)
    tokenizer.model.dropout = 0.9
    tokenizer.model.fuse_unk = False
    tokenizer.save(str(gemma / "tokenizer.json"))
    text = "A photo of the packs of tokens"
    expected = read(made["gemma"], "siglip2").encode(text).ids.tolist()
    assert all(read(gemma, "siglip2").encode(text).ids.tolist() == expected for _ in range(5))


def test_a_symbol_that_spans_words_keeps_its_id_where_a_long_text_is_cut(gemma):
    path = gemma / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(path))
    long, spanning = "w" * 31, "q7%k york"
    tokenizer.add_tokens([AddedToken(long, normalized=False), AddedToken(spanning, normalized=False)])
    tokenizer.save(str(path))
    # 62 ids of 992 characters, and the symbol as the last that is kept, across the last space of the first 1,008.
    text = f"{long} " * 31 + spanning + "z" * 100
    ids = read(gemma, "siglip2").encode(text).ids
    assert ids[62] == tokenizer.token_to_id(spanning)
