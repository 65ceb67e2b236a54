"""The arrays that other engines get: padded, without padding, and divided among several calls."""

import numpy as np
import pytest

from loadtest.bench.forwards.contender import batch_of, padded_inputs
from loadtest.bench.peers.requests import NAMES, computed_rows, divided, unpadded

GRIDS = [(2, 3), (1, 1), (4, 2), (3, 3)]
BATCH = batch_of(GRIDS)
INPUTS = padded_inputs(BATCH, 12)


def test_padding_is_zeros_behind_the_pixels_and_masked() -> None:
    assert tuple(INPUTS) == NAMES
    assert INPUTS["pixel_values"].shape == (4, 12, 768)
    assert INPUTS["pixel_attention_mask"].sum(axis=1).tolist() == [6, 1, 8, 9]
    assert INPUTS["spatial_shapes"].tolist() == [list(grid) for grid in GRIDS]
    kept = INPUTS["pixel_values"][INPUTS["pixel_attention_mask"] == 1]
    np.testing.assert_allclose(kept, BATCH.rows / np.float32(127.5) - 1, atol=1e-6)
    assert not INPUTS["pixel_values"][INPUTS["pixel_attention_mask"] == 0].any()


def test_without_padding_each_image_has_its_own_call_and_length() -> None:
    calls = unpadded(INPUTS)
    assert [each["pixel_values"].shape for each in calls] == [(1, h * w, 768) for h, w in GRIDS]
    assert all(each["pixel_attention_mask"].all() for each in calls)
    together = np.concatenate([each["pixel_values"][0] for each in calls])
    np.testing.assert_allclose(together, BATCH.rows / np.float32(127.5) - 1, atol=1e-6)
    assert (computed_rows([INPUTS]), computed_rows(calls)) == (48, 24)


@pytest.mark.parametrize(("most", "calls"), [(1, 1), (2, 2), (3, 2), (4, 4), (9, 4)])
def test_calls_are_as_many_as_divide_the_images(most: int, calls: int) -> None:
    parts = divided(INPUTS, most)
    assert len(parts) == calls
    for name, array in INPUTS.items():
        np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), array)
        assert len({part[name].shape for part in parts}) == 1
