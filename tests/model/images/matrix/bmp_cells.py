"""BMP."""

from io import BytesIO

import numpy as np
from PIL import Image

from tests.model.images.matrix.cell import Cell
from tests.pictures import noise


def cells() -> list[Cell]:
    pixels = noise(16, 24)
    file = BytesIO()
    Image.fromarray(pixels).save(file, "BMP")
    return [Cell("BMP", "colour, 24 bits", file.getvalue(), np.asarray(pixels))]
