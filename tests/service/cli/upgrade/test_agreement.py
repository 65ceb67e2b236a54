"""How far two servers' vectors agree, on vectors whose neighbours are known."""

import numpy as np
import pytest
from numpy.typing import NDArray

from service.cli.upgrade.agreement import Agreement


def on_a_circle(*degrees: float) -> NDArray[np.float32]:
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


OLD = on_a_circle(0, 10, 30, 60, 100)


def test_equal_vectors_agree_wholly() -> None:
    found = Agreement.of(OLD, OLD, k=2)
    assert (found.pictures, found.k, found.recall, found.same_nearest) == (5, 2, 1, 1)
    assert found.cosines == pytest.approx((1, 1, 1))
    assert found.shift_most == 0


def test_a_picture_that_moved_lowers_cosine_recall_and_shifts_scores() -> None:
    found = Agreement.of(OLD, on_a_circle(0, 10, 30, 60, 15), k=1)
    assert found.cosines[0] == pytest.approx(np.cos(np.radians(85)))
    assert found.cosines[2] == pytest.approx(1)
    assert found.recall == pytest.approx(4 / 5)  # it finds 10 where it found 60
    assert found.same_nearest == pytest.approx(4 / 5)
    assert found.shift_most == pytest.approx(np.cos(np.radians(15)) - np.cos(np.radians(100)), abs=1e-6)


def test_all_neighbours_that_there_are_replace_a_k_that_is_too_large() -> None:
    found = Agreement.of(OLD, OLD[::-1].copy(), k=10)
    assert (found.k, found.recall) == (4, 1)


def test_copies_are_one_anothers_equals() -> None:
    copies = np.repeat(OLD[:2], 3, axis=0)
    moved = copies + np.float32(1e-8)
    found = Agreement.of(copies, moved, k=1)
    assert (found.recall, found.same_nearest) == (1, 1)
