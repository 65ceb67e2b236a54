"""The positions that a language model gives output tokens."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import Qwen2_5_VLModel, Qwen2VLModel, Qwen3VLModel

from service.requests.token_positions import V2PE_DELTAS, mrope_positions, row_positions, v2pe_positions


@pytest.mark.parametrize("model", [Qwen2VLModel, Qwen2_5_VLModel, Qwen3VLModel])
@given(height=st.integers(1, 20), width=st.integers(1, 20))
def test_mrope_counts_as_transformers_does(model: type, height: int, width: int) -> None:
    grid = (2 * height, 2 * width)
    theirs = model.get_vision_position_ids(None, 0, torch.tensor([1, *grid]), 1, 2)  # type: ignore[attr-defined]
    ours = mrope_positions(grid, 2)
    assert ours.dtype == np.int32
    assert np.array_equal(ours, theirs.T)


@given(st.sampled_from(sorted(V2PE_DELTAS.items())), st.integers(1, 20_000))
def test_v2pe_advances_by_exactly_its_delta(spelled: tuple[str, float], tokens: int) -> None:
    text, delta = spelled
    positions = v2pe_positions(tokens, delta)
    assert positions.shape == (tokens,)
    assert positions[0] == 0
    assert {*np.diff(positions).tolist()} <= {delta}
    assert positions[-1] == (tokens - 1) * delta
    numerator, _, denominator = text.partition("/")
    assert float(numerator) / float(denominator or 1) == delta


def test_the_deltas_are_the_powers_of_two_from_1_to_a_256th() -> None:
    assert sorted({*V2PE_DELTAS.values()}, reverse=True) == [2.0**-k for k in range(9)]


def test_pixtrals_rows_leave_a_place_for_the_break_behind_each() -> None:
    row = "[IMG][IMG][IMG][IMG_BREAK]"
    prompt = (row * 2).removesuffix("[IMG_BREAK]") + "[IMG_END]"
    places = [place for place, token in enumerate(prompt.split("]")[:-1]) if token == "[IMG"]
    assert row_positions((2, 3)).tolist() == places == [0, 1, 2, 4, 5, 6]
