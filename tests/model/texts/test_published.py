"""CLIP's published vocabulary, which open_clip's wheel carries, against open_clip's and Transformers' tokenizers."""

import gzip
import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given
from transformers import CLIPTokenizer

from model.texts.read import read_tokenizer
from model.texts.rules import Cleaning
from tests.examples import many
from tests.model.texts.drawn import ASSIGNED, NO_TEXT, TEXTS, UNASSIGNED, every_plane, texts, thousands_of_texts
from tests.vocabularies import write_clip_merges

Encode = Callable[[str], list[int]]
# Found without being imported: that takes torchvision.
_SPEC = importlib.util.find_spec("open_clip")
if _SPEC is None or _SPEC.origin is None:
    pytest.skip("the published vocabulary needs `pip install --no-deps open_clip_torch`", allow_module_level=True)
OPEN_CLIP = Path(_SPEC.origin).parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    lines = gzip.decompress((OPEN_CLIP / "bpe_simple_vocab_16e6.txt.gz").read_bytes()).decode().split("\n")
    merges = [(left, right) for left, right in (line.split() for line in lines[1 : 49152 - 256 - 2 + 1])]
    return write_clip_merges(tmp_path_factory.mktemp("published"), merges)


def encoder(folder: Path, cleaning: Cleaning) -> Encode:
    tokenizer = read_tokenizer(folder, family="clip", context=10_000, vocabulary=49_408, cleaning=cleaning)
    return lambda text: [int(id) for id in tokenizer.encode(text).ids]


@pytest.fixture(scope="module")
def as_transformers(folder) -> tuple[Encode, Encode]:
    reference = CLIPTokenizer.from_pretrained(folder)
    return encoder(folder, "transformers"), lambda text: reference(text)["input_ids"]


@pytest.fixture(scope="module")
def as_open_clip(folder) -> tuple[Encode, Encode]:
    spec = importlib.util.spec_from_file_location("open_clip_tokenizer", OPEN_CLIP / "tokenizer.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    reference = module.SimpleTokenizer()
    return encoder(folder, "openai"), lambda text: [49_406, *reference.encode(text), 49_407]


def test_ids_are_those_that_were_published(as_transformers):
    ours, _ = as_transformers
    # From the documentation of Transformers' CLIPTokenizer and of OpenAI's own.
    assert ours("a photo of a cat") == [49406, 320, 1125, 539, 320, 2368, 49407]


@pytest.mark.slow
def test_ids_of_thousands_of_texts_are_those_of_transformers(as_transformers):
    ours, reference = as_transformers
    for text in thousands_of_texts(3000, without=NO_TEXT):
        assert ours(text) == reference(text), text


@pytest.mark.slow
@many(300)
@given(text=TEXTS)
@example(text="It's  e\u0301 we'LL 3.14 \u3000 x")
def test_ids_are_those_of_transformers(as_transformers, text):
    ours, reference = as_transformers
    assert ours(text) == reference(text)


@pytest.mark.slow
def test_cleaned_as_openai_ids_of_thousands_of_texts_are_those_of_open_clip(as_open_clip):
    ours, reference = as_open_clip
    for text in thousands_of_texts(3000, without=UNASSIGNED):
        assert ours(text) == reference(text), text


@pytest.mark.slow
@many(300)
@given(text=texts(ASSIGNED))
@example(text="“Curly” &lt;b&gt; &amp;amp; ﬁne Ｗｉｄｅ schÃ¶n 'ſ ΑΣ İ e&#769;")
@example(text="<|endoftext|> <|startoftext|> a\u0345b")
def test_cleaned_as_openai_ids_are_those_of_open_clip(as_open_clip, text):
    ours, reference = as_open_clip
    assert ours(text) == reference(text)


@pytest.mark.parametrize("kind", ["as_transformers", pytest.param("as_open_clip", marks=pytest.mark.slow)])
def test_every_character_has_the_ids_of_the_reference(kind, request):
    ours, reference = request.getfixturevalue(kind)
    assert [text for text in every_plane() if ours(text) != reference(text)] == []


def test_the_two_cleanings_have_different_names_and_give_different_ids(as_transformers, as_open_clip):
    assert as_transformers[0]("“a” &amp; b") != as_open_clip[0]("“a” &amp; b")
