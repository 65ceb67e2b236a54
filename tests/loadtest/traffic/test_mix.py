"""Mixes: shares that hold in a few dozen requests, and mistakes that are named."""

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.errors import UsageError
from loadtest.traffic import mix
from loadtest.traffic.mix import Choice, parse

ONE = {"name": "one", "content": "photo", "megapixels": 0.1}


@pytest.mark.parametrize("name", mix.built_in())
def test_a_built_in_mix_has_the_shares_it_says(name):
    loaded = mix.load(name)
    drawn = Counter(spec.class_index for spec in loaded.draw(100, seed=4))
    total = sum(each.share for each in loaded.classes)
    assert loaded.about
    for number, each in enumerate(loaded.classes):
        assert abs(drawn[number] - 100 * each.share / total) <= 1


def test_every_documented_mix_exists():
    assert set(mix.built_in()) == {"photos", "documents", "screenshots", "thumbnails", "mixed", "search"}


@given(
    st.dictionaries(st.text("abc", min_size=1, max_size=3), st.floats(0.01, 10), min_size=1, max_size=6),
    st.integers(1, 200),
    st.integers(0, 2**32),
)
def test_a_choice_is_spread_to_within_one_of_its_shares(shares, count, seed):
    drawn = Counter(Choice(tuple(shares), tuple(shares.values())).spread(count, np.random.default_rng(seed)))
    for value, share in shares.items():
        assert abs(drawn[value] - count * share / sum(shares.values())) <= 1 + 1e-9


@given(st.integers(1, 60), st.integers(0, 2**32))
def test_a_draw_is_the_same_for_the_same_seed(count, seed):
    loaded = mix.load("mixed")
    assert loaded.draw(count, seed) == loaded.draw(count, seed)
    assert len(loaded.draw(count, seed)) == count


def test_sizes_shapes_and_parameters_are_as_asked():
    loaded = parse(
        {"classes": [ONE | {"megapixels": [0.1, 0.4], "aspect": "2:1", "images": 3, "params": {"max_tokens": 64}}]},
        source="x.json",
    )
    for spec in loaded.draw(20, seed=1):
        assert spec.params == {"max_tokens": 64}
        assert len(spec.images) == 3
        for image in spec.images:
            assert 0.09e6 < image.height * image.width < 0.41e6
            assert image.width == pytest.approx(2 * image.height, rel=0.01)


def test_default_leaves_a_parameter_out():
    loaded = parse({"classes": [ONE | {"params": {"max_tokens": {"default": 1, "64": 1}}}]}, source="x.json")
    assert Counter(str(dict(spec.params)) for spec in loaded.draw(10, 1)) == {"{}": 5, "{'max_tokens': 64}": 5}


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ([], "classes"),
        ({"classes": [ONE | {"colour": 1}]}, "unknown colour"),
        ({"classes": [ONE | {"content": "music"}]}, "content"),
        ({"classes": [ONE | {"share": 0}]}, "share"),
        ({"classes": [ONE | {"megapixels": [2, 1]}]}, "megapixels"),
        ({"classes": [ONE | {"aspect": "wide"}]}, "aspect"),
        ({"classes": [ONE | {"format": {"tiff": 1}}]}, "tiff"),
        ({"classes": [ONE | {"images": 0}]}, "images"),
        ({"classes": [ONE, ONE]}, "same name"),
    ],
)
def test_a_mistake_is_named(content, named):
    with pytest.raises(UsageError, match=named):
        parse(content, source="x.json")


def test_a_mix_is_read_from_a_file(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"classes": [ONE]}))
    assert mix.load(str(path)).name == "mine"
    with pytest.raises(UsageError, match="not one of"):
        mix.load("holiday")


def test_a_class_of_texts_alone_has_no_picture():
    loaded = parse(
        {"classes": [{"name": "query", "images": 0, "texts": {"1": 50, "3": 50}, "words": [2, 12]}]}, source="x.json"
    )
    drawn = loaded.draw(20, seed=1)
    assert Counter(len(spec.text_words) for spec in drawn) == {1: 10, 3: 10}
    assert not any(spec.images for spec in drawn)
    assert all(2 <= words <= 12 for spec in drawn for words in spec.text_words)


def test_a_class_may_have_texts_beside_its_pictures():
    (spec,) = parse({"classes": [ONE | {"texts": 2}]}, source="x.json").draw(1, seed=1)
    assert (len(spec.images), len(spec.text_words)) == (1, 2)


@pytest.mark.parametrize("content", [{"name": "one", "images": 0}, ONE | {"images": 0}, ONE | {"texts": "two"}])
def test_a_class_without_pictures_and_texts_is_refused(content):
    with pytest.raises(UsageError):
        parse({"classes": [content]}, source="x.json")
