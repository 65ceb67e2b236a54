"""A text's vector does not depend on what it was packed with: the bits are the same alone and among any others."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model.checkpoint.load import load_text
from model.pack import PackedTexts, pack_texts
from model.running.devices import choose_dtype
from model.running.texts import TextRunner
from tests.examples import PART
from tests.model.running.test_pack_invariance import NEEDS_VNNI, THREADS
from tests.reference import BASE, END_ID, random_texts, text_tower

PACKS = 16 // PART
CLIP = {"hidden_size": 512, "intermediate_size": 2048, "num_attention_heads": 8, "eos_token_id": END_ID}
# The middle block, in full, and the last, of which one row a text is computed.
SHALLOW = {"num_hidden_layers": 2, "vocab_size": 99}


@pytest.fixture(autouse=True)
def _restore_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def runner_of(folder: Path, model_type: str, shape: dict[str, Any], dtype: torch.dtype | None) -> TextRunner:
    """dtype: None for int8."""
    text_tower(model_type, shape | SHALLOW).save_pretrained(folder)
    base = dtype or choose_dtype("int8", torch.device("cpu"))
    return TextRunner(load_text(str(folder)), device=torch.device("cpu"), dtype=base, int8=dtype is None)


@pytest.mark.parametrize(
    "dtype",
    [torch.float32, torch.bfloat16, pytest.param(None, marks=[NEEDS_VNNI, pytest.mark.slow])],
    ids=["float32", "bfloat16", "int8"],
)
@pytest.mark.parametrize(
    ("model_type", "shape"),
    [("clip_text_model+", CLIP), pytest.param("siglip2_text_model", BASE, marks=pytest.mark.slow)],
    ids=["clip", "siglip2"],
)
def test_a_text_has_the_same_bits_alone_and_among_up_to_fifty(
    tmp_path: Path, model_type: str, shape: dict[str, Any], dtype: torch.dtype | None
) -> None:
    runner = runner_of(tmp_path, model_type, shape, dtype)
    random = np.random.default_rng(1)
    lengths = [1, 2, 3, 5, 5, 5, 7, 8, 12, 15, 16, 17, 20, 20, 33, 64]
    texts = random_texts(lengths, context=64 if "siglip" in model_type else 0).texts()
    torch.set_num_threads(THREADS[1])
    alone = np.concatenate([runner.run(pack_texts([text])).pooled for text in texts])
    for number in range(PACKS):
        torch.set_num_threads(THREADS[number % len(THREADS)])
        others = 50 if number < len(THREADS) else random.integers(0, 9)
        chosen = random.permutation([number % len(texts), *random.integers(0, len(texts), others)])
        together = runner.run(pack_texts([texts[i] for i in chosen])).pooled
        assert np.array_equal(together, alone[chosen])


def test_a_pack_is_cut_for_threads_and_comes_back_in_order(tmp_path: Path) -> None:
    runner = runner_of(tmp_path, "clip_text_model", CLIP, torch.float32)
    texts: PackedTexts = random_texts([9, 3, 20, 4, 9, 7, 20, 5])
    found = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found.append(runner.run(texts))
    assert found[0].computed_tokens == 80  # 77 and filler
    assert found[1].computed_tokens >= 80
    assert np.array_equal(found[0].pooled, found[1].pooled)
    assert np.array_equal(found[0].pooled, found[2].pooled)
