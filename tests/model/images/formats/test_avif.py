"""The clean aperture of an AVIF, of any numbers."""

import struct
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from model.images.formats.avif import aperture
from tests.examples import many
from tests.model.images.matrix.avif_cells import avif, with_properties
from tests.model.images.matrix.drawing import smooth

WIDTH, HEIGHT = 32, 24
PLAIN = avif(smooth(3))
ALL = (0, 0, WIDTH, HEIGHT)


def boxed(*numbers: int) -> bytes:
    return with_properties(PLAIN, (b"clap", struct.pack(">IIIIiIiI", *numbers)))


@many(200)
@given(
    st.integers(0, 2 * WIDTH),
    st.integers(0, 2 * HEIGHT),
    st.integers(-WIDTH, WIDTH),
    st.integers(-HEIGHT, HEIGHT),
    st.integers(1, 4),
)
@example(31, 23, -1, -1, 2)
def test_an_aperture_is_a_rectangle_of_whole_pixels_or_all(wide: int, high: int, right: int, down: int, by: int):
    left, top = (WIDTH - wide) * Fraction(1, 2) + Fraction(right, by), Fraction(HEIGHT - high, 2) + Fraction(down, by)
    inside = 0 <= left < left + wide <= WIDTH and 0 <= top < top + high <= HEIGHT
    possible = inside and left.denominator == top.denominator == 1
    want = (left, top, left + wide, top + high) if possible else ALL
    assert aperture(boxed(wide, 1, high, 1, right, by, down, by), (WIDTH, HEIGHT)) == want


@pytest.mark.parametrize("place", range(1, 8, 2))
def test_an_aperture_over_zero_is_passed_over(place: int) -> None:
    numbers = [20, 1, 20, 1, 0, 1, 0, 1]
    numbers[place] = 0
    assert aperture(boxed(*numbers), (WIDTH, HEIGHT)) == ALL


@many(300)
@given(st.integers(0, 400), st.integers(0, 255), st.integers(0, 500))
def test_a_broken_file_has_some_aperture(place: int, value: int, cut: int) -> None:
    data = bytearray(boxed(20, 1, 20, 1, 0, 1, 0, 1))
    data[place] = value
    left, top, right, bottom = aperture(bytes(data[: cut or None]), (WIDTH, HEIGHT))
    assert 0 <= left < right <= WIDTH
    assert 0 <= top < bottom <= HEIGHT
