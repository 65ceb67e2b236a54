#!/usr/bin/env bash
# PyArrow: pictures stored as tensors with their axes turned come back with other numbers, or with another shape.
#
# Versions: pyarrow 26.0.1, numpy 2.4.6. Seen on 2026-11-30.
# Behaviour: a fixed_shape_tensor has the shape that lies in memory, and a permutation: axis i of the tensor is axis
#   permutation[i] in memory (Arrow's Canonical Extension Types). For three axes that change places in a ring, as height and
#   width before the channels or behind them, both ways are wrong. FixedShapeTensorArray.from_numpy_ndarray, given a transposed
#   array, notes the inverse. to_numpy_ndarray has strides that do not belong to the shape, of a type that follows the
#   specification too: right shape, wrong numbers, or an error. A row on its own is wrong for two axes as well.
# Output seen (two of each; the shape that is put in, what to_numpy_ndarray and array[0].to_numpy give, and whether the numbers
#   are the same):
#   by the specification, channels first in memory: (224, 224, 3); all (224, 224, 3) False; one (224, 224, 3) False
#   from NumPy, channels first in memory: (224, 224, 3); all (224, 3, 224) False; one (224, 3, 224) False
#   from NumPy, channels last in memory: (3, 224, 224); all ArrowInvalid; one ArrowInvalid
#   from NumPy, 196 tokens last in memory: (196, 64); all (196, 64) True; one (196, 64) False
#   from NumPy, copied into its order: (224, 224, 3); all (224, 224, 3) True; one (224, 224, 3) True
# Why it matters: permute(0, 2, 3, 1) of PyTorch and transpose of NumPy make such arrays. Pictures come out of Arrow and
#   Parquet as noise that has the shape of a picture, and are embedded. Vectors of tokens that are read row by row have the
#   right length and the wrong numbers. Call numpy.ascontiguousarray first.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet pyarrow==26.0.1 numpy==2.4.6
venv/bin/python - <<'PYTHON'
import sys

import numpy as np
import pyarrow as pa

random = np.random.default_rng(0)
from_numpy = pa.FixedShapeTensorArray.from_numpy_ndarray


def memory(*shape: int) -> np.ndarray:
    return random.integers(0, 256, (2, *shape), dtype=np.uint8)


def by_the_specification(stored: np.ndarray, permutation: list[int]) -> pa.FixedShapeTensorArray:
    kind = pa.fixed_shape_tensor(pa.uint8(), stored.shape[1:], permutation=permutation)
    return pa.ExtensionArray.from_storage(kind, pa.FixedSizeListArray.from_arrays(stored.ravel(), stored[0].size))


def read(take, given: np.ndarray, axes: int) -> str:
    """The shape of one tensor, and whether all numbers are right."""
    try:
        taken = take()
    except pa.ArrowInvalid as error:
        return type(error).__name__
    return f"{taken.shape[-axes:]} {np.array_equal(taken, given)}"


first, last, tokens = memory(3, 224, 224), memory(224, 224, 3), memory(64, 196)
turned = first.transpose(0, 2, 3, 1)
cases = {
    "by the specification, channels first in memory": (turned, by_the_specification(first, [1, 2, 0])),
    "from NumPy, channels first in memory": (turned, from_numpy(turned)),
    "from NumPy, channels last in memory": (last.transpose(0, 3, 1, 2), from_numpy(last.transpose(0, 3, 1, 2))),
    "from NumPy, 196 tokens last in memory": (tokens.transpose(0, 2, 1), from_numpy(tokens.transpose(0, 2, 1))),
    "from NumPy, copied into its order": (turned, from_numpy(np.ascontiguousarray(turned))),
}
found = {}
for name, (given, array) in cases.items():
    axes = given.ndim - 1
    found[name] = (read(array.to_numpy_ndarray, given, axes), read(lambda: array[0].to_numpy(), given[0], axes))
    print(f"{name}: {given.shape[1:]}; all {found[name][0]}; one {found[name][1]}")
stated = {
    "by the specification, channels first in memory": ("(224, 224, 3) False", "(224, 224, 3) False"),
    "from NumPy, channels first in memory": ("(224, 3, 224) False", "(224, 3, 224) False"),
    "from NumPy, channels last in memory": ("ArrowInvalid", "ArrowInvalid"),
    "from NumPy, 196 tokens last in memory": ("(196, 64) True", "(196, 64) False"),
    "from NumPy, copied into its order": ("(224, 224, 3) True", "(224, 224, 3) True"),
}
sys.exit(0 if found == stated else "the behaviour has changed")
PYTHON
