"""Zero-shot classification: vectors of labels, and from them what an image is likely to show. Float32 numpy."""

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from service.limits import TextFacts
from service.requests.results import normalized

# Vectors of 768 numbers take 3 kB each.
_MAX_PROMPTS = 8192


def prompts_of(labels: Sequence[str], templates: Sequence[str]) -> list[list[str]]:
    """The prompts of each label: every template with `{}` replaced by the label."""
    return [[template.replace("{}", label) for template in templates] for label in labels]


def longest_prompt(labels: Sequence[str], templates: Sequence[str]) -> int:
    """Characters of the longest prompt, without making any: a label in a template of many `{}` may take gigabytes."""
    label = max(map(len, labels))
    return max(len(template) + template.count("{}") * (label - 2) for template in templates)


class PromptVectors:
    """Vectors of prompts by their text, so that a thousand images pay for their labels once. Drops the oldest used.

    Keeps a digest in place of a text, which may be long. Once a device was found to give wrong vectors, those from
    before are forgotten: `doubts` counts how often that was so (`Trust`).
    """

    def __init__(self, max_prompts: int = _MAX_PROMPTS) -> None:
        self._max_prompts = max_prompts
        self._doubts = 0
        self._vectors: OrderedDict[bytes, NDArray[np.float32]] = OrderedDict()

    def known(self, prompts: Iterable[str], *, doubts: int) -> dict[str, NDArray[np.float32]]:
        """Those of `prompts` that are kept. doubts: as they are now."""
        if doubts != self._doubts:
            self._doubts = doubts
            self._vectors.clear()
        found = {}
        for prompt in prompts:
            digest = _digest(prompt)
            if digest in self._vectors:
                self._vectors.move_to_end(digest)
                found[prompt] = self._vectors[digest]
        return found

    def keep(self, vectors: Mapping[str, NDArray[np.float32]], *, doubts: int) -> None:
        """vectors: float32 `[E]` of length 1, by prompt. doubts: as they were before these were computed."""
        if doubts != self._doubts:
            return
        self._vectors |= {_digest(prompt): vector for prompt, vector in vectors.items()}
        while len(self._vectors) > self._max_prompts:
            self._vectors.popitem(last=False)


def _digest(prompt: str) -> bytes:
    return hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).digest()


def label_vectors(prompts: Sequence[Sequence[str]], vectors: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
    """float32 `[L, E]` of length 1: a label's vector is the mean of its prompts' vectors, scaled to length 1, as in
    CLIP's zero-shot classifier. One prompt's vector is the label's."""
    return np.stack(
        [
            vectors[own[0]] if len(own) == 1 else normalized(np.mean([vectors[p] for p in own], axis=0)[None])[0]
            for own in prompts
        ]
    )


def logits_of(images: NDArray[np.float32], labels: NDArray[np.float32], text: TextFacts) -> NDArray[np.float32]:
    """float32 `[B, L]`: Transformers' `logits_per_image`. images `[B, E]`, labels `[L, E]`: of length 1.

    Each cosine is a sum of its own, not part of a matrix product, so that an image's logits are the same bits whatever
    other images and labels the request has.
    """
    assert text.logit_scale is not None, "the model has no logits"
    cosines = np.stack([(labels * image).sum(axis=-1) for image in images])
    logits: NDArray[np.float32] = cosines * np.float32(text.logit_scale) + np.float32(text.logit_bias or 0.0)
    return logits


def probabilities_of(logits: NDArray[np.float32], text: TextFacts) -> NDArray[np.float32]:
    """float32 `[B, L]`. Sigmoid gives each label its own probability; softmax divides 1 among the labels."""
    wide = logits.astype(np.float64)
    if text.probability == "sigmoid":
        probabilities = 1 / (1 + np.exp(-wide))
    else:
        powers = np.exp(wide - wide.max(axis=-1, keepdims=True))
        probabilities = powers / powers.sum(axis=-1, keepdims=True)
    result: NDArray[np.float32] = probabilities.astype(np.float32)
    return result
