"""What `tiff_file` writes is what others read: tifffile, and libtiff where it knows the depth."""

from io import BytesIO
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from tests.model.images.matrix.drawing import Samples, samples
from tests.model.images.matrix.tiff_cells import BLACK_IS_ZERO, COLOURS, RGB, compressions, layouts
from tests.model.images.matrix.tiff_file import tiff_file


def in_order(read: NDArray[Any], values: Samples) -> NDArray[Any]:
    """Samples `[h, w, samples]` that were read, perhaps plane by plane."""
    height, width, count = values.shape
    planes = count > 1 and read.shape == (count, height, width)
    return np.moveaxis(read, 0, -1) if planes else read.reshape(values.shape)


@pytest.mark.slow
@pytest.mark.parametrize("photometric", [BLACK_IS_ZERO, RGB])
@pytest.mark.parametrize("bits", range(1, 17))
def test_other_programs_read_the_samples_that_were_drawn(photometric: int, bits: int) -> None:
    by_libtiff = 0
    values = samples(bits, COLOURS[photometric], seed=bits)
    for layout in [*layouts(bits, planes=photometric == RGB), *compressions()]:
        if layout.differences and bits not in (8, 16):
            continue
        data = tiff_file(values, bits, photometric, layout)
        with tifffile.TiffFile(BytesIO(data)) as file:
            np.testing.assert_array_equal(in_order(file.pages.first.asarray(), values), values)
        try:
            read = imagecodecs.tiff_decode(data)
        except imagecodecs.TiffError:  # tiles of most depths, and tiles in planes
            continue
        np.testing.assert_array_equal(in_order(read, values), values)
        by_libtiff += 1
    assert by_libtiff
