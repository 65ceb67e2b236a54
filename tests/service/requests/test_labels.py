"""Vectors of labels: kept by content, bounded, and combined as the models define it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from service.limits import TextFacts
from service.requests.labels import PromptVectors, label_vectors, logits_of, probabilities_of, prompts_of
from service.requests.results import normalized

SIGLIP = TextFacts(64, "rule", 2.0, -1.0, "sigmoid", "f", "", "siglip2", 10)
CLIP = TextFacts(77, "rule", 100.0, None, "softmax", "f", "", "clip", 10)
ROWS = arrays.arrays(np.float32, (5, 8), elements=st.floats(-1, 1, width=32))


def test_prompts_fill_every_template_with_every_label() -> None:
    assert prompts_of(["a", "b"], ["{}", "a {} or {}"]) == [["a", "a a or a"], ["b", "a b or b"]]


def test_the_prompts_used_longest_ago_are_dropped() -> None:
    kept = PromptVectors(max_prompts=2)
    kept.keep({"a": np.ones(1, np.float32), "b": np.ones(1, np.float32)}, doubts=0)
    assert set(kept.known(["a"], doubts=0)) == {"a"}
    kept.keep({"c": np.ones(1, np.float32)}, doubts=0)
    assert set(kept.known(["a", "b", "c"], doubts=0)) == {"a", "c"}


def test_what_was_computed_before_a_device_was_found_wrong_is_not_kept() -> None:
    kept = PromptVectors()
    kept.keep({"a": np.ones(1, np.float32)}, doubts=0)
    assert not kept.known(["a"], doubts=1)
    # A request that began before kept this.
    kept.keep({"b": np.ones(1, np.float32)}, doubts=0)
    kept.keep({"c": np.ones(1, np.float32)}, doubts=1)
    assert set(kept.known(["a", "b", "c"], doubts=1)) == {"c"}


def test_one_prompt_keeps_its_bits_and_several_give_a_vector_of_length_1() -> None:
    vectors = dict(zip("ab", normalized(np.array([[3, 4], [1, 0]], np.float32)), strict=True))
    one, both = label_vectors([["a"], ["a", "b"]], vectors)
    assert one.tolist() == vectors["a"].tolist()
    assert np.linalg.norm(both) == pytest.approx(1)


@given(ROWS, ROWS)
def test_a_logit_does_not_depend_on_other_images_and_labels(images: np.ndarray, labels: np.ndarray) -> None:
    together = logits_of(images, labels, SIGLIP)
    for row, image in enumerate(images):
        for column, label in enumerate(labels):
            assert logits_of(image[None], label[None], SIGLIP)[0, 0] == together[row, column]


@given(ROWS, ROWS)
def test_probabilities_are_finite_and_those_of_a_softmax_are_1_together(images: np.ndarray, labels: np.ndarray) -> None:
    for text in (SIGLIP, CLIP):
        probabilities = probabilities_of(logits_of(images, labels, text), text)
        assert np.isfinite(probabilities).all()
        assert (probabilities >= 0).all()
        if text is CLIP:
            assert np.abs(probabilities.sum(axis=-1) - 1).max() < 1e-6
