import numpy as np
import pytest
from numpy.typing import NDArray

from service.int8_scale import FIXED_CLIP, Int8Scale, best_clip
from service.requests.results import normalized


def vectors(outliers: float = 1.0, rows: int = 200) -> NDArray[np.float32]:
    """Unit vectors of normal numbers, of which two dimensions are larger."""
    drawn = np.random.default_rng(0).normal(size=(rows, 128)).astype(np.float32)
    drawn[:, [3, 70]] *= outliers
    return normalized(drawn)


def error(rows: NDArray[np.float32], clip: float) -> float:
    """Of cosines between rows, from their integers."""
    integers = normalized(Int8Scale(clip).scaled(rows))
    return float(np.abs(integers @ integers.T - rows @ rows.T).mean())


def test_the_best_clip_of_normal_numbers_is_near_four_of_their_deviations() -> None:
    assert 3.2 < best_clip(vectors()) < 4.8


@pytest.mark.parametrize("outliers", [6.0, 20.0])
def test_large_numbers_of_a_model_are_not_clipped_away(outliers: float) -> None:
    rows = vectors(outliers)
    assert best_clip(rows) > FIXED_CLIP
    assert error(rows, best_clip(rows)) < error(rows, FIXED_CLIP) / 2


@pytest.mark.parametrize("width", [16, 64])
def test_the_clip_of_whole_vectors_fits_cut_ones(width: int) -> None:
    """The scale follows the width: an error no worse than twice that of a clip found on the cut vectors themselves."""
    rows = vectors()
    cut = normalized(np.ascontiguousarray(rows[:, :width]))
    assert error(cut, best_clip(rows)) < 2 * error(cut, best_clip(cut))


def test_one_row_and_thousands_have_a_clip() -> None:
    assert 1 <= best_clip(vectors(rows=1)) <= 128**0.5
    assert best_clip(np.eye(8, dtype=np.float32)) == pytest.approx(8**0.5)
    assert best_clip(np.tile(vectors(rows=10), (1000, 1))) == pytest.approx(best_clip(vectors(rows=10)))
