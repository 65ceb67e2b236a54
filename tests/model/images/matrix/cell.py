"""A cell of the matrix: one small file, and what is to be seen in it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Cell:
    """One file. Cells of a format that share the part of their name before `": "` are one row of the table.

    name: such as `"gray, 4 bits, with a colour key: interlaced, filter 2"`.
    want: RGB uint8 `[h, w, 3]`, from the drawn samples and the specification; None if the file is refused.
    refused: words of the error message; empty if the file is read.
    tolerance: how far a value may be off, for lossy formats and for colour that is computed in floating point.
    judged: whether other decoders that read the file must agree; if not, a comment says why.
    """

    format: str
    name: str
    data: bytes
    want: NDArray[np.uint8] | None
    refused: str = ""
    tolerance: int = 0
    judged: bool = True

    @property
    def row(self) -> str:
        return self.name.partition(": ")[0]
