"""Every cell is read as the specification demands, or refused by name; the document's table says so."""

from pathlib import Path

import numpy as np
import pytest

from model.errors import ImageError
from model.images.decode import decode_rgb, read_header
from tests.model.images.matrix.cell import Cell
from tests.model.images.matrix.drawing import Pixels
from tests.model.images.matrix.judges import by_imagecodecs, by_libvips
from tests.model.images.matrix.table import END, MODULES, START, cells_of, table

LIMIT = 10_000_000
PAGE = Path(__file__).parents[4] / "docs/images.md"


def fault(cell: Cell) -> str:
    """What is wrong with our answer to a cell; empty if nothing is."""
    try:
        header = read_header(cell.data, max_decode_pixels=LIMIT)
        pixels = np.asarray(decode_rgb(cell.data, max_decode_pixels=LIMIT))
    except ImageError as error:
        if cell.refused and cell.refused in str(error):
            return ""
        return f"refused: {error}"
    if cell.want is None:
        return "read, and should be refused"
    # An orientation behind the pixels is unknown until they are decoded.
    if header.size != pixels.shape[:2] and "behind the pixels" not in cell.row:
        return f"the header says {header.size}, the picture is {pixels.shape[:2]}"
    if pixels.shape != cell.want.shape:
        return f"{pixels.shape[:2]} instead of {cell.want.shape[:2]}"
    off = np.abs(pixels.astype(int) - cell.want)
    if off.max() > cell.tolerance:
        place = tuple(int(place) for place in np.unravel_index(off.argmax(), off.shape)[:2])
        return f"{pixels[place].tolist()} at {place} instead of {cell.want[place].tolist()}"
    return ""


# Seven of ten cells are among these.
@pytest.mark.parametrize(
    "module", [pytest.param(name, marks=pytest.mark.slow) if name == "tiff_cells" else name for name in MODULES]
)
def test_every_cell_is_read_right_or_refused_by_name(module: str) -> None:
    cells = cells_of(module)
    assert len({(cell.format, cell.name) for cell in cells}) == len(cells)
    faults = {f"{cell.format}, {cell.name}": found for cell in cells if (found := fault(cell))}
    assert not faults, "\n".join(f"{name}: {found}" for name, found in faults.items())


@pytest.mark.slow
def test_the_table_of_the_document_is_the_matrix() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text.partition(START)[2].partition(END)[0] == table(), "run `make images`"


@pytest.mark.slow
@pytest.mark.parametrize("module", MODULES)
def test_other_decoders_see_what_the_cells_claim(module: str) -> None:
    """libvips, and imagecodecs where libvips does not read a file or sees something else."""
    judged, against = 0, []
    for cell in cells_of(module):
        if cell.want is None or not cell.judged:
            continue
        verdicts = [agrees(by_libvips(cell.data), cell), agrees(by_imagecodecs(cell.data, cell.format), cell)]
        judged += any(verdict is not None for verdict in verdicts)
        if False in verdicts and True not in verdicts:
            against.append(f"{cell.format}, {cell.name}")
    assert judged
    assert not against, "\n".join(against)


def agrees(pixels: Pixels | None, cell: Cell) -> bool | None:
    """None if the decoder does not read the file."""
    if pixels is None or cell.want is None:
        return None
    close = max(1, 2 * cell.tolerance)
    return pixels.shape == cell.want.shape and bool((np.abs(pixels.astype(int) - cell.want) <= close).all())
