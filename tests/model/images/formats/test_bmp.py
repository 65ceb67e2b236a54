"""BMPs of any masks and of any runs, against sums over bits and against the pixels that were coded."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.errors import ImageError
from model.images.decode import decode_rgb
from tests.model.images.matrix import bmp_cells
from tests.model.images.matrix.bmp_cells import BITFIELDS, RLE4, RLE8, V5, Masks, bmp, lines, masked, width_of
from tests.model.images.matrix.drawing import HEIGHT, WIDTH, eight_bits, on_white, rgb, samples

LIMIT = 10_000


@st.composite
def masks(draw: st.DrawFn) -> tuple[int, Masks]:
    """16 or 32, and the masks of red, green, blue and perhaps alpha, in any order and with gaps between them."""
    bits = draw(st.sampled_from([16, 32]))
    count = draw(st.sampled_from([3, 4]))
    edges = sorted(draw(st.lists(st.integers(0, bits), min_size=2 * count, max_size=2 * count, unique=True)))
    found = [(1 << high) - (1 << low) for low, high in zip(edges[::2], edges[1::2], strict=True)]
    found = draw(st.permutations(found))
    return bits, (found[0], found[1], found[2], found[3] if count == 4 else 0)


@settings(max_examples=150, deadline=None)
@given(masks(), st.booleans(), st.integers(0, 99))
def test_any_masks_are_read(chosen: tuple[int, Masks], top_down: bool, seed: int) -> None:
    bits, found = chosen
    numbers, drawn = masked(found, seed=seed)
    parts = [eight_bits(values, width_of(mask)) for values, mask in zip(drawn, found, strict=False)]
    colour = np.stack(parts[:3], axis=-1)
    want = on_white(colour, parts[3]) if found[3] and parts[3].any() else colour
    data = bmp(
        lines(numbers, bits, top_down=top_down), bits, header=V5, coding=BITFIELDS, masks=found, top_down=top_down
    )
    np.testing.assert_array_equal(np.asarray(decode_rgb(data, max_decode_pixels=LIMIT)), want)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from([4, 8]), st.integers(0, 99), st.lists(st.integers(1, WIDTH), min_size=1, max_size=20))
def test_any_runs_are_read(bits: int, seed: int, lengths: list[int]) -> None:
    """Rows of runs whose lengths take turns; some rows end early, and the picture does too."""
    values = samples(bits, 1, seed=seed)[..., 0]
    palette = samples(8, 3, height=1, width=2**bits, seed=5)[0].astype(np.uint8)
    want = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    coded, turn = b"", 0
    for row in range(HEIGHT - 1, seed % HEIGHT - 1, -1):
        x = 0
        while x < WIDTH and (turn + seed) % 7:
            run = min(lengths[turn % len(lengths)], WIDTH - x)
            value = int(values[row, x])
            coded += bytes([run, value if bits == 8 else value << 4 | value])
            want[row, x : x + run] = palette[value]
            x, turn = x + run, turn + 1
        coded, turn = coded + b"\0\0", turn + 1
    data = bmp(coded + b"\0\1", bits, coding=RLE8 if bits == 8 else RLE4, palette=palette.astype(np.int64))
    np.testing.assert_array_equal(np.asarray(decode_rgb(data, max_decode_pixels=LIMIT)), rgb(want))


@pytest.mark.parametrize("bits", [4, 8])
def test_runs_that_cover_nothing_leave_the_picture_white(bits: int) -> None:
    palette = np.zeros((2**bits, 3), np.int64)
    data = bmp(b"\0\1", bits, coding=RLE8 if bits == 8 else RLE4, palette=palette)
    assert np.asarray(decode_rgb(data, max_decode_pixels=LIMIT)).min() == 255


@pytest.mark.parametrize("share", [0.2, 0.6, 0.99])
def test_a_cut_bmp_of_masks_is_refused(share: float) -> None:
    for name in ("masks, 16 bits, 4-4-4", "masks, 32 bits, 10-10-10"):
        data = next(cell.data for cell in bmp_cells.cells() if cell.row == name)
        with pytest.raises(ImageError):
            decode_rgb(data[: int(share * len(data))], max_decode_pixels=LIMIT)
