"""Ids against those of Transformers' own tokenizers, on small vocabularies of each family's kind."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given
from tokenizers import normalizers
from transformers import AutoTokenizer, CLIPTokenizer, GemmaTokenizer

from model.texts.read import Family, read_tokenizer
from tests.examples import many
from tests.model.texts.drawn import TEXTS, every_plane
from tests.vocabularies import write_clip, write_gemma

Encode = Callable[[str], list[int]]
# Room for the whole of any text here.
WIDE = 10_000


def encoder(folder: Path, family: Family) -> Encode:
    tokenizer = read_tokenizer(folder, family=family, context=WIDE, vocabulary=10_000)

    def encode(text: str) -> list[int]:
        tokens = tokenizer.encode(text)
        return [int(id) for id in tokens.ids[: tokens.tokens]]

    return encode


@pytest.fixture(scope="module")
def siglip2(tmp_path_factory) -> tuple[Encode, Encode]:
    folder = write_gemma(tmp_path_factory.mktemp("siglip2"), model_type="siglip2")
    reference = AutoTokenizer.from_pretrained(folder)
    assert type(reference).__name__ == "Siglip2Tokenizer"
    return encoder(folder, "siglip2"), lambda text: reference(text)["input_ids"]


@pytest.fixture(scope="module")
def fixed_siglip2(tmp_path_factory) -> tuple[Encode, Encode]:
    folder = write_gemma(tmp_path_factory.mktemp("fixed"), model_type="siglip")
    reference = AutoTokenizer.from_pretrained(folder)
    assert isinstance(reference, GemmaTokenizer)
    return encoder(folder, "siglip"), lambda text: reference(text)["input_ids"]


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> tuple[Encode, Encode]:
    folder = write_clip(tmp_path_factory.mktemp("clip"))
    reference = CLIPTokenizer.from_pretrained(folder)
    return encoder(folder, "clip"), lambda text: reference(text)["input_ids"]


@many(200)
@given(text=TEXTS)
@example(text="")
@example(text="A Photo of  TWO   cats\n\n<table> and ÇÉ 語彙 \0")
def test_ids_of_naflex_are_those_of_transformers(siglip2, text):
    ours, reference = siglip2
    assert ours(text) == reference(text)


@given(text=TEXTS)
@example(text="A Photo of THE cat")
def test_siglip_2_of_a_fixed_resolution_gets_the_lower_case_that_transformers_leaves_out(fixed_siglip2, text):
    ours, reference = fixed_siglip2
    assert ours(text) == reference(normalizers.Lowercase().normalize_str(text))


@many(200)
@given(text=TEXTS)
@example(text="")
@example(text="It's  Θ\u0301 we'LL e\u0301 \u3000 \x1c x")
def test_ids_of_clip_are_those_of_transformers(clip, text):
    ours, reference = clip
    assert ours(text) == reference(text)


@pytest.mark.parametrize("family", ["siglip2", pytest.param("fixed_siglip2", marks=pytest.mark.slow), "clip"])
def test_every_character_of_unicode_has_ids(family, request):
    ours, reference = request.getfixturevalue(family)
    for text in every_plane():
        text = normalizers.Lowercase().normalize_str(text)
        assert ours(text) == reference(text)


@pytest.mark.parametrize("family", ["siglip2", "fixed_siglip2"])
@pytest.mark.parametrize("control", ["<eos>", "<pad>", "<bos>", "<unk>"])
def test_a_control_token_that_someone_typed_is_text_to_siglip_2(family, control, request):
    ours, reference = request.getfixturevalue(family)
    ids = ours(f"a {control} b")
    assert not set(ids[:-1]) & {0, 1, 2, 3}
    # To Transformers it is the control token itself.
    assert set(reference(f"a {control} b")[:-1]) & {0, 1, 2, 3}


@pytest.mark.parametrize("control", ["<|startoftext|>", "<|endoftext|>"])
def test_a_control_token_that_someone_typed_is_text_to_clip(clip, control):
    ours, reference = clip
    start, *ids, end = ours(f"a {control} b")
    assert start not in ids
    assert end not in ids
    name = control.strip("<|>")
    # Split as any other text is.
    assert ids == ours(f"a <| {name} |> b")[1:-1]
    assert {start, end} & set(reference(f"a {control} b")[1:-1])


@pytest.mark.parametrize("family", ["siglip2", "clip"])
def test_a_control_token_of_another_family_is_text(family, request):
    ours, reference = request.getfixturevalue(family)
    assert ours("a [MASK] </s> b") == reference("a [MASK] </s> b")
