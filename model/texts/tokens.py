"""What a text becomes. Apart from what makes it: a server of a model without text loads no tokenizer."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class TextTokens:
    """ids: int32 [n], what the tower computes; n is `context` for a family trained with padding, else `tokens`.

    tokens: ids without padding, control tokens included. truncated: the text had more.
    """

    ids: NDArray[np.int32]
    tokens: int
    truncated: bool
